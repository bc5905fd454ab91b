//! `CommandGetCatalogs`.

use std::collections::BTreeSet;

use arrow_array::RecordBatch;
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::GetCatalogsBuilder;
use spiced_engine::Catalog;

pub(crate) fn rows(catalog: &Catalog) -> Result<RecordBatch, FlightError> {
    let mut builder = GetCatalogsBuilder::new();
    for name in catalog.schemas.iter().map(|(catalog, _)| catalog).collect::<BTreeSet<_>>() {
        builder.append(name);
    }
    builder.build()
}
