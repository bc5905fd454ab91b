//! Encodes values as JSON: with arrow-json's encoders, or our own if those fail or produce wrong output.
//!
//! Binary is hexadecimal, decimals are numbers, dates and times are ISO 8601 text, and NaN and infinite floats are
//! null. Unions are text. Maps are objects whose keys are the text of the map's keys. A key that would occur
//! twice in an object gets a number, as columns do.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use arrow_array::cast::AsArray;
use arrow_array::{Array, StructArray};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_data::ArrayData;
use arrow_json::writer::{Encoder, EncoderFactory, EncoderOptions, NullableEncoder, make_encoder};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Fields, TimeUnit};

/// Writes every null, and uses our encoders for types that arrow-json does not handle.
fn options(ours: &Arc<Ours>) -> EncoderOptions {
    EncoderOptions::default().with_explicit_nulls(true).with_encoder_factory(ours.clone())
}

/// Returns the error for a value of the column `name` that has no text form. It omits the value: errors contain no
/// data.
pub(crate) fn no_text(name: &str, data_type: &DataType) -> ArrowError {
    ArrowError::CastError(format!(
        "the column `{name}` ({data_type}) holds a value that has no text form, such as a date or time beyond the \
         calendar; request Arrow, or CAST it to BIGINT"
    ))
}

/// Rejects durations whose milliseconds exceed 64 bits, for which the formatter would write a placeholder.
pub(crate) fn check_durations(field: &Field, array: &dyn Array) -> Result<(), ArrowError> {
    fn holds(data_type: &DataType) -> bool {
        match data_type {
            DataType::Duration(TimeUnit::Second | TimeUnit::Millisecond) => true,
            DataType::Dictionary(_, values) => holds(values),
            DataType::List(field)
            | DataType::LargeList(field)
            | DataType::ListView(field)
            | DataType::LargeListView(field)
            | DataType::FixedSizeList(field, _)
            | DataType::Map(field, _)
            | DataType::RunEndEncoded(_, field) => holds(field.data_type()),
            DataType::Struct(fields) => fields.iter().any(|field| holds(field.data_type())),
            DataType::Union(fields, _) => fields.iter().any(|(_, field)| holds(field.data_type())),
            _ => false,
        }
    }
    fn overflows(data: &ArrayData) -> bool {
        let most = match data.data_type() {
            DataType::Duration(TimeUnit::Second) => i64::MAX / 1_000,
            DataType::Duration(TimeUnit::Millisecond) => i64::MAX,
            _ => return data.child_data().iter().any(overflows),
        };
        let values = data.buffer::<i64>(0).iter().take(data.len()).enumerate();
        values.into_iter().any(|(at, value)| !(-most..=most).contains(value) && data.is_valid(at))
    }
    match holds(field.data_type()) && overflows(&array.to_data()) {
        true => Err(no_text(field.name(), field.data_type())),
        false => Ok(()),
    }
}

/// Returns the field that represents a batch as one struct.
pub(crate) fn row_field(fields: &Fields) -> FieldRef {
    Arc::new(Field::new_struct("row", fields.clone(), false))
}

/// Calls `each` with an encoder of the rows of `array`.
///
/// # Errors
/// Fails if a value cannot be written.
pub(crate) fn with_rows(
    array: &StructArray,
    mut each: impl FnMut(usize, &mut NullableEncoder<'_>),
) -> Result<(), ArrowError> {
    for (field, column) in array.fields().iter().zip(array.columns()) {
        check_durations(field, column.as_ref())?;
    }
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
    /// The column of a value that could not be written: an encoder cannot return an error.
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
            // arrow-json checks only the keys for nulls, and then encodes a null value.
            DataType::Dictionary(_, _) => {
                let dictionary = array.as_any_dictionary();
                let values = dictionary.values();
                let keys = if values.is_empty() { Vec::new() } else { dictionary.normalized_keys() };
                Box::new(Dictionary { keys, values: make_encoder(field, values.as_ref(), options)? })
            }
            // arrow-json rejects unions.
            DataType::Union(_, _) => self.text(field, array)?,
            // arrow-json rejects keys that are not text, and writes duplicate keys twice.
            DataType::Map(entries, _) => {
                const OPTIONS: FormatOptions<'static> = FormatOptions::new().with_display_error(false);
                let map = array.as_map();
                let DataType::Struct(parts) = entries.data_type() else { return Ok(None) };
                let Some(of) = parts.get(1) else { return Ok(None) };
                Box::new(Map {
                    offsets: map.value_offsets(),
                    keys: ArrayFormatter::try_new(map.keys().as_ref(), &OPTIONS)?,
                    values: make_encoder(of, map.values().as_ref(), options)?,
                    of: (field.name().clone(), field.data_type().clone()),
                    failed: self.failed.clone(),
                })
            }
            DataType::Struct(fields) if let Some(names) = distinct(fields) => {
                let columns = fields.iter().zip(array.as_struct().columns()).zip(&names);
                let columns = columns.map(|((field, column), name)| {
                    Ok((key(name.name()), make_encoder(field, column.as_ref(), options)?))
                });
                Box::new(Struct(columns.collect::<Result<_, ArrowError>>()?))
            }
            // arrow-json panics on a time outside the calendar's range.
            kind if kind.is_temporal() => self.text(field, array)?,
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, array.logical_nulls())))
    }
}

