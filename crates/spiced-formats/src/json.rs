//! The three JSON formats: one array on one line, one object per line, and the format of the Spice SDKs.

use std::io::Write;

use arrow_array::{RecordBatch, StructArray};
use arrow_schema::{ArrowError, Fields, Schema};

use crate::encode::Encode;
use crate::nested::{distinct, with_rows};
use crate::out::Out;

/// Writes rows as objects, with fixed text around them.
pub(crate) struct Json {
    before: String,
    between: &'static [u8],
    after_each: &'static [u8],
    after: &'static [u8],
    /// Whether the number of rows follows the rows.
    counted: bool,
    rows: u64,
    /// The columns with unique names, if their own names are not unique.
    distinct: Option<Fields>,
}

impl Json {
    /// `[{…},{…}]` without any newline, because clients treat a second line as NDJSON.
    pub(crate) fn array(schema: &Schema) -> Self {
        let distinct = distinct(schema.fields());
        Self { before: "[".into(), between: b",", after_each: b"", after: b"]", counted: false, rows: 0, distinct }
    }

    /// One object per line.
    pub(crate) fn lines(schema: &Schema) -> Self {
        Self { before: String::new(), between: b"", after_each: b"\n", after: b"", ..Self::array(schema) }
    }

    /// `{"schema":…,"data":[…],"row_count":N}`.
    pub(crate) fn spice(schema: &Schema) -> Result<Self, ArrowError> {
        let form = Self::array(schema);
        let fields = form.distinct.as_ref().unwrap_or_else(|| schema.fields());
        let schema = Schema::new_with_metadata(fields.clone(), schema.metadata().clone());
        let schema = serde_json::to_string(&schema).map_err(|e| ArrowError::JsonError(e.to_string()))?;
        Ok(Self { before: format!("{{\"schema\":{schema},\"data\":["), counted: true, ..form })
    }
}

impl Encode for Json {
    fn begin(&mut self, out: &mut Out) -> Result<(), ArrowError> {
        out.text().extend_from_slice(self.before.as_bytes());
        Ok(())
    }

    fn rows(&mut self, batch: &RecordBatch, out: &mut Out) -> Result<(), ArrowError> {
        let out = out.text();
        let rows = match &self.distinct {
            Some(fields) => {
                StructArray::try_new_with_length(fields.clone(), batch.columns().to_vec(), None, batch.num_rows())?
            }
            None => StructArray::from(batch.clone()),
        };
        with_rows(&rows, |row, encoder| {
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

#[cfg(test)]
mod tests {
    use arrow_schema::{DataType, Field};

    use super::*;

    #[test]
    fn no_key_is_there_twice() {
        for (names, expected) in [
            (&["a", "b"][..], None),
            (&["a", "a"], Some("a a_2")),
            (&["a", "a", "a", "b", "b"], Some("a a_2 a_3 b b_2")),
            (&["a", "a_2", "a"], Some("a a_2 a_3")),
            (&["a", "a", "a_2", "a"], Some("a a_3 a_2 a_4")),
            (&["", ""], Some(" _2")),
        ] {
            let fields = names.iter().map(|name| Field::new(*name, DataType::Null, true)).collect();
            let renamed = distinct(&fields)
                .map(|fields| fields.iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(" "));
            assert_eq!(renamed.as_deref(), expected, "{names:?}");
        }
    }
}
