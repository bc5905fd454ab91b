//! Comma-separated values according to RFC 4180, with a header line and LF line endings.
//!
//! Null is an empty field and an empty string is a quoted one (`,""`), as in PostgreSQL's COPY. A nested value (list,
//! struct, map, union) is written as JSON text in one field.

use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::{Array, ArrayRef, RecordBatch, StructArray};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{ArrowError, Field, Fields, Schema};

use crate::encode::Encode;
use crate::nested::{check_durations, no_text, with_rows};
use crate::out::Out;

pub(crate) struct Csv {
    header: Vec<String>,
}

impl Csv {
    pub(crate) fn new(schema: &Schema) -> Self {
        Self { header: schema.fields().iter().map(|field| field.name().clone()).collect() }
    }
}

impl Encode for Csv {
    fn begin(&mut self, out: &mut Out) -> Result<(), ArrowError> {
        let out = out.text();
        for (at, name) in self.header.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write(name, out);
        }
        out.push(b'\n');
        Ok(())
    }

    fn rows(&mut self, batch: &RecordBatch, out: &mut Out) -> Result<(), ArrowError> {
        let out = out.text();
        let fields = batch.schema_ref().fields();
        for (field, column) in fields.iter().zip(batch.columns()) {
            check_durations(field, column.as_ref())?;
        }
        let flat = |(column, field): (&ArrayRef, &Arc<Field>)| match field.data_type().is_nested() {
            true => json(column, field),
            false => Ok(column.clone()),
        };
        let columns: Vec<ArrayRef> = batch.columns().iter().zip(fields).map(flat).collect::<Result<_, _>>()?;
        let nulls: Vec<_> = columns.iter().map(|column| column.logical_nulls()).collect();
        let options = FormatOptions::new().with_display_error(false);
        let formatters: Vec<ArrayFormatter<'_>> =
            columns.iter().map(|column| ArrayFormatter::try_new(column, &options)).collect::<Result<_, _>>()?;
        let mut text = String::new();
        for row in 0..batch.num_rows() {
            for (at, formatter) in formatters.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                if nulls[at].as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                    continue;
                }
                text.clear();
                let (name, data_type) = (fields[at].name(), fields[at].data_type());
                formatter.value(row).write(&mut text).map_err(|_| no_text(name, data_type))?;
                write(&text, out);
            }
            out.push(b'\n');
        }
        Ok(())
    }

    fn end(&mut self, _: &mut Out) -> Result<(), ArrowError> {
        Ok(())
    }
}

/// Writes a string as a field, quoted if it is empty or would be misread without quotes.
fn write(text: &str, out: &mut Vec<u8>) {
    let special = |byte| matches!(byte, b',' | b'"' | b'\n' | b'\r');
    if !text.is_empty() && !text.bytes().any(special) {
        return out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' {
            out.push(byte);
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Returns the values of a column as JSON text.
fn json(column: &ArrayRef, field: &Field) -> Result<ArrayRef, ArrowError> {
    // A struct with one field uses the same encoders as a row.
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
        // Strips `{"v":` and `}`.
        text.append_value(String::from_utf8_lossy(&row_text[5..row_text.len() - 1]));
    })?;
    Ok(Arc::new(text.finish()))
}
