//! The tables of a server, read from the results of Flight SQL's metadata commands.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_flight::IpcMessage;
use arrow_schema::{ArrowError, Schema};

/// The maximum number of tables kept for completion.
const MAX_TABLES: usize = 10_000;

/// The tables of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Catalog {
    pub(crate) tables: Vec<Table>,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) catalog: String,
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) kind: String,
    /// The columns with names and types, if they were requested.
    pub(crate) columns: Arc<Schema>,
}

impl Catalog {
    /// Reads the result of `GetTables`.
    pub(crate) fn read(batches: &[RecordBatch]) -> Self {
        let tables = batches.iter().flat_map(tables_of).take(MAX_TABLES).collect();
        Self { tables }
    }
}

impl Table {
    /// Returns `schema.table`.
    pub(crate) fn full_name(&self) -> String {
        if self.schema.is_empty() { self.name.clone() } else { format!("{}.{}", self.schema, self.name) }
    }

    /// Returns the table's columns as a record batch.
    pub(crate) fn describe(&self) -> Result<RecordBatch, ArrowError> {
        let fields = self.columns.fields();
        let text = |of: &dyn Fn(&arrow_schema::Field) -> String| -> ArrayRef {
            Arc::new(fields.iter().map(|field| Some(of(field))).collect::<StringArray>())
        };
        RecordBatch::try_from_iter([
            ("column", text(&|field| field.name().clone())),
            ("type", text(&|field| field.data_type().to_string())),
            ("nullable", text(&|field| if field.is_nullable() { "yes" } else { "no" }.to_owned())),
        ])
    }
}

fn tables_of(batch: &RecordBatch) -> Vec<Table> {
    let text = |name: &str, row: usize| {
        let column = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        column.filter(|column| column.is_valid(row)).map_or_else(String::new, |column| column.value(row).to_owned())
    };
    let schemas = batch.column_by_name("table_schema").and_then(|column| column.as_binary_opt::<i32>());
    let columns = |row: usize| {
        let bytes = schemas.filter(|schemas| schemas.is_valid(row))?.value(row).to_vec();
        Schema::try_from(IpcMessage(bytes.into())).ok().map(Arc::new)
    };
    let table = |row| Table {
        catalog: text("catalog_name", row),
        schema: text("db_schema_name", row),
        name: text("table_name", row),
        kind: text("table_type", row),
        columns: columns(row).unwrap_or_else(|| Arc::new(Schema::empty())),
    };
    (0..batch.num_rows()).map(table).collect()
}

/// Reads the server's name and version from the result of `GetSqlInfo`.
pub(crate) fn server(batches: &[RecordBatch]) -> Option<String> {
    let mut told = Vec::new();
    for batch in batches {
        let values = batch.column_by_name("value")?.as_union_opt()?;
        for row in 0..values.len() {
            let value = values.value(row);
            told.extend(
                value.as_string_opt::<i32>().filter(|text| text.len() == 1).map(|text| text.value(0).to_owned()),
            );
        }
    }
    (!told.is_empty()).then(|| told.join(" "))
}
