//! How values become JSON: arrow-json's encoders, and ours where those give up or go wrong.
//!
//! Binary is hexadecimal, decimals are numbers, dates and times are ISO 8601 text, floats that are
//! no number are null. Unions, and maps whose keys are no text, are text.

use std::io::Write;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, StructArray};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_json::writer::{Encoder, EncoderFactory, EncoderOptions, NullableEncoder, make_encoder};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Fields};

/// Every null is written; what arrow-json lacks is ours.
pub(super) fn options() -> EncoderOptions {
    EncoderOptions::default().with_explicit_nulls(true).with_encoder_factory(Arc::new(Ours))
}

/// The field of a batch as one struct.
pub(super) fn row_field(fields: &Fields) -> FieldRef {
    Arc::new(Field::new_struct("row", fields.clone(), false))
}

/// Calls `each` with an encoder of the rows of `array`.
pub(super) fn with_rows(
    array: &StructArray,
    mut each: impl FnMut(usize, &mut NullableEncoder<'_>),
) -> Result<(), ArrowError> {
    let (options, field) = (options(), row_field(array.fields()));
    let mut encoder = make_encoder(&field, array, &options)?;
    for row in 0..array.len() {
        each(row, &mut encoder);
    }
    Ok(())
}

#[derive(Debug)]
struct Ours;

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
            DataType::Union(_, _) => Box::new(Text::new(array)?),
            DataType::Map(entries, _) if !has_text_keys(entries) => Box::new(Text::new(array)?),
            // arrow-json writes these without escaping, and what a time beyond the calendar is
            // written as may hold a quote.
            kind if kind.is_temporal() => Box::new(Text::new(array)?),
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
struct Text<'a>(ArrayFormatter<'a>);

impl<'a> Text<'a> {
    fn new(array: &'a dyn Array) -> Result<Self, ArrowError> {
        const OPTIONS: FormatOptions<'static> = FormatOptions::new().with_display_error(true);
        ArrayFormatter::try_new(array, &OPTIONS).map(Self)
    }
}

impl Encoder for Text<'_> {
    fn encode(&mut self, idx: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.push(b'"');
        // Writing to memory does not fail, and a value that has no text shows why instead.
        let _ = write!(out, "{}", self.0.value(idx));
        if out[start + 1..].iter().any(|b| matches!(b, b'"' | b'\\' | 0..0x20)) {
            let text = String::from_utf8_lossy(&out[start + 1..]).into_owned();
            out.truncate(start);
            out.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
        } else {
            out.push(b'"');
        }
    }
}
