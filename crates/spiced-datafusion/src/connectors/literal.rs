//! SQL literals that are portable across engines: quoted text, and dates and times with four-digit years.

use datafusion::arrow::temporal_conversions::{date32_to_datetime, timestamp_us_to_datetime};

/// The years 1 to 9999, which all engines write with four digits.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// Returns a text literal, in which a backslash is an ordinary character.
pub(super) fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Returns a date literal, from days since 1970.
pub(super) fn date(days: i32) -> Option<String> {
    let day = Some(days).filter(|days| SECONDS.contains(&(i64::from(*days) * 86_400)))?;
    Some(format!("DATE '{}'", date32_to_datetime(day)?.format("%Y-%m-%d")))
}

/// Returns a time without its zone and quotes, from microseconds since 1970 and a format of chrono.
pub(super) fn time(microseconds: i64, format: &str) -> Option<String> {
    let at = Some(microseconds).filter(|at| SECONDS.contains(&at.div_euclid(1_000_000)))?;
    Some(timestamp_us_to_datetime(at)?.format(format).to_string())
}
