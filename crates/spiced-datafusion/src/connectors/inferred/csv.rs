//! Schema inference for CSV files.

use std::cell::Cell;
use std::io::Read;
use std::sync::{Arc, LazyLock};

use ::csv::{ByteRecord, ErrorKind, ReaderBuilder};
use datafusion::arrow::array::timezone::Tz;
use datafusion::arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use datafusion::arrow::datatypes::{DataType, Date32Type, Field, Schema, TimeUnit};

use super::super::csv_marker::{Marker, Syntax};
use super::content::{ContentError, unreadable};
use super::decimal::Fractions;

/// The CSV dialect.
#[derive(Debug, Clone)]
pub(in super::super) struct Separated {
    pub(in super::super) has_header: bool,
    pub(in super::super) delimiter: u8,
    pub(in super::super) quote: u8,
    pub(in super::super) escape: Option<u8>,
    /// How many records of each file are read; all if it is `None`.
    pub(in super::super) records: Option<usize>,
}

impl Default for Separated {
    fn default() -> Self {
        Self { has_header: true, delimiter: b',', quote: b'"', escape: None, records: None }
    }
}

/// The bytes of a file, observed on their way to the reader, which accepts the end of a file as the end of a quoted
/// text.
struct Quotes<'a, R> {
    bytes: R,
    marker: Marker,
    output: Vec<u8>,
    /// Whether the bytes so far end within quotes.
    are_open: &'a Cell<bool>,
}

impl<R: Read> Read for Quotes<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.bytes.read(into)?;
        self.output.clear();
        self.marker.feed(&into[..count], &mut self.output);
        self.are_open.set(self.marker.is_within_quotes());
        Ok(count)
    }
}

/// What is known of the columns so far.
pub(super) struct Columns {
    separated: Separated,
    /// The column names, and the file that they come from.
    named: Option<(Vec<String>, String)>,
    seen: Vec<Seen>,
}

impl Columns {
    pub(super) fn new(separated: Separated) -> Self {
        Self { separated, named: None, seen: Vec::new() }
    }

    /// Reads a file, whose end may be missing.
    pub(super) fn read(&mut self, bytes: impl Read, name: &str, is_whole: bool) -> Result<(), ContentError> {
        let Separated { has_header, delimiter, quote, escape, records } = self.separated;
        let syntax = Syntax { delimiter, quote, escape, terminator: None, comment: None, has_header };
        let quotes = Cell::new(false);
        let bytes =
            Quotes { bytes, marker: Marker::new(syntax, Arc::default()), output: Vec::new(), are_open: &quotes };
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .quote(quote)
            .escape(escape)
            .from_reader(bytes);
        let mut record = ByteRecord::new();
        // A record is known to be complete when another one or the end follows.
        let mut last: Option<(u64, ByteRecord)> = None;
        let mut next = |record: &mut ByteRecord| {
            reader.read_byte_record(record).map_err(|error| match error.kind() {
                ErrorKind::Io(error) => unreadable(error),
                _ => " cannot be read as separated values".to_owned().into(),
            })
        };
        if has_header && next(&mut record)? {
            let header: Vec<String> = record.iter().map(text).collect::<Option<_>>().ok_or_else(|| no_text(1))?;
            self.name(header, name)?;
        }
        let most = records.unwrap_or(usize::MAX);
        let mut count = 0;
        while count < most && next(&mut record)? {
            let line = record.position().map_or(0, ::csv::Position::line);
            if let Some((line, whole)) = last.replace((line, std::mem::take(&mut record))) {
                self.add(line, &whole)?;
                count += 1;
            }
        }
        if is_whole && count < most && quotes.get() {
            let line = last.map_or(1, |(line, _)| line);
            return Err(format!(
                ", line {line}: a quote is opened in this record, and the file ends before it is closed; write a quote within a \
                 value twice"
            ).into());
        }
        match last {
            Some((line, record)) if is_whole && count < most => self.add(line, &record),
            _ => Ok(()),
        }
    }

