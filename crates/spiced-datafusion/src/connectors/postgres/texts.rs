//! Formats values as text that PostgreSQL reads as its types.

use std::fmt::Write;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryArray, ListArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::error::Result;

/// Formats the values of one column.
pub(super) struct Texts<'a> {
    values: &'a dyn Array,
    form: Form<'a>,
}

enum Form<'a> {
    Plain(ArrayFormatter<'a>),
    /// A date, or a date and a time.
    Day(ArrayFormatter<'a>),
    /// PostgreSQL, "Binary Data Types", "bytea Hex Format".
    Bytes(&'a BinaryArray),
    /// PostgreSQL, "Arrays", "Array Input and Output Syntax".
    List(&'a ListArray, Box<Texts<'a>>),
}

impl<'a> Texts<'a> {
    pub(super) fn of(column: &'a ArrayRef) -> Result<Self> {
        const OPTIONS: FormatOptions<'static> = FormatOptions::new()
            .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.6f%:z"))
            .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.6f"));
        let formatter = || ArrayFormatter::try_new(column.as_ref(), &OPTIONS);
        let form = match column.data_type() {
            DataType::Binary => Form::Bytes(column.as_binary()),
            DataType::List(_) => {
                let list = column.as_list();
                Form::List(list, Box::new(Self::of(list.values())?))
            }
            DataType::Date32 | DataType::Timestamp(..) => Form::Day(formatter()?),
            _ => Form::Plain(formatter()?),
        };
        Ok(Self { values: column.as_ref(), form })
    }

    /// Appends the text of a row. Returns false and appends nothing if the value is NULL.
    pub(super) fn write(&self, row: usize, text: &mut String) -> Result<bool> {
        if self.values.is_null(row) {
            return Ok(false);
        }
        match &self.form {
            Form::Plain(formatter) => formatter.value(row).write(text)?,
            Form::Day(formatter) => {
                let start = text.len();
                formatter.value(row).write(text)?;
                era(text, start);
            }
            Form::Bytes(values) => {
                text.push_str("\\x");
                for byte in values.value(row) {
                    write!(text, "{byte:02x}")?;
                }
            }
            Form::List(values, elements) => {
                let ends = &values.value_offsets()[row..];
                let mut element = String::new();
                text.push('{');
                for at in ends[0]..ends[1] {
                    if at > ends[0] {
                        text.push(',');
                    }
                    element.clear();
                    match elements.write(at as usize, &mut element)? {
                        true => quote(&element, text),
                        false => text.push_str("NULL"),
                    }
                }
                text.push('}');
            }
        }
        Ok(true)
    }
}

/// Rewrites a year for PostgreSQL: without a sign if it has more than four digits, and as BC if it is before year 1
/// ("Date/Time Input").
fn era(text: &mut String, start: usize) {
    let signed = &text[start..];
    let digits = signed.trim_start_matches(['+', '-']);
    let (is_negative, end) = (signed.starts_with('-'), digits.find('-').unwrap_or(digits.len()));
    let Ok(year) = digits[..end].parse::<u32>() else { return };
    if is_negative || year == 0 {
        let before = format!("{:04}{} BC", year + 1, &digits[end..]);
        text.replace_range(start.., &before);
    } else if signed.starts_with('+') {
        text.remove(start);
    }
}

/// Quotes an array element, whatever characters it contains.
fn quote(element: &str, text: &mut String) {
    text.push('"');
    for letter in element.chars() {
        if matches!(letter, '"' | '\\') {
            text.push('\\');
        }
        text.push(letter);
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn years() {
        for (arrow, expected) in [
            ("2024-02-03", "2024-02-03"),
            ("0001-01-01", "0001-01-01"),
            ("0000-12-31", "0001-12-31 BC"),
            ("-0043-03-15 12:00:00", "0044-03-15 12:00:00 BC"),
            ("+12345-01-01", "12345-01-01"),
        ] {
            let mut text = format!("before {arrow}");
            era(&mut text, "before ".len());
            assert_eq!(text, format!("before {expected}"));
        }
    }
}
