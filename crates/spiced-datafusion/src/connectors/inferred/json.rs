//! Schema inference for NDJSON files.

use std::collections::HashSet;
use std::fmt;
use std::io::BufRead;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::content::{ContentError, unreadable};
use super::decimal::Fractions;
use crate::sql::complexity::plan::MAX_TYPE_DEPTH;

/// The maximum length of a line.
const MAX_LINE: u64 = 64 << 20;

/// The maximum nesting of values, as in a result.
const MAX_DEPTH: usize = MAX_TYPE_DEPTH;

/// The digits of a 128-bit Arrow decimal.
const DIGITS: usize = 38;

/// What is known of the columns so far.
pub(super) struct Columns {
    records: Option<usize>,
    seen: Vec<(String, Seen)>,
}

impl Columns {
    pub(super) fn new(records: Option<usize>) -> Self {
        Self { records, seen: Vec::new() }
    }

    /// Reads a file, whose end may be missing.
    pub(super) fn read(&mut self, mut bytes: impl BufRead, is_whole: bool) -> Result<(), ContentError> {
        let (mut line, mut number, mut count) = (Vec::new(), 0_u64, 0);
        while self.records.is_none_or(|most| count < most) {
            line.clear();
            let mut part = std::io::Read::take(&mut bytes, MAX_LINE);
            let read = part.read_until(b'\n', &mut line).map_err(|error| unreadable(&error))?;
            if read == 0 {
                break;
            }
            number += 1;
            let says = |why: &str| format!(", line {number}: {why}");
            if read as u64 == MAX_LINE {
                return Err(says("it is longer than 64 MiB; wanted is an object a line").into());
            }
            if !line.ends_with(b"\n") && !is_whole {
                break;
            }
            let text = std::str::from_utf8(&line).map_err(|_| says("it is not UTF-8; save the file as UTF-8"))?;
            if text.starts_with('\u{feff}') {
                return Err(says("it begins with a byte order mark; save the file as UTF-8 without it").into());
            }
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            if text.starts_with('[') {
                return Err(says(
                    "it is an array, and wanted is an object a line (NDJSON); `jq -c '.[]'` makes one of the other",
                )
                .into());
            }
            let Ok(object) = serde_json::from_str::<Object<'_>>(text) else {
                return Err(says("it is no JSON object; wanted is an object a line (NDJSON)").into());
            };
            object.add(&mut self.seen, "", 0).map_err(|why| says(&why.to_string()))?;
            count += 1;
        }
        Ok(())
    }

    pub(super) fn schema(self) -> Schema {
        Schema::new(fields(&self.seen))
    }
}

fn fields(seen: &[(String, Seen)]) -> Fields {
    seen.iter().map(|(name, seen)| Arc::new(Field::new(name, seen.data_type(), true))).collect()
}

/// The type of the values of one name.
#[derive(Debug, Clone, PartialEq)]
enum Seen {
    Null,
    Boolean,
    Number(Number),
    Text,
    List(Box<Seen>),
    Object(Vec<(String, Seen)>),
}

/// The numbers among the values.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Number {
    /// The minimum and maximum of the numbers without a point or an exponent.
    integers: Option<(i128, i128)>,
    floats: bool,
    fractions: Fractions,
}