    /// Takes the column names of a file.
    fn name(&mut self, header: Vec<String>, file: &str) -> Result<(), ContentError> {
        if let Some((at, name)) = header.iter().enumerate().find(|(at, name)| header[..*at].contains(name)) {
            let first = header.iter().position(|other| other == name).unwrap_or_default();
            return Err(format!(
                ", line 1: the columns {} and {} are both called `{name}`; give each a name of its own",
                first + 1,
                at + 1
            )
            .into());
        }
        match &self.named {
            None => {
                self.seen = vec![Seen::default(); header.len()];
                self.named = Some((header, file.to_owned()));
                Ok(())
            }
            Some((known, _)) if *known == header => Ok(()),
            Some((known, first)) => Err(format!(
                ", line 1: its columns are ({}), and those of `{first}` are ({}); files of one data set have the same, in one \
                 order",
                header.join(", "),
                known.join(", ")
            ).into()),
        }
    }

    fn add(&mut self, line: u64, record: &ByteRecord) -> Result<(), ContentError> {
        if self.seen.is_empty() && self.named.is_none() {
            self.seen = vec![Seen::default(); record.len()];
        }
        let wanted = self.seen.len();
        if record.len() != wanted {
            return Err(format!(
                ", line {line}: it has {} fields, and there are {wanted} columns; a delimiter may be missing, or stand \
                 outside of quotes",
                record.len()
            )
            .into());
        }
        for (seen, field) in self.seen.iter_mut().zip(record) {
            seen.add(std::str::from_utf8(field).map_err(|_| no_text(line))?);
        }
        Ok(())
    }

    pub(super) fn schema(self) -> Schema {
        let names = match self.named {
            Some((names, _)) => names,
            // The names that DataFusion uses.
            None => (1..=self.seen.len()).map(|at| format!("column_{at}")).collect(),
        };
        let field = |(name, seen): (String, Seen)| Arc::new(Field::new(name, seen.data_type(), true));
        Schema::new(names.into_iter().zip(self.seen).map(field).collect::<Vec<_>>())
    }
}

fn text(field: &[u8]) -> Option<String> {
    std::str::from_utf8(field).ok().map(str::to_owned)
}

fn no_text(line: u64) -> String {
    format!(", line {line}: it is not UTF-8; save the file as UTF-8")
}

/// The kinds of values in a column.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    booleans: bool,
    integers: bool,
    /// Integers that a float cannot represent.
    wide: bool,
    floats: bool,
    fractions: Fractions,
    dates: bool,
    times: bool,
    /// Times with a zone, and times without one.
    zoned: bool,
    naive: bool,
    /// The maximum number of digits in a fraction of a second.
    fraction: usize,
    /// Times that do not fit a count of nanoseconds.
    far: bool,
    texts: bool,
}

