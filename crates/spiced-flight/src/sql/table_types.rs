//! `CommandGetTableTypes`, and the name of each type.

use arrow_array::RecordBatch;
use arrow_flight::error::FlightError;
use arrow_flight::sql::CommandGetTableTypes;

pub(crate) fn rows(command: CommandGetTableTypes) -> Result<RecordBatch, FlightError> {
    let mut builder = command.into_builder();
    for kind in ["BASE TABLE", "VIEW"] {
        builder.append(table_type(kind));
    }
    builder.build()
}

/// Returns the table type of a kind in SQL's information schema. `BASE TABLE` becomes `TABLE`, the name that Flight
/// SQL, JDBC and ODBC use, and by which tools filter tables.
pub(crate) fn table_type(kind: &str) -> &str {
    if kind == "BASE TABLE" { "TABLE" } else { kind }
}