impl Number {
    fn of(text: &str) -> Result<Self, &'static str> {
        if text.contains(['.', 'e', 'E']) {
            return match text.parse::<f64>() {
                Ok(number) if number.is_finite() => {
                    let fractions = Fractions::of(text);
                    match fractions.data_type(0) {
                        Some(_) => Ok(Self { integers: None, floats: true, fractions }),
                        None => Err(
                            "is a number that neither a float of 64 bits nor a decimal of 38 digits has; write it as text",
                        ),
                    }
                }
                _ => Err("is a number that no float of 64 bits has; write it as text"),
            };
        }
        match text.parse::<i128>() {
            Ok(number) if text.trim_start_matches('-').len() <= DIGITS => {
                Ok(Self { integers: Some((number, number)), floats: false, fractions: Fractions::default() })
            }
            _ => Err("is an integer of more than 38 digits; write it as text"),
        }
    }

    fn and(self, other: Self) -> Result<Self, &'static str> {
        let integers = match (self.integers, other.integers) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (one, other) => one.or(other),
        };
        let fractions = self.fractions.and(other.fractions);
        let both = Self { integers, floats: self.floats || other.floats, fractions };
        if both.floats && both.fractions.data_type(both.integer_digits()).is_none() {
            return Err(
                "has numbers that together no decimal of 38 digits has, and a float would change; write it as text",
            );
        }
        // An integer is never changed, and a 64-bit float represents those up to 2^53.
        let wide = 1_i128 << f64::MANTISSA_DIGITS;
        match integers {
            Some((least, largest)) if both.floats && (least < -wide || largest > wide) => {
                Err("has fractions, and integers beyond 2^53 that a float would change; write one of them as text")
            }
            _ => Ok(both),
        }
    }

    /// Returns the maximum number of digits of an integer.
    fn integer_digits(self) -> usize {
        let digits = |number: i128| number.unsigned_abs().checked_ilog10().map_or(1, |power| power as usize + 1);
        self.integers.map_or(0, |(least, largest)| digits(least).max(digits(largest)))
    }

    fn data_type(self) -> DataType {
        match self.integers {
            _ if self.floats => self.fractions.data_type(self.integer_digits()).unwrap_or(DataType::Float64),
            Some((least, largest)) if i64::try_from(least).is_ok() && i64::try_from(largest).is_ok() => DataType::Int64,
            Some((least, largest)) if least >= 0 && u64::try_from(largest).is_ok() => DataType::UInt64,
            _ => DataType::Decimal128(38, 0),
        }
    }
}

impl Seen {
    fn of(raw: &RawValue, path: &str, depth: usize) -> Result<Self, ContentError> {
        // An empty list has a type for its items, too.
        if depth + 1 >= MAX_DEPTH && raw.get().trim_start().starts_with(['[', '{']) {
            return Err(format!("`{path}` nests deeper than {MAX_DEPTH} levels").into());
        }
        let text = raw.get().trim();
        let torn = || format!("`{path}` is no JSON value");
        Ok(match text.as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b't' | b'f') => Self::Boolean,
            // An unpaired surrogate is not valid text; it is detected when an escape is decoded.
            Some(b'"') if text.contains("\\u") && serde_json::from_str::<String>(text).is_err() => {
                return Err(format!("`{path}` holds half of a surrogate pair, which is no text").into());
            }
            Some(b'"') => Self::Text,
            Some(b'[') => {
                let mut element = Self::Null;
                for item in serde_json::from_str::<Vec<&RawValue>>(text).map_err(|_| torn())? {
                    element = element.and(Self::of(item, path, depth + 1)?, path)?;
                }
                Self::List(Box::new(element))
            }
            Some(b'{') => {
                let mut fields = Vec::new();
                serde_json::from_str::<Object<'_>>(text).map_err(|_| torn())?.add(&mut fields, path, depth + 1)?;
                Self::Object(fields)
            }
            _ => Self::Number(Number::of(text).map_err(|why| format!("`{path}` {why}"))?),
        })
    }

    /// Merges both types, if there is a common one.
    fn and(self, other: Self, path: &str) -> Result<Self, ContentError> {
        Ok(match (self, other) {
            (Self::Null, other) | (other, Self::Null) => other,
            (Self::Number(one), Self::Number(other)) => {
                Self::Number(one.and(other).map_err(|why| format!("`{path}` {why}"))?)
            }
            (Self::List(one), Self::List(other)) => Self::List(Box::new(one.and(*other, path)?)),
            (Self::Object(mut one), Self::Object(other)) => {
                for (at, (name, seen)) in other.into_iter().enumerate() {
                    add(&mut one, at, &name, seen, path)?;
                }
                Self::Object(one)
            }
            (one, other) if one == other => one,
            (one, other) => {
                return Err(format!(
                    "`{path}` is {} here, and {} before; values of one name are of one type",
                    other.word(),
                    one.word()
                )
                .into());
            }
        })
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "true or false",
            Self::Number(_) => "a number",
            Self::Text => "text",
            Self::List(_) => "an array",
            Self::Object(_) => "an object",
        }
    }

    fn data_type(&self) -> DataType {
        match self {
            Self::Null => DataType::Null,
            Self::Boolean => DataType::Boolean,
            Self::Number(number) => number.data_type(),
            Self::Text => DataType::Utf8,
            Self::List(element) => DataType::new_list(element.data_type(), true),
            Self::Object(seen) => DataType::Struct(fields(seen)),
        }
    }
}

