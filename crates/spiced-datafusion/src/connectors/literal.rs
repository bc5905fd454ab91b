//! Constants as SQL writes them, whoever reads it: texts in quotes, dates and times of four-digit years.

use datafusion::arrow::temporal_conversions::{date32_to_datetime, timestamp_us_to_datetime};

/// From the year 1 to 9999, which are written in four digits everywhere.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A text, where a backslash in it is one.
pub(super) fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A date, of days since 1970.
pub(super) fn date(days: i32) -> Option<String> {
    let day = Some(days).filter(|days| SECONDS.contains(&(i64::from(*days) * 86_400)))?;
    Some(format!("DATE '{}'", date32_to_datetime(day)?.format("%Y-%m-%d")))
}

/// A time without its zone and quotes, of microseconds since 1970, by a format of chrono's.
pub(super) fn time(microseconds: i64, format: &str) -> Option<String> {
    let at = Some(microseconds).filter(|at| SECONDS.contains(&at.div_euclid(1_000_000)))?;
    Some(timestamp_us_to_datetime(at)?.format(format).to_string())
}