impl Seen {
    fn add(&mut self, value: &str) {
        // A column with text remains text.
        if self.texts || value.is_empty() {
            return;
        }
        let digits = value.strip_prefix('-').unwrap_or(value);
        if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
            // Leading zeros are significant, as in an article number or a postcode.
            let is_padded = digits.len() > 1 && digits.starts_with('0');
            return match value.parse::<i64>() {
                Ok(number) if !is_padded => {
                    self.integers = true;
                    self.wide |= number.unsigned_abs() > 1 << f64::MANTISSA_DIGITS;
                }
                _ => self.texts = true,
            };
        }
        if is_float(digits) {
            self.floats = true;
            self.fractions = self.fractions.and(Fractions::of(digits));
        } else if value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false") {
            self.booleans = true;
        } else if is_date(value) && Date32Type::parse(value).is_some() {
            self.dates = true;
        } else if !self.time(value) {
            self.texts = true;
        }
    }

    /// Takes `2024-01-31 12:00:00`, with or without a fraction and a zone; returns whether the value is a time.
    fn time(&mut self, value: &str) -> bool {
        let bytes = value.as_bytes();
        let is_shaped = bytes.len() >= 19
            && value.is_ascii()
            && is_date(&value[..10])
            && matches!(bytes[10], b'T' | b' ')
            && bytes[11..19].iter().enumerate().all(|(at, b)| match at {
                2 | 5 => *b == b':',
                _ => b.is_ascii_digit(),
            });
        if !is_shaped {
            return false;
        }
        let rest = &value[19..];
        let fraction = rest.strip_prefix('.').unwrap_or_default();
        let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
        let (digits, zone) = match rest.starts_with('.') {
            true => (fraction.len() - zone.len(), zone),
            false => (0, rest),
        };
        if digits > 9 || (rest.starts_with('.') && digits == 0) {
            return false;
        }
        let Ok(time) = string_to_datetime(&*UTC, value) else { return false };
        self.times = true;
        self.zoned |= !zone.is_empty();
        self.naive |= zone.is_empty();
        self.fraction = self.fraction.max(digits);
        self.far |= time.timestamp_nanos_opt().is_none();
        true
    }

    fn data_type(self) -> DataType {
        let Self { booleans, integers, wide, floats, fractions, dates, times, zoned, naive, fraction, far, texts } =
            self;
        match (booleans, integers, floats, dates, times) {
            // Times with and without a zone in one column have no common type.
            _ if texts || (zoned && naive) => DataType::Utf8,
            (true, false, false, false, false) => DataType::Boolean,
            (false, true, false, false, false) => DataType::Int64,
            (false, integers, true, false, false) if !(integers && wide) => {
                fractions.data_type(if integers { INTEGER_DIGITS } else { 0 }).unwrap_or(DataType::Utf8)
            }
            (false, false, false, true, false) => DataType::Date32,
            (false, false, false, false, true) if !(far && fraction > 6) => {
                let unit = match fraction {
                    0 => TimeUnit::Second,
                    1..=3 => TimeUnit::Millisecond,
                    4..=6 => TimeUnit::Microsecond,
                    _ => TimeUnit::Nanosecond,
                };
                DataType::Timestamp(unit, zoned.then(|| "UTC".into()))
            }
            _ => DataType::Utf8,
        }
    }
}

/// The digits of an integer that a 64-bit float can represent, which a decimal must therefore hold as well.
const INTEGER_DIGITS: usize = 16;

static UTC: LazyLock<Tz> = LazyLock::new(|| "+00:00".parse().expect("it is a zone"));

/// Whether the value is a number with a point or an exponent, without a sign, that is unchanged when it is read and
/// written.
fn is_float(value: &str) -> bool {
    let (number, exponent) = match value.find(['e', 'E']) {
        Some(at) => (&value[..at], Some(&value[at + 1..])),
        None => (value, None),
    };
    let is_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if exponent.is_some_and(|exponent| {
        let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        digits.is_empty() || !is_digits(digits)
    }) {
        return false;
    }
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None if exponent.is_some() => (number, None),
        None => return false,
    };
    let is_padded = whole.len() > 1 && whole.starts_with('0');
    let count = whole.len() + fraction.map_or(0, str::len);
    count > 0
        && !is_padded
        && is_digits(whole)
        && fraction.is_none_or(is_digits)
        && value.parse::<f64>().is_ok_and(f64::is_finite)
}

fn is_date(value: &str) -> bool {
    value.len() == 10
        && value.bytes().enumerate().all(|(at, b)| if at == 4 || at == 7 { b == b'-' } else { b.is_ascii_digit() })
}

#[cfg(test)]
mod tests {
    use super::super::Text;
    use super::super::tests::columns;
    use super::*;

