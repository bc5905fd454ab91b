//! `CommandGetImportedKeys`, `CommandGetExportedKeys` and `CommandGetCrossReference`: foreign keys by the table that
//! refers, by the table referred to, or by both.

use std::sync::{Arc, LazyLock};

use arrow_array::{ArrayRef, Int32Array, RecordBatch, UInt8Array};
use arrow_flight::error::FlightError;
use arrow_flight::sql::{CommandGetCrossReference, CommandGetExportedKeys, CommandGetImportedKeys};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use spiced_engine::{Catalog, ForeignKey};

use crate::sql::keys::{KeyQuery, place, texts};

/// The columns of the responses.
pub(crate) static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
});

/// Returns the foreign keys of a table.
pub(crate) fn imported(command: &CommandGetImportedKeys, catalog: &Catalog) -> Result<RecordBatch, FlightError> {
    let CommandGetImportedKeys { catalog: of, db_schema, table } = command;
    let asked = KeyQuery(of.as_deref(), db_schema.as_deref(), table);
    rows(catalog, By::Referred, |from, _| asked.is(from))
}

/// Returns the foreign keys that refer to a table.
pub(crate) fn exported(command: &CommandGetExportedKeys, catalog: &Catalog) -> Result<RecordBatch, FlightError> {
    let CommandGetExportedKeys { catalog: of, db_schema, table } = command;
    let asked = KeyQuery(of.as_deref(), db_schema.as_deref(), table);
    rows(catalog, By::Referring, |_, to| asked.is(to))
}

/// Returns the foreign keys of one table that refer to another.
pub(crate) fn cross_reference(
    command: &CommandGetCrossReference,
    catalog: &Catalog,
) -> Result<RecordBatch, FlightError> {
    let CommandGetCrossReference { pk_catalog, pk_db_schema, pk_table, fk_catalog, fk_db_schema, fk_table } = command;
    let referred = KeyQuery(pk_catalog.as_deref(), pk_db_schema.as_deref(), pk_table);
    let referring = KeyQuery(fk_catalog.as_deref(), fk_db_schema.as_deref(), fk_table);
    rows(catalog, By::Referring, |from, to| referring.is(from) && referred.is(to))
}

/// The table by which the rows are sorted.
#[derive(Clone, Copy)]
enum By {
    Referring,
    Referred,
}

fn rows(catalog: &Catalog, by: By, asked: impl Fn([&str; 3], [&str; 3]) -> bool) -> Result<RecordBatch, FlightError> {
    let keys = catalog.tables.iter().flat_map(|table| table.foreign_keys.iter().map(move |key| (place(table), key)));
    let mut keys: Vec<_> = keys.filter(|(from, key)| asked(*from, to(key))).collect();
    match by {
        By::Referring => keys.sort_by_key(|(from, key)| (*from, key.key.name.as_deref())),
        By::Referred => keys.sort_by_key(|(_, key)| (to(key), key.referred.name.as_deref())),
    }
    let rows: Vec<_> = keys
        .into_iter()
        .flat_map(|(from, key)| {
            let columns = key.key.columns.iter().zip(&key.referred.columns);
            (1..).zip(columns).map(move |(at, columns)| (from, key, columns, at))
        })
        .collect();
    let columns: Vec<ArrayRef> = vec![
        texts(rows.iter().map(|(_, key, ..)| Some(to(key)[0]))),
        texts(rows.iter().map(|(_, key, ..)| Some(to(key)[1]))),
        texts(rows.iter().map(|(_, key, ..)| Some(to(key)[2]))),
        texts(rows.iter().map(|(_, _, (_, referred), _)| Some(referred.as_str()))),
        texts(rows.iter().map(|(from, ..)| Some(from[0]))),
        texts(rows.iter().map(|(from, ..)| Some(from[1]))),
        texts(rows.iter().map(|(from, ..)| Some(from[2]))),
        texts(rows.iter().map(|(_, _, (refers, _), _)| Some(refers.as_str()))),
        Arc::new(rows.iter().map(|(.., at)| Some(*at)).collect::<Int32Array>()),
        texts(rows.iter().map(|(_, key, ..)| key.key.name.as_deref())),
        texts(rows.iter().map(|(_, key, ..)| key.referred.name.as_deref())),
        Arc::new(rows.iter().map(|(_, key, ..)| Some(key.on_update as u8)).collect::<UInt8Array>()),
        Arc::new(rows.iter().map(|(_, key, ..)| Some(key.on_delete as u8)).collect::<UInt8Array>()),
    ];
    Ok(RecordBatch::try_new(SCHEMA.clone(), columns)?)
}

/// Returns the table that a foreign key refers to.
fn to(key: &ForeignKey) -> [&str; 3] {
    key.table.each_ref().map(String::as_str)
}
