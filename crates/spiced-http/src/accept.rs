//! Selects one of the six response formats from the request's `Accept` (RFC 9110 §12.5.1).

use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use spiced_formats::Format;
use spiced_middleware::Problem;

/// Returns the format that the request prefers. Of equal preferences, the more specific type takes precedence, then the
/// one listed first in [`Format::ALL`], which is also the default.
pub(crate) fn negotiate(headers: &HeaderMap) -> Result<Format, Problem> {
    let ranges: Vec<Range> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(Range::parse)
        .collect();
    if !headers.contains_key(ACCEPT) {
        return Ok(Format::Json);
    }
    let wanted = |media: &str| {
        let matching =
            ranges.iter().enumerate().filter_map(|(at, range)| Some((range.exactness(media)?, at, range.quality)));
        // The most specific range that matches a type applies; of equally specific ones the first.
        matching
            .max_by_key(|(exactness, at, _)| (*exactness, std::cmp::Reverse(*at)))
            .filter(|(.., quality)| *quality > 0)
    };
    let best = Format::ALL
        .into_iter()
        .enumerate()
        .filter_map(|(place, format)| {
            let (exactness, at, quality) = wanted(format.media_type())?;
            Some(((quality, exactness, std::cmp::Reverse((at, place))), format))
        })
        .max_by_key(|(preference, _)| *preference);
    best.map(|(_, format)| format).ok_or_else(|| {
        let known = Format::ALL.map(Format::media_type).join(", ");
        Problem::new(
            StatusCode::NOT_ACCEPTABLE,
            format!("none of the types in `Accept` is supported; supported are {known}"),
        )
    })
}

/// Returns the value of `Content-Type`.
pub(crate) fn content_type(format: Format) -> &'static str {
    match format {
        Format::Csv => "text/csv; charset=utf-8; header=present",
        Format::Table => "text/plain; charset=utf-8",
        other => other.media_type(),
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
        super::negotiate(&headers).ok()
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
