//! The `parameters` of a JSON request, converted to the single row of values that an engine expects.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, NullArray, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{ArrowError, Field, Schema};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use spiced_engine::{EngineError, Parameters};

/// The maximum number of parameters of a statement, which is that of PostgreSQL's protocol.
const MAX_PARAMETERS: usize = 65_535;

/// Parameter values, by position or by name.
#[derive(Debug)]
pub(crate) enum Given {
    Positional(Vec<Value>),
    Named(Map<String, Value>),
}

/// Implemented by hand to enforce the limit while reading. A JSON value in memory takes a hundred times the size of its
/// text, so checking afterwards would be too late.
impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Given;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`parameters`: an array of values, or an object of values by name")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut given: A) -> Result<Given, A::Error> {
        let mut values = Vec::new();
        while let Some(Scalar(value)) = given.next_element()? {
            room(values.len())?;
            values.push(value);
        }
        Ok(Given::Positional(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut given: A) -> Result<Given, A::Error> {
        let mut values = Map::new();
        while let Some((name, Scalar(value))) = given.next_entry::<String, _>()? {
            room(values.len())?;
            if values.contains_key(&name) {
                return Err(A::Error::custom(format_args!(
                    "parameter ${} is given twice",
                    name.trim_start_matches('$')
                )));
            }
            values.insert(name, value);
        }
        Ok(Given::Named(values))
    }
}

/// Fails if another value would exceed the maximum.
fn room<E: Error>(values: usize) -> Result<(), E> {
    match values < MAX_PARAMETERS {
        true => Ok(()),
        false => Err(E::custom(format_args!("a statement has at most {MAX_PARAMETERS} parameters"))),
    }
}

/// A parameter value. The content of an array or object is not kept, because neither is a valid parameter.
struct Scalar(Value);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Reads the raw text, because serde_json rounds an integer of more than 64 bits to the nearest float.
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = raw.get();
        Ok(Self(match text.as_bytes().first() {
            Some(b'[') => Value::Array(Vec::new()),
            Some(b'{') => Value::Object(Map::new()),
            Some(b'-' | b'0'..=b'9') if !text.contains(['.', 'e', 'E']) && !is_integer(text) => {
                return Err(D::Error::custom(
                    "a parameter is an integer of more than 64 bits; give it as a string, and CAST it: `CAST($1 AS DECIMAL(38, 0))`",
                ));
            }
            _ => serde_json::from_str(text).map_err(D::Error::custom)?,
        }))
    }
}

/// Returns true if the integer fits in 64 bits, signed or unsigned.
fn is_integer(text: &str) -> bool {
    text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok()
}

/// Why values are no parameters. No variant contains a value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParameterError {
    #[error("parameter {name} is {what}; a parameter is null, true, false, a number or a string")]
    NotAValue { name: String, what: &'static str },
    #[error("parameter {name} is given twice")]
    Doubled { name: String },
    #[error(transparent)]
    Columns(#[from] ArrowError),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Given {
    /// Returns the values as columns `$1`, `$2` …, or `$name`.
    pub(crate) fn into_parameters(self) -> Result<Parameters, ParameterError> {
        let values: Vec<(String, Value)> = match self {
            Self::Positional(values) => (1..).zip(values).map(|(at, value)| (format!("${at}"), value)).collect(),
            Self::Named(values) => {
                values.into_iter().map(|(name, value)| (format!("${}", name.trim_start_matches('$')), value)).collect()
            }
        };
        if values.is_empty() {
            return Ok(Parameters::none());
        }
        let mut names = BTreeSet::new();
        let (mut fields, mut columns) = (Vec::with_capacity(values.len()), Vec::with_capacity(values.len()));
        for (name, value) in values {
            let column = column(value).map_err(|what| ParameterError::NotAValue { name: name.clone(), what })?;
            if !names.insert(name.clone()) {
                return Err(ParameterError::Doubled { name });
            }
            fields.push(Field::new(name, column.data_type().clone(), true));
            columns.push(column);
        }
        Ok(Parameters::from_batch(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)?)
    }
}

fn column(value: Value) -> Result<ArrayRef, &'static str> {
    Ok(match value {
        Value::Null => Arc::new(NullArray::new(1)),
        Value::Bool(value) => Arc::new(BooleanArray::from(vec![value])),
        Value::String(value) => Arc::new(StringArray::from(vec![value])),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), ..) => Arc::new(Int64Array::from(vec![value])),
            (None, Some(value), _) => Arc::new(UInt64Array::from(vec![value])),
            (None, None, Some(value)) => Arc::new(Float64Array::from(vec![value])),
            (None, None, None) => return Err("a number that does not fit 64 bits"),
        },
        Value::Array(_) => return Err("an array"),
        Value::Object(_) => return Err("an object"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Returns the columns, or the message of the error.
    fn read(value: Value) -> Result<Option<Vec<String>>, String> {
        let given: Given = serde_json::from_value(value).map_err(|e| e.to_string())?;
        let parameters = given.into_parameters().map_err(|e| e.to_string())?;
        Ok(parameters.batch().map(|batch| {
            let schema = batch.schema();
            schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect()
        }))
    }

    #[test]
    fn values_become_columns() {
        let types = json!([null, true, -1, 9_223_372_036_854_775_808_u64, 1.5, "x"]);
        let expected = ["$1 Null", "$2 Boolean", "$3 Int64", "$4 UInt64", "$5 Float64", "$6 Utf8"];
        assert_eq!(read(types).unwrap().unwrap(), expected);
        assert_eq!(read(json!({ "b": 1, "$a": "x" })).unwrap().unwrap(), ["$a Utf8", "$b Int64"]);
        assert_eq!(read(json!([])).unwrap(), None);
        assert_eq!(read(json!({})).unwrap(), None);
    }

    #[test]
    fn values_beyond_the_bound_are_refused() {
        assert!(read(json!(vec![0; MAX_PARAMETERS])).is_ok());
        let many: Map<String, Value> = (0..=MAX_PARAMETERS).map(|n| (n.to_string(), Value::Null)).collect();
        for given in [json!(vec![0; MAX_PARAMETERS + 1]), Value::Object(many)] {
            assert_eq!(read(given).unwrap_err(), "a statement has at most 65535 parameters");
        }
    }

    #[test]
    fn no_number_is_taken_for_another() {
        let read = |text: &str| {
            let given = serde_json::from_str::<Given>(text).map_err(|e| e.to_string())?;
            given.into_parameters().map(|_| ()).map_err(|e| e.to_string())
        };
        for text in
            ["[18446744073709551616]", "[-9223372036854775809]", "{\"a\": 99999999999999999999999999999999999999}"]
        {
            assert!(read(text).unwrap_err().starts_with("a parameter is an integer of more than 64 bits;"), "{text}");
        }
        for text in ["[18446744073709551615, -9223372036854775808, 1e20, -0, 1.5, null, true, \"x\"]", "{\"a\": 1}"] {
            assert_eq!(read(text), Ok(()), "{text}");
        }
        assert!(read("[1e400]").is_err());
        assert!(read("{\"a\": 1, \"a\": 2}").unwrap_err().starts_with("parameter $a is given twice"));
    }

    #[test]
    fn what_is_no_value_is_named() {
        assert!(read(json!([1, [2]])).unwrap_err().starts_with("parameter $2 is an array;"));
        assert!(read(json!({ "a": {} })).unwrap_err().starts_with("parameter $a is an object;"));
        assert_eq!(read(json!({ "a": 1, "$a": 2 })).unwrap_err(), "parameter $a is given twice");
        assert!(read(json!("x")).unwrap_err().contains("an array of values, or an object"));
    }
}
