//! `CommandGetPrimaryKeys`.

use std::sync::{Arc, LazyLock};

use arrow_array::{ArrayRef, Int32Array, RecordBatch};
use arrow_flight::error::FlightError;
use arrow_flight::sql::CommandGetPrimaryKeys;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use spiced_engine::Catalog;

use crate::sql::keys::{KeyQuery, place, texts};

/// The columns of the response.
pub(crate) static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
});

/// Returns the primary key of a table.
pub(crate) fn rows(command: &CommandGetPrimaryKeys, catalog: &Catalog) -> Result<RecordBatch, FlightError> {
    let CommandGetPrimaryKeys { catalog: of, db_schema, table } = command;
    let asked = KeyQuery(of.as_deref(), db_schema.as_deref(), table);
    // The catalog lists tables in order.
    let tables = catalog.tables.iter().filter(|table| asked.is(place(table)));
    let keys = tables.filter_map(|table| Some((place(table), table.primary_key.as_ref()?)));
    let rows: Vec<_> = keys
        .flat_map(|(place, key)| {
            (1..).zip(&key.columns).map(move |(at, column)| (place, key.name.as_deref(), column, at))
        })
        .collect();
    let columns: Vec<ArrayRef> = vec![
        texts(rows.iter().map(|(place, ..)| Some(place[0]))),
        texts(rows.iter().map(|(place, ..)| Some(place[1]))),
        texts(rows.iter().map(|(place, ..)| Some(place[2]))),
        texts(rows.iter().map(|(_, _, column, _)| Some(column.as_str()))),
        texts(rows.iter().map(|(_, name, ..)| *name)),
        Arc::new(rows.iter().map(|(.., at)| Some(*at)).collect::<Int32Array>()),
    ];
    Ok(RecordBatch::try_new(SCHEMA.clone(), columns)?)
}
