//! Finds the blocks of a PEM text and decodes them.

use base64::Engine;
use tls_core::Secret;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::damage::{self, Around};
use super::der::KeyForm;
use super::encrypted::Dek;
use super::error::{FoundInstead, PemError};
use super::format::Format;
use super::text::{self, BEGIN, DASHES, END, LENIENT, is_invisible, layers, utf16, utf32};

pub(super) struct Block {
    pub(super) label: String,
    pub(super) der: Zeroizing<Vec<u8>>,
    /// The cipher, if RFC 1421's `Proc-Type: 4,ENCRYPTED` is present.
    pub(super) dek: Option<Dek>,
}

pub(super) fn blocks(pem: &Secret) -> Result<Vec<Block>, PemError> {
    if pem.is_blank() {
        return Err(PemError::Empty);
    }
    let bytes = pem.expose();
    // Check for archives first: they may contain PEM, but also more than one file.
    if let archive @ Format::Other(_) = Format::of_bytes(bytes) {
        return Err(PemError::NoPem { format: Some(archive) });
    }
    let decoded = utf32(bytes).or_else(|| utf16(bytes));
    let is_wide = decoded.is_some();
    let is_binary = !is_wide && std::str::from_utf8(bytes).is_err();
    // Only the blocks count; the text around them may be in any encoding.
    let has_block = || bytes.windows(BEGIN.len()).any(|window| window == BEGIN.as_bytes());
    if is_binary && !has_block() {
        return Err(PemError::NoPem { format: Some(Format::of_bytes(bytes)) });
    }
    let text = text::text(decoded.unwrap_or_else(|| Zeroizing::new(String::from_utf8_lossy(bytes).into_owned())));
    if let Some(dump) = Format::of_dump(&text) {
        return Err(PemError::NoPem { format: Some(dump) });
    }
    if damage::is_conflict(&text) {
        return Err(PemError::Conflict);
    }
    if text.contains(BEGIN) {
        // Files encrypted by other programs have similar armor.
        let foreign = |label: &str| label.starts_with("PGP ") || label.starts_with("AGE ");
        return match parse(&text) {
            Ok(blocks) if blocks.iter().any(|block| foreign(&block.label)) => {
                Err(PemError::NoPem { format: Format::of_text(text.trim()) })
            }
            Err(PemError::NotBase64 { label, .. } | PemError::Unfinished { label }) if foreign(&label) => {
                Err(PemError::NoPem { format: Format::of_text(text.trim()) })
            }
            parsed => parsed,
        };
    }
    if let Some(coded) = coded(&text, is_wide) {
        return Err(PemError::NoPem { format: Some(coded) });
    }
    // Remove more layers of base64, as in a Kubernetes secret copied from its manifest.
    if let Some((_, inner)) = layers(text.as_bytes()) {
        return parse(&inner);
    }
    Err(PemError::NoPem { format: Format::of_text(text.trim()) })
}

/// Returns what a text with these blocks contains.
pub(super) fn found_instead(blocks: &[Block]) -> FoundInstead {
    let has = |end: &str| blocks.iter().any(|b| b.label.ends_with(end));
    match () {
        () if has("PRIVATE KEY") => FoundInstead::Key,
        () if has("CERTIFICATE REQUEST") => FoundInstead::Request,
        () if has("ATTRIBUTE CERTIFICATE") => FoundInstead::AttributeCertificate,
        () if has("CERTIFICATE") => FoundInstead::Certificate,
        () if has("PUBLIC KEY") => FoundInstead::PublicKey,
        () if has("X509 CRL") => FoundInstead::RevocationList,
        () if has("PARAMETERS") => FoundInstead::Parameters,
        () if has("PKCS7") || has("CMS") || has("PKCS #7 SIGNED DATA") => FoundInstead::Pkcs7,
        () => FoundInstead::Other,
    }
}

/// Returns the format of base64 data without PEM lines, if it is recognized.
fn coded(text: &str, wide: bool) -> Option<Format> {
    let body: Zeroizing<String> =
        Zeroizing::new(text.lines().filter(|line| !line.trim_start().starts_with("-----END")).collect());
    let compact = Zeroizing::new(body.split_whitespace().collect::<String>());
    let inner = Zeroizing::new(LENIENT.decode(compact.as_bytes()).ok().filter(|inner| inner.len() > 64)?);
    match Format::of_bytes(&inner) {
        Format::Der => Some(Format::Coded { key: KeyForm::of(&inner).is_some(), wide })
            .filter(|_| KeyForm::of(&inner).is_some() || X509Certificate::from_der(&inner).is_ok()),
        Format::Pkcs12 { .. } | Format::Pkcs7Der | Format::JavaKeystore => Some(Format::CodedStore),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Vec<Block>, PemError> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(BEGIN) {
        rest = &rest[start + BEGIN.len()..];
        let Some((label, after)) = rest.split_once(DASHES) else {
            return Err(PemError::Unfinished { label: "?".to_owned() });
        };
        let label = label_of(label);
        // Match the END line by its dashes only, so that one with another label still ends the block.
        let Some((body, tail)) = after.split_once(END) else { return Err(PemError::Unfinished { label }) };
        if body.contains(BEGIN) {
            return Err(PemError::Unfinished { label });
        }
        let Some((_, tail)) = tail.split_once(DASHES) else { return Err(PemError::Unfinished { label }) };
        blocks.push(block(label, body)?);
        rest = tail;
    }
    Ok(blocks)
}

fn block(label: String, body: &str) -> Result<Block, PemError> {
    // RFC 1421 headers are words followed by a colon; base64 contains no colon.
    let (value, content) = match body.rfind(':') {
        // The content after the value of the last header. Headers end with an empty or blank line.
        Some(colon) => {
            let after = body[colon + 1..].trim_start();
            after.split_once(char::is_whitespace).unwrap_or((after, ""))
        }
        None => ("", body),
    };
    // DEK-Info is the last header that OpenSSL writes, and programs that follow it do the same.
    let dek = (body.contains("Proc-Type:") && body.contains("ENCRYPTED")).then(|| Dek::read(value));
    // Web pages put blanks without width into long words.
    let is_blank = |c: char| c.is_whitespace() || is_invisible(c);
    let compact = Zeroizing::new(content.split(is_blank).collect::<String>());
    let around = || Around::of(body);
    match LENIENT.decode(compact.as_bytes()).map(Zeroizing::new) {
        Ok(der) if dek.is_none() && is_der(&label) && damage::is_cut(&der, label.starts_with("TRUSTED")) => {
            Err(PemError::Damaged { label, around: around().filter(|around| around.can_be_taken_away()) })
        }
        Ok(der) if !der.is_empty() => Ok(Block { label, der, dek }),
        _ => Err(PemError::NotBase64 { label, around: around() }),
    }
}

/// Returns true if a block with this label has one value in DER.
fn is_der(label: &str) -> bool {
    label.ends_with("CERTIFICATE")
        || label.ends_with("PRIVATE KEY") && !label.starts_with("OPENSSH")
        || label == "X509 CRL"
}

/// Labels appear in messages, so implausible ones are replaced.
fn label_of(text: &str) -> String {
    let label = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let plausible =
        label.len() <= 40 && label.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == ' ');
    if plausible { label } else { "?".to_owned() }
}