/// Returns `fields` with unique names: of fields with the same name, the second becomes `name_2`, the third
/// `name_3`, unless that name is taken. Returns `None` if the names are unique already.
pub(crate) fn distinct(fields: &Fields) -> Option<Fields> {
    let names = distinct_names(&fields.iter().map(|field| field.name().as_str()).collect::<Vec<_>>())?;
    let renamed = fields.iter().zip(names).map(|(field, name)| match *field.name() == name {
        true => field.clone(),
        false => Arc::new(Field::clone(field).with_name(name)),
    });
    Some(renamed.collect())
}

fn distinct_names(names: &[&str]) -> Option<Vec<String>> {
    let mut taken: HashSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    if taken.len() == names.len() {
        return None;
    }
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let renamed = names.iter().map(|known| {
        let count = seen.entry(known).or_default();
        *count += 1;
        if *count == 1 {
            return (*known).to_owned();
        }
        let mut name = format!("{known}_{count}");
        while !taken.insert(name.clone()) {
            *count += 1;
            name = format!("{known}_{count}");
        }
        name
    });
    Some(renamed.collect())
}

/// Returns a name as an object key, including the colon.
fn key(name: &str) -> Vec<u8> {
    let mut key = serde_json::Value::from(name).to_string().into_bytes();
    key.push(b':');
    key
}

/// An encoder for a struct with repeated field names.
struct Struct<'a>(Vec<(Vec<u8>, NullableEncoder<'a>)>);

impl Encoder for Struct<'_> {
    fn encode(&mut self, idx: usize, out: &mut Vec<u8>) {
        for (at, (key, value)) in self.0.iter_mut().enumerate() {
            out.push(if at == 0 { b'{' } else { b',' });
            out.extend_from_slice(key);
            value_or_null(value, idx, out);
        }
        out.push(b'}');
    }
}

fn value_or_null(value: &mut NullableEncoder<'_>, idx: usize, out: &mut Vec<u8>) {
    match value.is_null(idx) {
        true => out.extend_from_slice(b"null"),
        false => value.encode(idx, out),
    }
}

struct Map<'a> {
    offsets: &'a [i32],
    keys: ArrayFormatter<'a>,
    values: NullableEncoder<'a>,
    of: (String, DataType),
    failed: Arc<OnceLock<(String, DataType)>>,
}

impl Encoder for Map<'_> {
    fn encode(&mut self, idx: usize, out: &mut Vec<u8>) {
        let entries = self.offsets[idx] as usize..self.offsets[idx + 1] as usize;
        let mut names = Vec::with_capacity(entries.len());
        for entry in entries.clone() {
            let mut name = String::new();
            if self.keys.value(entry).write(&mut name).is_err() {
                // Keeps only the first failure.
                let _ = self.failed.set(self.of.clone());
            }
            names.push(name);
        }
        if let Some(renamed) = distinct_names(&names.iter().map(String::as_str).collect::<Vec<_>>()) {
            names = renamed;
        }
        out.push(b'{');
        for (at, (entry, name)) in entries.zip(names).enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&key(&name));
            value_or_null(&mut self.values, entry, out);
        }
        out.push(b'}');
    }
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

/// Encodes the text of a value as a JSON string.
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
            // Keeps only the first failure.
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
