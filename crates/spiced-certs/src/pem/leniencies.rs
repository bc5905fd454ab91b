//! How a PEM text that can be read deviates from what programs write.

use tls_core::Secret;
use zeroize::Zeroizing;

use super::blocks::blocks;
use super::der::KeyForm;
use super::text::{BEGIN, DASHES, END, is_invisible, layers, url_decoded, utf16, utf32, with_whole_lines};

/// Returns the ways in which a PEM text that can be read deviates from what programs write.
pub(crate) fn leniencies(pem: &Secret) -> Vec<String> {
    let bytes = pem.expose();
    let utf32 = utf32(bytes);
    let is_utf32 = utf32.is_some();
    let utf16 = utf16(bytes).filter(|_| !is_utf32);
    let is_utf16 = utf16.is_some();
    let latin = !is_utf16 && !is_utf32 && std::str::from_utf8(bytes).is_err();
    let Some(text) = utf32.or(utf16).or_else(|| Some(Zeroizing::new(String::from_utf8_lossy(bytes).into_owned())))
    else {
        return Vec::new();
    };
    let unescaped = url_decoded(&text);
    let is_url = unescaped.is_some();
    let (tidied, nearly) = with_whole_lines(unescaped.as_ref().unwrap_or(&text));
    let text = tidied.as_str();
    let begun = text.contains(BEGIN);
    let one_line = begun && !text.trim().contains('\n');
    let around = |text: &str| {
        text.split(BEGIN).enumerate().any(|(at, part)| {
            let part = if at == 0 {
                part
            } else {
                part.split_once(END).and_then(|(_, rest)| rest.split_once(DASHES)).map_or("", |(_, rest)| rest)
            };
            !part.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}').is_empty()
        })
    };
    let layers = if begun { 0 } else { layers(text.as_bytes()).map_or(1, |(layers, _)| layers) };
    let mut odd: Vec<String> = [
        (is_utf16, "is in UTF-16, as PowerShell writes it"),
        (is_utf32, "is in UTF-32"),
        (is_url, "is URL-encoded"),
        (latin && begun, "has bytes that are not UTF-8 outside its blocks"),
        (text.starts_with('\u{feff}'), "begins with a byte order mark"),
        (
            begun && text.chars().skip(1).any(|c| is_invisible(c) || c == '\u{a0}'),
            "has invisible characters, as web pages have them",
        ),
        (text.contains("\r\n"), "has Windows' line ends"),
        (begun && text.contains("\\n"), "has literal \\n instead of line ends"),
        (one_line && !text.contains("\\n"), "has blanks instead of line ends"),
        (!begun && layers < 2, "is encoded in base64 once more"),
        (layers > 1, "is encoded in base64 more than once"),
        (begun && !text.contains("\\n") && around(text), "has other text around its blocks"),
        (text.contains("-----BEGIN OPENSSH PRIVATE KEY-----"), "is in OpenSSH's form"),
    ]
    .into_iter()
    .filter(|(is, _)| *is)
    .map(|(_, what)| what.to_owned())
    .collect();
    let misnamed = blocks(pem).is_ok_and(|blocks| {
        blocks.iter().any(|block| match (block.label.as_str(), KeyForm::of(&block.der)) {
            ("PRIVATE KEY", form) => form.is_some_and(|form| form != KeyForm::Pkcs8),
            ("RSA PRIVATE KEY" | "EC PRIVATE KEY", form) => form == Some(KeyForm::Pkcs8),
            _ => false,
        })
    });
    if misnamed {
        odd.push("has a label that does not fit its block".to_owned());
    }
    if let Some(line) = nearly.first() {
        odd.push(format!(
            "has a line {line} that is nearly a BEGIN or END line, which has five hyphens on either side"
        ));
    }
    odd
}
