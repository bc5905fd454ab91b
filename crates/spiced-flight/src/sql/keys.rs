//! Primary and foreign keys, in the columns that Flight SQL defines.

use std::sync::{Arc, LazyLock};

use arrow_array::{ArrayRef, Int32Array, RecordBatch, StringArray, UInt8Array};
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    Command, CommandGetCrossReference, CommandGetExportedKeys, CommandGetImportedKeys, CommandGetPrimaryKeys,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use spiced_engine::{Catalog, ForeignKey, TableInfo};

pub(crate) static PRIMARY_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
});

pub(crate) static FOREIGN_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
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

/// The table that a request names. An absent catalog or schema matches any.
struct KeyQuery<'a>(Option<&'a str>, Option<&'a str>, &'a str);

impl KeyQuery<'_> {
    fn is(&self, [catalog, schema, name]: [&str; 3]) -> bool {
        let Self(wanted, within, table) = self;
        wanted.is_none_or(|wanted| wanted == catalog) && within.is_none_or(|within| within == schema) && *table == name
    }
}

/// Returns the keys that a command requests, or `None` if the command does not request keys.
pub(crate) fn rows(command: &Command, catalog: &Catalog) -> Option<Result<RecordBatch, FlightError>> {
    Some(match command {
        Command::CommandGetPrimaryKeys(CommandGetPrimaryKeys { catalog: of, db_schema, table }) => {
            primary(catalog, &KeyQuery(of.as_deref(), db_schema.as_deref(), table))
        }
        Command::CommandGetImportedKeys(CommandGetImportedKeys { catalog: of, db_schema, table }) => {
            let asked = KeyQuery(of.as_deref(), db_schema.as_deref(), table);
            foreign(catalog, By::Referred, |from, _| asked.is(from))
        }
        Command::CommandGetExportedKeys(CommandGetExportedKeys { catalog: of, db_schema, table }) => {
            let asked = KeyQuery(of.as_deref(), db_schema.as_deref(), table);
            foreign(catalog, By::Referring, |_, to| asked.is(to))
        }
        Command::CommandGetCrossReference(CommandGetCrossReference {
            pk_catalog,
            pk_db_schema,
            pk_table,
            fk_catalog,
            fk_db_schema,
            fk_table,
        }) => {
            let referred = KeyQuery(pk_catalog.as_deref(), pk_db_schema.as_deref(), pk_table);
            let referring = KeyQuery(fk_catalog.as_deref(), fk_db_schema.as_deref(), fk_table);
            foreign(catalog, By::Referring, |from, to| referring.is(from) && referred.is(to))
        }
        _ => return None,
    })
}

fn place(table: &TableInfo) -> [&str; 3] {
    [&table.catalog, &table.schema, &table.name]
}

fn primary(catalog: &Catalog, asked: &KeyQuery<'_>) -> Result<RecordBatch, FlightError> {
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
    Ok(RecordBatch::try_new(PRIMARY_KEYS.clone(), columns)?)
}

/// The table by which the rows are sorted.
#[derive(Clone, Copy)]
enum By {
    Referring,
    Referred,
}

fn foreign(
    catalog: &Catalog,
    by: By,
    asked: impl Fn([&str; 3], [&str; 3]) -> bool,
) -> Result<RecordBatch, FlightError> {
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
    Ok(RecordBatch::try_new(FOREIGN_KEYS.clone(), columns)?)
}

/// Returns the table that a foreign key refers to.
fn to(key: &ForeignKey) -> [&str; 3] {
    key.table.each_ref().map(String::as_str)
}

fn texts<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}
