//! Numbers with a fraction: whether a 64-bit float represents them, and how many digits a decimal needs to do so.

use datafusion::arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType};

/// The numbers with a fraction in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Fractions {
    /// The maximum number of digits before and after the point.
    whole: usize,
    behind: usize,
    /// Whether a float would change one of them.
    is_inexact: bool,
}

impl Fractions {
    /// Reads a number as written: digits with a point or an exponent.
    pub(super) fn of(text: &str) -> Self {
        let Some((digits, exponent)) = significant(text) else { return Self::default() };
        // `exponent` is that of the first digit.
        let whole = usize::try_from(exponent + 1).unwrap_or_default();
        let behind = usize::try_from(digits.len() as i64 - 1 - exponent).unwrap_or_default();
        Self { whole, behind, is_inexact: !is_exact(text, &digits, exponent) }
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self {
            whole: self.whole.max(other.whole),
            behind: self.behind.max(other.behind),
            is_inexact: self.is_inexact || other.is_inexact,
        }
    }

    /// Returns the type that changes none of them, nor an integer of `integer_digits` digits.
    pub(super) fn data_type(self, integer_digits: usize) -> Option<DataType> {
        if !self.is_inexact {
            return Some(DataType::Float64);
        }
        let whole = self.whole.max(integer_digits);
        let behind = i8::try_from(self.behind).ok()?;
        (whole + self.behind <= usize::from(DECIMAL128_MAX_PRECISION))
            .then_some(DataType::Decimal128(DECIMAL128_MAX_PRECISION, behind))
    }
}

/// Returns the digits of a number without zeros around them, and the power of ten of the first digit; `None` for zero.
fn significant(text: &str) -> Option<(Vec<u8>, i64)> {
    let text = text.trim_start_matches(['-', '+']);
    let (number, power) = match text.find(['e', 'E']) {
        // An exponent that does not fit an i32 is beyond every float and decimal.
        Some(at) => {
            let sign = if text[at + 1..].starts_with('-') { -1 } else { 1 };
            (&text[..at], text[at + 1..].parse::<i32>().map_or(sign * i64::from(i32::MAX), i64::from))
        }
        None => (text, 0),
    };
    let point = number.find('.').unwrap_or(number.len());
    let digits: Vec<u8> = number.bytes().filter(u8::is_ascii_digit).collect();
    let first = digits.iter().position(|digit| *digit != b'0')?;
    let last = digits.iter().rposition(|digit| *digit != b'0')?;
    Some((digits[first..=last].to_vec(), point as i64 - 1 - first as i64 + power))
}

/// Whether the nearest float, written with as many digits, is the same number.
fn is_exact(text: &str, digits: &[u8], exponent: i64) -> bool {
    // Every decimal of 15 digits survives the conversion to a float and back, within the range of floats.
    if digits.len() <= 15 && (-290..290).contains(&exponent) {
        return true;
    }
    // No float has more significant digits.
    if digits.len() > 800 {
        return false;
    }
    let Ok(number) = text.parse::<f64>() else { return false };
    let written = format!("{:.*e}", digits.len() - 1, number.abs());
    significant(&written).is_some_and(|same| same == (digits.to_vec(), exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_floats_have() {
        for (text, expected) in [
            ("0.1", Some("Float64")),
            ("-1.5E-3", Some("Float64")),
            ("0.0", Some("Float64")),
            ("0.30000000000000004", Some("Float64")),
            ("1.7976931348623157e308", Some("Float64")),
            ("5e-324", Some("Float64")),
            ("0.10000000000000000555", Some("Float64")),
            ("12345678901234567.89", Some("Decimal128(38, 2)")),
            ("-0.1234567890123456789", Some("Decimal128(38, 19)")),
            ("1.123456789012345678901234567890", Some("Decimal128(38, 29)")),
            ("123456789012345678.9e2", Some("Decimal128(38, 0)")),
            ("1.1234567890123456789012345678901234567890", None),
            ("1e-400", None),
            ("12345678901234567.89e99999999999", None),
        ] {
            let seen = Fractions::of(text).data_type(0).map(|data_type| data_type.to_string());
            assert_eq!(seen.as_deref(), expected, "{text}");
        }
        let both = Fractions::of("0.5").and(Fractions::of("12345678901234567.89"));
        assert_eq!(both.data_type(19), Some(DataType::Decimal128(38, 2)));
        assert_eq!(both.data_type(37), None);
    }
}