/// Adds a value of `name`, which is usually at the same position in each object.
fn add(all: &mut Vec<(String, Seen)>, at: usize, name: &str, seen: Seen, path: &str) -> Result<(), ContentError> {
    let is_it = |known: &(String, Seen)| known.0 == name;
    let at = if all.get(at).is_some_and(is_it) { Some(at) } else { all.iter().position(is_it) };
    match at {
        Some(at) => {
            let known = &mut all[at].1;
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            *known = std::mem::replace(known, Seen::Null).and(seen, &path)?;
        }
        None => all.push((name.to_owned(), seen)),
    }
    Ok(())
}

/// An object as written.
struct Object<'a>(Vec<(String, &'a RawValue)>);

impl Object<'_> {
    fn add(self, all: &mut Vec<(String, Seen)>, path: &str, depth: usize) -> Result<(), ContentError> {
        let mut names = HashSet::with_capacity(self.0.len());
        for (at, (name, raw)) in self.0.iter().enumerate() {
            let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if !names.insert(name) {
                return Err(format!("`{inner}` is there twice in one object").into());
            }
            add(all, at, name, Seen::of(raw, &inner, depth)?, path)?;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Object(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Text;
    use super::super::tests::columns;

    #[tokio::test]
    async fn files_by_what_they_hold() {
        for (files, expected) in [
            (&[r#"{"a":1,"b":"x"}"#, r#"{"a":null,"c":[1,2.5]}"#][..], Ok("a Int64, b Utf8, c List(Float64)")),
            (&[r#"{"a":9007199254740993}"#, r#"{"a":18446744073709551615}"#], Ok("a UInt64")),
            (&[r#"{"a":-1}"#, r#"{"a":18446744073709551615}"#], Ok("a Decimal128(38, 0)")),
            (&[r#"{"a":1}"#, r#"{"a":2.5}"#], Ok("a Float64")),
            (&[r#"{"a":12345678901234567.89}"#, r#"{"a":2}"#], Ok("a Decimal128(38, 2)")),
            (
                &[r#"{"a":1e-400}"#],
                Err(
                    "line 1: `a` is a number that neither a float of 64 bits nor a decimal of 38 digits has; write it as text",
                ),
            ),
            (&[r#"{"a":"\ud800"}"#], Err("line 1: `a` holds half of a surrogate pair, which is no text")),
            (&[r#"{"a":"\ud83d\ude00"}"#], Ok("a Utf8")),
            (
                &[r#"{"a":2.5}"#, r#"{"a":9007199254740993}"#],
                Err(
                    "line 2: `a` has fractions, and integers beyond 2^53 that a float would change; write one of them as text",
                ),
            ),
            (
                &[r#"{"v":1}"#, r#"{"v":"secret"}"#],
                Err("line 2: `v` is text here, and a number before; values of one name are of one type"),
            ),
            (
                &[r#"{"v":[1,2]}"#, r#"{"v":3}"#],
                Err("line 2: `v` is a number here, and an array before; values of one name are of one type"),
            ),
            (
                &[r#"{"o":{"x":1}}"#, "", r#"{"o":{"x":true}}"#],
                Err("line 3: `o.x` is true or false here, and a number before; values of one name are of one type"),
            ),
            (
                &[r#"{"v":[1,"secret"]}"#],
                Err("line 1: `v` is text here, and a number before; values of one name are of one type"),
            ),
            (
                &[r#"[{"secret":1}]"#],
                Err(
                    "line 1: it is an array, and wanted is an object a line (NDJSON); `jq -c '.[]'` makes one of the other",
                ),
            ),
            (&["{", r#""a":1}"#], Err("line 1: it is no JSON object; wanted is an object a line (NDJSON)")),
            (&["7"], Err("line 1: it is no JSON object; wanted is an object a line (NDJSON)")),
            (&[r#"{"a":1,"a":2}"#], Err("line 1: `a` is there twice in one object")),
            (
                &["\u{feff}{\"a\":1}"],
                Err("line 1: it begins with a byte order mark; save the file as UTF-8 without it"),
            ),
        ] {
            let text = files.join("\n");
            let seen = columns(Text::Json { records: None }, &[("x.json", text.as_bytes())]).await;
            let expected = expected.map(str::to_owned).map_err(|why| format!("`x.json`, {why}"));
            assert_eq!(seen, expected, "{text}");
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100), "]".repeat(100));
        assert!(columns(Text::Json { records: None }, &[("x", deep.as_bytes())]).await.unwrap_err().contains("nests"));
        let few = columns(Text::Json { records: Some(1) }, &[("x", b"{\"a\":1}\n{\"a\":\"x\"}\n")]).await;
        assert_eq!(few.unwrap(), "a Int64");
    }
}
