//! `CommandGetDbSchemas`.

use arrow_array::RecordBatch;
use arrow_flight::error::FlightError;
use arrow_flight::sql::CommandGetDbSchemas;
use spiced_engine::Catalog;

pub(crate) fn rows(command: CommandGetDbSchemas, catalog: &Catalog) -> Result<RecordBatch, FlightError> {
    let mut builder = command.into_builder();
    for (catalog, schema) in &catalog.schemas {
        builder.append(catalog, schema);
    }
    builder.build()
}