    #[test]
    fn types_by_values() {
        for (values, expected) in [
            (&["1", "-2", ""][..], "Int64"),
            (&["1", "2.5"], "Float64"),
            (&[".5", "1.", "1e5", "-1.5E-3"], "Float64"),
            (&["9007199254740993", "2.5"], "Utf8"),
            (&["0.1", "12345678901234567.89", "3"], "Decimal128(38, 2)"),
            (&["-0.1234567890123456789"], "Decimal128(38, 19)"),
            (&["1.12345678901234567890123456789012345678901"], "Utf8"),
            (&["1e-400"], "Utf8"),
            (&["9223372036854775807"], "Int64"),
            (&["9223372036854775808"], "Utf8"),
            (&["007"], "Utf8"),
            (&["0", "0.5"], "Float64"),
            (&["00.5"], "Utf8"),
            (&["+1"], "Utf8"),
            (&["1e999"], "Utf8"),
            (&["true", "FALSE"], "Boolean"),
            (&["true", "1"], "Utf8"),
            (&["2024-02-29"], "Date32"),
            (&["2024-02-30"], "Utf8"),
            (&["2024-02-29", "2024-02-29 10:00:00"], "Utf8"),
            (&["2024-02-29 10:00:00", "2024-02-29T10:00:00.123"], "Timestamp(ms)"),
            (&["2024-02-29 10:00:00.123456"], "Timestamp(µs)"),
            (&["2024-02-29 10:00:00.123456789"], "Timestamp(ns)"),
            (&["2024-02-29 10:00:00.1234567890"], "Utf8"),
            (&["9999-12-31 00:00:00"], "Timestamp(s)"),
            (&["9999-12-31 00:00:00.000000001"], "Utf8"),
            (&["2024-02-29T10:00:00Z", "2024-02-29T10:00:00+02:00"], "Timestamp(s, \"UTC\")"),
            (&["2024-02-29T10:00:00", "2024-02-29T10:00:00Z"], "Utf8"),
            (&["2024-02-29T10:00:00Z", "2024-02-29T10:00:00"], "Utf8"),
            (&["2024-02-29 25:00:00"], "Utf8"),
            (&["", ""], "Utf8"),
            (&["1", "x"], "Utf8"),
            (&["NaN"], "Utf8"),
        ] {
            let mut seen = Seen::default();
            values.iter().for_each(|value| seen.add(value));
            assert_eq!(seen.data_type().to_string(), expected, "{values:?}");
        }
    }

    #[tokio::test]
    async fn files_by_what_they_hold() {
        let long = format!("id,t\n{}", "1,\"line\nsecond, line\"\n".repeat(5_000));
        let late = format!("id\n{}x\n", "1\n".repeat(5_000));
        for (files, expected) in [
            (&[("a", "id,name\n1,a\n")][..], Ok("id Int64, name Utf8")),
            (&[("a", &long)], Ok("id Int64, t Utf8")),
            (&[("a", &late)], Ok("id Utf8")),
            (&[("a", "\u{feff}id\n1\n")], Ok("id Int64")),
            (&[("a", "id\n1\n"), ("b", "id\n2.5\n")], Ok("id Float64")),
            (
                &[("a", "id,name,name\n1,a,b\n")],
                Err("`a`, line 1: the columns 2 and 3 are both called `name`; give each a name of its own"),
            ),
            (
                &[("a", "x,y\n1,2\n"), ("b", "y,x\n1,2\n")],
                Err(
                    "`b`, line 1: its columns are (y, x), and those of `a` are (x, y); files of one data set have the same, \
                     in one order",
                ),
            ),
            (
                &[("a", "x,y\n1,2\n\"secret\n1\",2,3\n")],
                Err(
                    "`a`, line 3: it has 3 fields, and there are 2 columns; a delimiter may be missing, or stand outside of \
                     quotes",
                ),
            ),
        ] {
            let files: Vec<(&str, &[u8])> = files.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
            let seen = columns(Text::Separated(Separated::default()), &files).await;
            assert_eq!(seen, expected.map(str::to_owned).map_err(str::to_owned));
        }
        let seen = columns(Text::Separated(Separated::default()), &[("a", b"x\nok\n\xff\n")]).await;
        assert_eq!(seen.unwrap_err(), "`a`, line 3: it is not UTF-8; save the file as UTF-8");
        for (file, line) in [("a,b\n1,\"abc\n2,d\n", 2), ("a,\"b\n1,2\n", 1), ("a,b\n1,2\n3,\"x\"\"", 3)] {
            let seen = columns(Text::Separated(Separated::default()), &[("a", file.as_bytes())]).await;
            let expected =
                format!("`a`, line {line}: a quote is opened in this record, and the file ends before it is closed;");
            assert!(seen.as_ref().is_err_and(|why| why.starts_with(&expected)), "{file:?}: {seen:?}");
        }
        let bare = Separated { has_header: false, ..Separated::default() };
        assert_eq!(columns(Text::Separated(bare), &[("a", b"1,x\n")]).await.unwrap(), "column_1 Int64, column_2 Utf8");
        let few = Separated { records: Some(1), ..Separated::default() };
        assert_eq!(columns(Text::Separated(few), &[("a", b"x\n1\nword\n")]).await.unwrap(), "x Int64");
    }
}
