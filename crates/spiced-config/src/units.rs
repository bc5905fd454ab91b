//! Durations and sizes as people write them: `10s`, `5m`, `16MiB`.

use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error};

/// A duration: `250ms`, `10s`, `5m`, `1h 30m`; a bare number is seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span(pub(crate) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bare = text.trim().parse::<u64>().ok().map(Duration::from_secs);
        bare.or_else(|| humantime::parse_duration(text.trim()).ok())
            .map(Self)
            .ok_or_else(|| D::Error::custom("takes a duration, such as 10s, 5m or 250ms"))
    }
}

/// A size in bytes: `16MiB`, `2GB`; a bare number is bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size(pub(crate) usize);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        size(text.trim()).map(Self).ok_or_else(|| D::Error::custom("takes a size, such as 16MiB, 2GB or 1048576"))
    }
}

fn size(text: &str) -> Option<usize> {
    const UNITS: &[(&str, usize)] = &[
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
    text[..digits].parse::<usize>().ok()?.checked_mul(factor)
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
