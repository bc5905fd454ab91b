//! `CommandGetTables`.

use arrow_array::RecordBatch;
use arrow_flight::error::FlightError;
use arrow_flight::sql::CommandGetTables;
use spiced_engine::{Catalog, TableInfo};

use crate::sql::table_types::table_type;

pub(crate) fn rows(mut command: CommandGetTables, catalog: &Catalog) -> Result<RecordBatch, FlightError> {
    for kind in &mut command.table_types {
        *kind = table_type(kind).to_owned();
    }
    let mut builder = command.into_builder();
    for TableInfo { catalog, schema, name, kind, columns, .. } in &catalog.tables {
        builder.append(catalog, schema, name, table_type(kind), columns)?;
    }
    builder.build()
}
