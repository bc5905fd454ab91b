//! The three JSON forms: one array on one line, an object a line, and what the Spice SDKs read.

use std::io::Write;

use arrow_array::{RecordBatch, StructArray};
use arrow_schema::{ArrowError, Schema};

use super::Encode;
use super::nested::with_rows;
use super::out::Out;

/// Rows as objects, between fixed texts.
pub(super) struct Json {
    before: String,
    between: &'static [u8],
    after_each: &'static [u8],
    after: &'static [u8],
    /// Whether the number of rows comes last; it is not known earlier.
    counted: bool,
    rows: u64,
}

impl Json {
    /// `[{…},{…}]`. There is no newline at all: clients take a second line for NDJSON.
    pub(super) fn array() -> Self {
        Self { before: "[".into(), between: b",", after_each: b"", after: b"]", counted: false, rows: 0 }
    }

    /// An object a line.
    pub(super) fn lines() -> Self {
        Self { before: String::new(), between: b"", after_each: b"\n", after: b"", counted: false, rows: 0 }
    }

    /// `{"schema":…,"data":[…],"row_count":N}`.
    pub(super) fn spice(schema: &Schema) -> Result<Self, ArrowError> {
        let schema = serde_json::to_string(schema).map_err(|e| ArrowError::JsonError(e.to_string()))?;
        let before = format!("{{\"schema\":{schema},\"data\":[");
        Ok(Self { before, after: b"]", counted: true, ..Self::array() })
    }
}

impl Encode for Json {
    fn begin(&mut self, out: &mut Out) -> Result<(), ArrowError> {
        out.text().extend_from_slice(self.before.as_bytes());
        Ok(())
    }

    fn rows(&mut self, batch: &RecordBatch, out: &mut Out) -> Result<(), ArrowError> {
        let out = out.text();
        with_rows(&StructArray::from(batch.clone()), |row, encoder| {
            if self.rows > 0 {
                out.extend_from_slice(self.between);
            }
            encoder.encode(row, out);
            out.extend_from_slice(self.after_each);
            self.rows += 1;
        })
    }

    fn end(&mut self, out: &mut Out) -> Result<(), ArrowError> {
        out.text().extend_from_slice(self.after);
        if self.counted {
            write!(out.text(), ",\"row_count\":{}}}", self.rows)?;
        }
        Ok(())
    }
}
