//! Durations and sizes as people write them: `10s`, `5m`, `16MiB`.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A duration: `250ms`, `10s`, `5m`, `1h 30m`; a bare number is seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span(pub(crate) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, Expected::Duration).map(|milliseconds| Self(Duration::from_millis(milliseconds)))
    }
}

/// A size in bytes: `16MiB`, `2GB`; a bare number is bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size(pub(crate) usize);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = parsed(deserializer, Expected::Size)?;
        usize::try_from(bytes).map(Self).map_err(serde::de::Error::custom)
    }
}

/// The unit of a number. The text is parsed here, where it is known whether a message may show it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expected {
    Duration,
    Size,
}

impl Expected {
    pub(crate) const ALL: [Self; 2] = [Self::Duration, Self::Size];

    pub(crate) fn marker(self) -> &'static str {
        match self {
            Self::Duration => "$spiced::Duration",
            Self::Size => "$spiced::Size",
        }
    }
}

/// Parses milliseconds or bytes.
fn parsed<'de, D: Deserializer<'de>>(deserializer: D, wanted: Expected) -> Result<u64, D::Error> {
    struct Number;
    impl Visitor<'_> for Number {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number with a unit")
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
            Ok(number)
        }
    }
    deserializer.deserialize_newtype_struct(wanted.marker(), Number)
}

/// Parses a duration, in milliseconds.
pub(crate) fn duration(text: &str) -> Option<u64> {
    match text.parse::<u64>() {
        Ok(seconds) => seconds.checked_mul(1000),
        Err(_) => u64::try_from(humantime::parse_duration(text).ok()?.as_millis()).ok(),
    }
}

/// Parses a size, in bytes.
pub(crate) fn size(text: &str) -> Option<u64> {
    const UNITS: &[(&str, u64)] = &[
        ("", 1),
        ("b", 1),
        ("kb", 1_000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("k", 1 << 10),
        ("m", 1 << 20),
        ("g", 1 << 30),
        ("ki", 1 << 10),
        ("mi", 1 << 20),
        ("gi", 1 << 30),
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
    ];
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = text[digits..].trim().to_ascii_lowercase();
    let factor = UNITS.iter().find(|(name, _)| *name == unit)?.1;
    text[..digits].parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0", 0), ("1024", 1024), ("16MiB", 16 << 20), ("16 Mi", 16 << 20), ("2GB", 2_000_000_000)]
        {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for bad in ["", "MiB", "-1", "1.5GB", "1 XB", "99999999999999999999"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
}
