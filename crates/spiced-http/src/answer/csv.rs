//! Comma-separated values after RFC 4180, with a header line, lines ending in LF.
//!
//! Null is an empty field. A nested value (list, struct, map, union) is its JSON text in one field.

use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, StructArray};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_csv::WriterBuilder;
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema, SchemaRef};

use super::Encode;
use super::nested::with_rows;
use super::out::Out;

pub(super) struct Csv {
    /// The names of the columns, which is all that the header line needs.
    header: SchemaRef,
}

impl Csv {
    pub(super) fn new(schema: &Schema) -> Self {
        let fields: Fields =
            schema.fields().iter().map(|field| Field::new(field.name(), DataType::Utf8, true)).collect();
        Self { header: Arc::new(Schema::new(fields)) }
    }
}

impl Encode for Csv {
    fn begin(&mut self, out: &mut Out) -> Result<(), ArrowError> {
        WriterBuilder::new().build(out.text()).write(&RecordBatch::new_empty(self.header.clone()))
    }

    fn rows(&mut self, batch: &RecordBatch, out: &mut Out) -> Result<(), ArrowError> {
        let out = out.text();
        let start = out.len();
        let flat = with_text(batch, |kind| kind.is_nested(), json)?;
        if write(&flat, out).is_ok() {
            return Ok(());
        }
        // A date or time beyond the calendar: it is shown as in the other forms, with what is wrong.
        out.truncate(start);
        write(&with_text(&flat, DataType::is_temporal, |column, _| displayed(column))?, out)
    }

    fn end(&mut self, _: &mut Out) -> Result<(), ArrowError> {
        Ok(())
    }
}

fn write(batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
    WriterBuilder::new().with_header(false).build(out).write(batch)
}

/// The batch with text, made by `text`, in the columns whose type is `chosen`.
fn with_text(
    batch: &RecordBatch,
    chosen: impl Fn(&DataType) -> bool,
    text: impl Fn(&ArrayRef, &Field) -> Result<ArrayRef, ArrowError>,
) -> Result<RecordBatch, ArrowError> {
    if !batch.columns().iter().any(|column| chosen(column.data_type())) {
        return Ok(batch.clone());
    }
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (column, field) in batch.columns().iter().zip(batch.schema_ref().fields()) {
        let column = if chosen(column.data_type()) { text(column, field)? } else { column.clone() };
        fields.push(Field::new(field.name(), column.data_type().clone(), true));
        columns.push(column);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// The values of a column as a person reads them.
fn displayed(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = FormatOptions::new().with_display_error(true);
    let formatter = ArrayFormatter::try_new(column, &options)?;
    let values = (0..column.len()).map(|at| column.is_valid(at).then(|| formatter.value(at).to_string()));
    Ok(Arc::new(values.collect::<StringArray>()))
}

/// The values of a column as JSON text.
fn json(column: &ArrayRef, field: &Field) -> Result<ArrayRef, ArrowError> {
    // A struct of one field `{"name":value}` goes through the same encoders as a row does.
    let name = Arc::new(field.clone().with_name("v").with_nullable(true));
    let rows = StructArray::try_new(Fields::from(vec![name]), vec![column.clone()], None)?;
    let nulls = column.logical_nulls();
    let mut text = StringBuilder::new();
    let mut row_text = Vec::new();
    with_rows(&rows, |row, encoder| {
        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            text.append_null();
            return;
        }
        row_text.clear();
        encoder.encode(row, &mut row_text);
        // Without `{"v":` and `}`.
        text.append_value(String::from_utf8_lossy(&row_text[5..row_text.len() - 1]));
    })?;
    Ok(Arc::new(text.finish()))
}
