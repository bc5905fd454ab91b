//! Selects one of the six response formats from the request's `Accept` (RFC 9110 §12.5.1).

use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use spiced_middleware::Problem;

/// A response format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Rows as objects in one array, on one line.
    Json,
    /// The Arrow IPC stream format.
    Arrow,
    /// RFC 4180 with a header line; nested values as JSON text.
    Csv,
    /// A table for people to read.
    Table,
    /// One JSON object per line.
    Ndjson,
    /// The format of the Spice SDKs: schema, rows and their number in one object.
    Spice,
}

/// Every format with its media type; the first is the default.
const FORMATS: [(Format, &str); 6] = [
    (Format::Json, "application/json"),
    (Format::Arrow, "application/vnd.apache.arrow.stream"),
    (Format::Csv, "text/csv"),
    (Format::Table, "text/plain"),
    (Format::Ndjson, "application/x-ndjson"),
    (Format::Spice, "application/vnd.spiceai.sql.v1+json"),
];

impl Format {
    /// Returns the format that the request prefers. Of equal preferences, the more specific type takes precedence, then
    /// the one listed first.
    pub(crate) fn negotiate(headers: &HeaderMap) -> Result<Self, Problem> {
        let ranges: Vec<Range> = headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .flat_map(|v| v.split(','))
            .filter_map(Range::parse)
            .collect();
        if !headers.contains_key(ACCEPT) {
            return Ok(Self::Json);
        }
        let wanted = |media: &str| {
            let matching =
                ranges.iter().enumerate().filter_map(|(at, range)| Some((range.exactness(media)?, at, range.quality)));
            // The most specific range that matches a type applies; of equally specific ones the first.
            matching
                .max_by_key(|(exactness, at, _)| (*exactness, std::cmp::Reverse(*at)))
                .filter(|(.., quality)| *quality > 0)
        };
        let best = FORMATS
            .iter()
            .enumerate()
            .filter_map(|(place, (format, media))| {
                let (exactness, at, quality) = wanted(media)?;
                Some(((quality, exactness, std::cmp::Reverse((at, place))), *format))
            })
            .max_by_key(|(preference, _)| *preference);
        best.map(|(_, format)| format).ok_or_else(|| {
            let known = FORMATS.map(|(_, media)| media).join(", ");
            Problem::new(
                StatusCode::NOT_ACCEPTABLE,
                format!("none of the types in `Accept` is supported; supported are {known}"),
            )
        })
    }

    /// Returns the media type without parameters.
    pub(crate) fn media_type(self) -> &'static str {
        FORMATS.iter().find(|(format, _)| *format == self).expect("every form is in the table").1
    }

    /// Returns the value of `Content-Type`.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Table => "text/plain; charset=utf-8",
            _ => self.media_type(),
        }
    }
}

/// One media range with its quality in thousandths.
#[derive(Debug)]
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    quality: u16,
}

impl<'a> Range<'a> {
    /// Parses a range. Returns `None` if it is invalid; the caller ignores it.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let quality = parts.find_map(|p| p.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("q")));
        let quality = match quality {
            Some((_, value)) => {
                let value: f32 = value.trim().parse().ok()?;
                if !(0.0..=1.0).contains(&value) {
                    return None;
                }
                (value * 1000.0).round() as u16
            }
            None => 1000,
        };
        Some(Self { kind, subtype, quality })
    }

    /// Returns how specifically this range matches `media`, or `None` if it does not match.
    fn exactness(&self, media: &str) -> Option<u8> {
        let (kind, subtype) = media.split_once('/')?;
        match (self.kind, self.subtype) {
            ("*", "*") => Some(0),
            (k, "*") if k.eq_ignore_ascii_case(kind) => Some(1),
            (k, s) if k.eq_ignore_ascii_case(kind) && s.eq_ignore_ascii_case(subtype) => Some(2),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn negotiate(accept: &[&str]) -> Option<Format> {
        let headers = accept.iter().map(|value| (ACCEPT, value.parse().unwrap())).collect();
        Format::negotiate(&headers).ok()
    }

    #[test]
    fn preferences() {
        for (accept, format) in [
            (&[] as &[&str], Some(Format::Json)),
            (&["*/*"], Some(Format::Json)),
            (&["application/*"], Some(Format::Json)),
            (&["text/*"], Some(Format::Csv)),
            (&["text/csv"], Some(Format::Csv)),
            (&["TEXT/CSV; charset=utf-8"], Some(Format::Csv)),
            (&["text/plain"], Some(Format::Table)),
            (&["application/x-ndjson"], Some(Format::Ndjson)),
            (&["application/vnd.apache.arrow.stream"], Some(Format::Arrow)),
            (&["application/vnd.spiceai.sql.v1+json"], Some(Format::Spice)),
            (&["text/csv, application/json"], Some(Format::Csv)),
            (&["application/json, text/csv"], Some(Format::Json)),
            (&["application/json;q=0.5, text/csv;q=0.9"], Some(Format::Csv)),
            (&["application/json;q=0.5", "text/csv ; Q=0.9"], Some(Format::Csv)),
            (&["*/*, text/csv"], Some(Format::Csv)),
            (&["*/*;q=0.1, application/json;q=0"], Some(Format::Arrow)),
            (&["text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8"], Some(Format::Json)),
            (&["text/html"], None),
            (&["*/*;q=0"], None),
            (&["nonsense"], None),
            (&["text/csv;q=2"], None),
            (&["text/csv;q=NaN, text/plain;q=0.1"], Some(Format::Table)),
            (&[""], None),
        ] {
            assert_eq!(negotiate(accept), format, "{accept:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(accept in "[a-z*/;=q0.19, ]{0,40}") {
            let _ = negotiate(&[&accept]);
        }
    }
}
