//! How values become JSON: arrow-json's encoders, and ours where those give up or go wrong.
//!
//! Binary is hexadecimal, decimals are numbers, dates and times are ISO 8601 text, floats that are
//! no number are null. Unions, and maps whose keys are no text, are text.

use std::sync::{Arc, OnceLock};

use arrow_array::cast::AsArray;
use arrow_array::{Array, StructArray};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_json::writer::{Encoder, EncoderFactory, EncoderOptions, NullableEncoder, make_encoder};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Fields};

/// Every null is written; what arrow-json lacks is ours.
fn options(ours: &Arc<Ours>) -> EncoderOptions {
    EncoderOptions::default().with_explicit_nulls(true).with_encoder_factory(ours.clone())
}

/// The error of a value of the column `name` that has no text. Without the value: errors hold no data.
pub(super) fn no_text(name: &str, data_type: &DataType) -> ArrowError {
    ArrowError::CastError(format!(
        "the column `{name}` ({data_type}) holds a value that has no text, such as a date or time beyond the calendar; ask for \
         Arrow, or CAST it to BIGINT"
    ))
}

/// The field of a batch as one struct.
pub(super) fn row_field(fields: &Fields) -> FieldRef {
    Arc::new(Field::new_struct("row", fields.clone(), false))
}

/// Calls `each` with an encoder of the rows of `array`.
///
/// # Errors
/// A value cannot be written.
pub(super) fn with_rows(
    array: &StructArray,
    mut each: impl FnMut(usize, &mut NullableEncoder<'_>),
) -> Result<(), ArrowError> {
    let ours = Arc::<Ours>::default();
    let (options, field) = (options(&ours), row_field(array.fields()));
    let mut encoder = make_encoder(&field, array, &options)?;
    for row in 0..array.len() {
        each(row, &mut encoder);
        if let Some((name, data_type)) = ours.failed.get() {
            return Err(no_text(name, data_type));
        }
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Ours {
    /// The column of a value that could not be written: an encoder has no other way to say so.
    failed: Arc<OnceLock<(String, DataType)>>,
}

impl Ours {
    fn text<'a>(&self, field: &FieldRef, array: &'a dyn Array) -> Result<Box<dyn Encoder + 'a>, ArrowError> {
        const OPTIONS: FormatOptions<'static> = FormatOptions::new().with_display_error(false);
        let formatter = ArrayFormatter::try_new(array, &OPTIONS)?;
        let of = (field.name().clone(), field.data_type().clone());
        Ok(Box::new(Text { formatter, text: String::new(), of, failed: self.failed.clone() }))
    }
}

impl EncoderFactory for Ours {
    fn make_default_encoder<'a>(
        &self,
        field: &'a FieldRef,
        array: &'a dyn Array,
        options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            // arrow-json looks for nulls among the keys alone, and then encodes a null value.
            DataType::Dictionary(_, _) => {
                let dictionary = array.as_any_dictionary();
                let values = dictionary.values();
                let keys = if values.is_empty() { Vec::new() } else { dictionary.normalized_keys() };
                Box::new(Dictionary { keys, values: make_encoder(field, values.as_ref(), options)? })
            }
            // arrow-json refuses these two.
            DataType::Union(_, _) => self.text(field, array)?,
            DataType::Map(entries, _) if !has_text_keys(entries) => self.text(field, array)?,
            // arrow-json panics at a time beyond the calendar.
            kind if kind.is_temporal() => self.text(field, array)?,
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, array.logical_nulls())))
    }
}

fn has_text_keys(entries: &Field) -> bool {
    let DataType::Struct(fields) = entries.data_type() else { return false };
    fields.first().is_some_and(|key| key.data_type().is_string())
}

struct Dictionary<'a> {
    keys: Vec<usize>,
    values: NullableEncoder<'a>,
}

impl Encoder for Dictionary<'_> {
    fn encode(&mut self, idx: usize, out: &mut Vec<u8>) {
        self.values.encode(self.keys[idx], out);
    }
}

/// A value as a JSON string of its text.
struct Text<'a> {
    formatter: ArrayFormatter<'a>,
    text: String,
    of: (String, DataType),
    failed: Arc<OnceLock<(String, DataType)>>,
}

impl Encoder for Text<'_> {
    fn encode(&mut self, idx: usize, out: &mut Vec<u8>) {
        self.text.clear();
        if self.formatter.value(idx).write(&mut self.text).is_err() {
            // The first counts.
            let _ = self.failed.set(self.of.clone());
        }
        if self.text.bytes().any(|b| matches!(b, b'"' | b'\\' | 0..0x20)) {
            out.extend_from_slice(serde_json::Value::from(self.text.as_str()).to_string().as_bytes());
        } else {
            out.push(b'"');
            out.extend_from_slice(self.text.as_bytes());
            out.push(b'"');
        }
    }
}
