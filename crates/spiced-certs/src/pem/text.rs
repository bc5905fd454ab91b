//! From bytes to a text with PEM lines: encodings, layers of base64, and lines that are nearly BEGIN or END.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

/// Base64 without strict padding, because tools wrap and cut it in different ways.
pub(super) const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(super) const BEGIN: &str = "-----BEGIN ";

pub(super) const END: &str = "-----END ";

pub(super) const DASHES: &str = "-----";

/// Returns `text` without quotes around it, as `kubectl -o jsonpath` and copies from JSON leave them.
fn unquoted(text: &[u8]) -> &[u8] {
    match text.trim_ascii() {
        [b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\''] => inner,
        bare => bare,
    }
}

/// The most layers of base64 that are removed.
const MAX_LAYERS: usize = 4;

/// Returns the PEM text under layers of base64, and the number of layers.
pub(super) fn layers(text: &[u8]) -> Option<(usize, Zeroizing<String>)> {
    let mut inner = Zeroizing::new(unquoted(text).to_vec());
    for layer in 1..=MAX_LAYERS {
        inner.retain(|byte| !byte.is_ascii_whitespace());
        inner = Zeroizing::new(LENIENT.decode(inner.as_slice()).ok()?);
        let bytes = inner.as_slice();
        let decoded = utf32(bytes)
            .or_else(|| utf16(bytes))
            .or_else(|| Some(Zeroizing::new(std::str::from_utf8(bytes).ok()?.to_owned())));
        let text = self::text(decoded?);
        if text.contains(BEGIN) {
            return Some((layer, text));
        }
    }
    None
}

/// Decodes UTF-32, detected by a byte order mark or by the zero bytes that it has between Latin letters.
pub(super) fn utf32(bytes: &[u8]) -> Option<Zeroizing<String>> {
    let big = match bytes {
        [0xff, 0xfe, 0, 0, ..] | [1..=0xff, 0, 0, 0, ..] => false,
        [0, 0, 0xfe, 0xff, ..] | [0, 0, 0, 1..=0xff, ..] => true,
        _ => return None,
    };
    let (units, rest) = bytes.as_chunks::<4>();
    let letter =
        |unit: &[u8; 4]| char::from_u32(if big { u32::from_be_bytes(*unit) } else { u32::from_le_bytes(*unit) });
    let text: Option<String> = units.iter().map(letter).collect();
    text.filter(|_| rest.is_empty()).map(Zeroizing::new)
}

/// Decodes percent-encoded PEM text, as proxies forward certificates in headers and forms send them.
pub(super) fn url_decoded(text: &str) -> Option<Zeroizing<String>> {
    let begins = ["BEGIN%20", "BEGIN+", "%2D%2DBEGIN", "%2d%2dBEGIN"];
    if text.contains(BEGIN) || !begins.iter().any(|begin| text.contains(begin)) {
        return None;
    }
    // In a form, `+` is a blank; the `+` of base64 is encoded then.
    let is_form = text.contains("BEGIN+");
    let mut decoded = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = |at: usize| after.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        match (first, hex(0).zip(hex(1))) {
            (b'%', Some((high, low))) => {
                decoded.push(u8::try_from(high * 16 + low).ok()?);
                rest = &after[2..];
                continue;
            }
            (b'+', _) if is_form => decoded.push(b' '),
            (other, _) => decoded.push(*other),
        }
        rest = after;
    }
    let text = String::from_utf8(std::mem::take(&mut *decoded)).ok().map(Zeroizing::new)?;
    Some(text).filter(|text| text.contains(BEGIN))
}

/// Decodes UTF-16, detected by a byte order mark or by the zero bytes that it has between Latin letters.
pub(super) fn utf16(bytes: &[u8]) -> Option<Zeroizing<String>> {
    let zeros =
        |parity: usize| bytes.len() >= 8 && bytes.iter().take(64).skip(parity).step_by(2).all(|byte| *byte == 0);
    let (bytes, big) = match bytes {
        [0xff, 0xfe, rest @ ..] => (rest, false),
        [0xfe, 0xff, rest @ ..] => (rest, true),
        _ if !bytes.len().is_multiple_of(2) || zeros(0) == zeros(1) => return None,
        _ => (bytes, zeros(0)),
    };
    let unit =
        |pair: &[u8]| if big { u16::from_be_bytes([pair[0], pair[1]]) } else { u16::from_le_bytes([pair[0], pair[1]]) };
    let units = Zeroizing::new(bytes.chunks_exact(2).map(unit).collect::<Vec<u16>>());
    String::from_utf16(&units).ok().map(Zeroizing::new)
}

/// Returns the text with real newlines and with complete BEGIN and END lines.
pub(super) fn text(text: Zeroizing<String>) -> Zeroizing<String> {
    let bare = text.strip_prefix('\u{feff}').unwrap_or(&text);
    // Replace literal `\r` and `\n`, which environment files and JSON pasted as text contain. Base64 has no backslash,
    // so this is unambiguous.
    let text = Zeroizing::new(bare.replace("\\r", "\n").replace("\\n", "\n"));
    let text = url_decoded(&text).unwrap_or(text);
    with_whole_lines(&text).0
}

/// Repairs lines that are nearly BEGIN or END lines: too many or too few hyphens, typographic dashes, small letters.
/// Also returns the numbers of those lines.
pub(super) fn with_whole_lines(text: &str) -> (Zeroizing<String>, Vec<usize>) {
    let mut mended = Vec::new();
    let mut out = Zeroizing::new(String::with_capacity(text.len() + 64));
    for (at, line) in text.split_inclusive('\n').enumerate() {
        match whole(line.trim()) {
            Some(whole) => {
                mended.push(at + 1);
                out.push_str(&whole);
                out.push('\n');
            }
            None => out.push_str(line),
        }
    }
    (out, mended)
}

/// Returns the BEGIN or END line that `line` nearly is.
fn whole(line: &str) -> Option<String> {
    const DASH: [char; 7] = ['-', '\u{2010}', '\u{2011}', '\u{2012}', '\u{2013}', '\u{2014}', '\u{2212}'];
    let inner = line.trim_start_matches(DASH);
    let words = inner.trim_end_matches(DASH);
    let has_dashes = inner.len() < line.len() || words.len() < inner.len();
    if line.len() > 100 || !has_dashes {
        return None;
    }
    let label = words.trim().to_ascii_uppercase();
    let (word, rest) = label.split_once(' ')?;
    let rest = rest.trim();
    let known = ["CERTIFICATE", "PRIVATE KEY", "X509 CRL", "PARAMETERS"].iter().any(|end| rest.ends_with(end));
    let whole = format!("{DASHES}{word} {rest}{DASHES}");
    let is_label = rest.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == ' ');
    (["BEGIN", "END"].contains(&word) && known && is_label && whole != line).then_some(whole)
}

pub(super) fn is_invisible(c: char) -> bool {
    ['\u{200b}', '\u{2060}', '\u{feff}', '\u{ad}'].contains(&c)
}
