//! PEM (RFC 7468), read tolerantly and meant strictly.
//!
//! Tolerated: a BOM, CRLF, literal `\n`, newlines turned to blanks, text around the blocks, one
//! more layer of base64, blocks that are neither certificate nor key (`EC PARAMETERS`). Never
//! guessed: which of two keys is meant, or a key that is encrypted.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer,
    PrivateSec1KeyDer,
};
use tls_core::Secret;
use zeroize::Zeroizing;

/// Base64 as people's tools wrap and cut it.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// The certificates of a PEM text, in its order.
///
/// # Errors
/// There is none, or one of them is not base64.
pub fn certificates(pem: &Secret) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let blocks = blocks(pem)?;
    let chain: Vec<_> = blocks
        .iter()
        .filter(|block| matches!(block.label.as_str(), "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE"))
        .map(|block| CertificateDer::from(block.der.to_vec()))
        .collect();
    if chain.is_empty() {
        return Err(PemError::NoCertificate { instead: Instead::of(&blocks) });
    }
    Ok(chain)
}

/// The revocation lists (RFC 5280 §5) of a PEM text, or the one that is DER: CAs publish both.
///
/// # Errors
/// There is none, or one of them is not base64.
pub fn revocation_lists(text: &Secret) -> Result<Vec<CertificateRevocationListDer<'static>>, PemError> {
    const SEQUENCE: u8 = 0x30;
    if text.expose().first() == Some(&SEQUENCE) && std::str::from_utf8(text.expose()).is_err() {
        return Ok(vec![CertificateRevocationListDer::from(text.expose().to_vec())]);
    }
    let blocks = blocks(text)?;
    let lists: Vec<_> = blocks
        .iter()
        .filter(|block| block.label == "X509 CRL")
        .map(|block| CertificateRevocationListDer::from(block.der.to_vec()))
        .collect();
    if lists.is_empty() {
        return Err(PemError::NoRevocationList { instead: Instead::of(&blocks) });
    }
    Ok(lists)
}

/// The private key of a PEM text: PKCS#8, PKCS#1 or SEC1.
///
/// # Errors
/// There is none, there are several, or it is encrypted.
pub fn private_key(pem: &Secret) -> Result<PrivateKeyDer<'static>, PemError> {
    let blocks = blocks(pem)?;
    let mut keys = Vec::new();
    for block in &blocks {
        let der = block.der.to_vec();
        let key = match block.label.as_str() {
            "ENCRYPTED PRIVATE KEY" => return Err(PemError::Encrypted),
            label if label.ends_with("PRIVATE KEY") && block.encrypted => return Err(PemError::Encrypted),
            "PRIVATE KEY" => PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der)),
            "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(der)),
            "EC PRIVATE KEY" => PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(der)),
            "OPENSSH PRIVATE KEY" => return Err(PemError::OpenSsh),
            _ => continue,
        };
        keys.push(key);
    }
    let key = keys.pop().ok_or_else(|| PemError::NoKey { instead: Instead::of(&blocks) })?;
    if !keys.is_empty() {
        return Err(PemError::SeveralKeys { count: keys.len() + 1 });
    }
    Ok(key)
}

/// Why a PEM text does not give what it should. No variant holds any of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// There is nothing but white space.
    #[error("it is empty")]
    Empty,
    /// There is no PEM block.
    #[error("it holds no PEM block{}", hint(*.looks_like))]
    NoPem {
        /// What it looks like instead.
        looks_like: Option<LooksLike>,
    },
    /// A block begins and does not end.
    #[error("the block `{label}` has no end; the text is cut off")]
    Unfinished {
        /// The block's label.
        label: String,
    },
    /// A block's content is not base64.
    #[error("the block `{label}` is not base64; the text is damaged")]
    NotBase64 {
        /// The block's label.
        label: String,
    },
    /// There are blocks, and none is a certificate.
    #[error("it holds no certificate{}", .instead.text())]
    NoCertificate {
        /// What there is.
        instead: Instead,
    },
    /// There are blocks, and none is a private key.
    #[error("it holds no private key{}", .instead.text())]
    NoKey {
        /// What there is.
        instead: Instead,
    },
    /// There are blocks, and none is a revocation list.
    #[error("it holds no revocation list{}", .instead.text())]
    NoRevocationList {
        /// What there is.
        instead: Instead,
    },
    /// There are several private keys.
    #[error("it holds {count} private keys; one is wanted")]
    SeveralKeys {
        /// How many.
        count: usize,
    },
    /// The private key is encrypted.
    #[error(
        "the private key is encrypted, which is not supported yet; decrypt it with: openssl pkey -in KEY.pem -out PLAIN.pem"
    )]
    Encrypted,
    /// The private key is in OpenSSH's own form.
    #[error("the private key is in OpenSSH's form; convert it with: ssh-keygen -p -m PKCS8 -f KEY")]
    OpenSsh,
}

impl PemError {
    /// A stable code, as the doctor's findings have it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "TLS-EMPTY",
            Self::NoPem { looks_like: Some(LooksLike::Path) } => "TLS-PATH-AS-PEM",
            Self::NoPem { looks_like: Some(LooksLike::Html) } => "TLS-HTML",
            Self::NoPem { .. } => "TLS-NOT-PEM",
            Self::Unfinished { .. } => "TLS-PEM-CUT",
            Self::NotBase64 { .. } => "TLS-PEM-DAMAGED",
            Self::NoCertificate { instead: Instead::Key } | Self::NoKey { instead: Instead::Certificate } => {
                "TLS-SWAPPED"
            }
            Self::NoCertificate { .. } => "TLS-NO-CERTIFICATE",
            Self::NoKey { .. } => "TLS-NO-KEY",
            Self::NoRevocationList { .. } => "TLS-NO-CRL",
            Self::SeveralKeys { .. } => "TLS-SEVERAL-KEYS",
            Self::Encrypted => "TLS-KEY-ENCRYPTED",
            Self::OpenSsh => "TLS-KEY-OPENSSH",
        }
    }
}

/// What stands there instead of what was wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instead {
    /// Blocks of other kinds.
    Other,
    /// A certificate, where a key was wanted.
    Certificate,
    /// A private key, where a certificate was wanted.
    Key,
    /// A certificate request.
    Request,
    /// A public key.
    PublicKey,
}

impl Instead {
    fn of(blocks: &[Block]) -> Self {
        let has = |end: &str| blocks.iter().any(|b| b.label.ends_with(end));
        match () {
            () if has("PRIVATE KEY") => Self::Key,
            () if has("CERTIFICATE REQUEST") => Self::Request,
            () if has("CERTIFICATE") => Self::Certificate,
            () if has("PUBLIC KEY") => Self::PublicKey,
            () => Self::Other,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Other => "",
            Self::Certificate => ", but a certificate: are certificate and key swapped?",
            Self::Key => ", but a private key: are certificate and key swapped?",
            Self::Request => ", but a certificate request: the CA's answer to it is wanted",
            Self::PublicKey => ", but a public key",
        }
    }
}

/// What a text without PEM looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LooksLike {
    /// DER or PKCS#12.
    Binary,
    /// A path.
    Path,
    /// A web page.
    Html,
}

fn hint(looks_like: Option<LooksLike>) -> &'static str {
    match looks_like {
        None => "",
        Some(LooksLike::Binary) => {
            ", but binary data: convert DER with `openssl x509 -inform der` (a key with `openssl pkey -inform der`), PKCS#12 with \
             `openssl pkcs12 -nodes`"
        }
        Some(LooksLike::Path) => ", but what looks like a path: for a path use certificate_file or key_file",
        Some(LooksLike::Html) => ", but a web page",
    }
}

struct Block {
    label: String,
    der: Zeroizing<Vec<u8>>,
    /// RFC 1421's `Proc-Type: 4,ENCRYPTED`.
    encrypted: bool,
}

fn blocks(pem: &Secret) -> Result<Vec<Block>, PemError> {
    if pem.is_blank() {
        return Err(PemError::Empty);
    }
    let Some(text) = text(pem.expose()) else { return Err(PemError::NoPem { looks_like: Some(LooksLike::Binary) }) };
    if text.contains(BEGIN) {
        return parse(&text);
    }
    // One more layer of base64, as in a Kubernetes secret copied from its manifest.
    let compact = Zeroizing::new(text.split_whitespace().collect::<String>());
    let inner = LENIENT.decode(compact.as_bytes()).ok().map(Zeroizing::new);
    if let Some(inner) = inner.and_then(|bytes| self::text(&bytes)).filter(|inner| inner.contains(BEGIN)) {
        return parse(&inner);
    }
    Err(PemError::NoPem { looks_like: looks_like(text.trim()) })
}

/// The text of the bytes, with newlines where they belong.
fn text(bytes: &[u8]) -> Option<Zeroizing<String>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // Literal `\r` and `\n`, as environment files and JSON pasted as text have them. A backslash is
    // in no base64, so nothing else can be meant.
    Some(Zeroizing::new(text.replace("\\r", "\n").replace("\\n", "\n")))
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
        // The end is searched by its dashes alone, so that a label that differs is still an end.
        let Some((body, tail)) = after.split_once(END) else { return Err(PemError::Unfinished { label }) };
        if body.contains(BEGIN) {
            return Err(PemError::Unfinished { label });
        }
        blocks.push(block(label, body)?);
        rest = tail;
    }
    Ok(blocks)
}

fn block(label: String, body: &str) -> Result<Block, PemError> {
    // RFC 1421 headers are words with a colon at the start; base64 has no colon.
    let encrypted = body.contains("Proc-Type:") && body.contains("ENCRYPTED");
    let content = match body.rfind(':') {
        // What follows the last header's value; headers end with an empty line, or a blank one.
        Some(colon) => body[colon..]
            .trim_start_matches(|c: char| !c.is_whitespace())
            .trim_start()
            .split_once(char::is_whitespace)
            .map_or("", |(_, rest)| rest),
        None => body,
    };
    if encrypted {
        return Ok(Block { label, der: Zeroizing::default(), encrypted });
    }
    let compact = Zeroizing::new(content.split_whitespace().collect::<String>());
    match LENIENT.decode(compact.as_bytes()) {
        Ok(der) if !der.is_empty() => Ok(Block { label, der: Zeroizing::new(der), encrypted }),
        _ => Err(PemError::NotBase64 { label }),
    }
}

/// A label is shown in messages, so only what can be one is kept.
fn label_of(text: &str) -> String {
    let label = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let plausible =
        label.len() <= 40 && label.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == ' ');
    if plausible { label } else { "?".to_owned() }
}

fn looks_like(text: &str) -> Option<LooksLike> {
    let start = text.get(..200.min(text.len())).unwrap_or(text).to_ascii_lowercase();
    if start.contains("<html") || start.contains("<!doctype") {
        return Some(LooksLike::Html);
    }
    let one_line = !text.contains('\n') && text.len() < 4096;
    (one_line
        && (text.starts_with(['/', '.', '~'])
            || [".pem", ".crt", ".key", ".cer"].iter().any(|end| text.ends_with(end))))
    .then_some(LooksLike::Path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMAECAwQFBgcICQoLDA0ODw==\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMAECAwQFBgcICQoLDA0ODw==\n-----END PRIVATE KEY-----\n";

    fn deformed(pem: &str) -> Vec<(&'static str, String)> {
        vec![
            ("as it is", pem.to_owned()),
            ("literal \\n", pem.replace('\n', "\\n")),
            ("literal \\r\\n", pem.replace('\n', "\\r\\n")),
            ("blanks", pem.replace('\n', " ")),
            ("one line", pem.replace('\n', "")),
            ("CRLF", pem.replace('\n', "\r\n")),
            ("BOM", format!("\u{feff}{pem}")),
            ("text before", format!("subject=CN = x\nissuer: y\n\n{pem}")),
            ("text after", format!("{pem}\nbye\n")),
            ("indented", pem.replace('\n', "\n    ")),
            (
                "EC PARAMETERS",
                format!("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{pem}"),
            ),
            ("base64 once more", LENIENT.encode(pem)),
            (
                "base64 with newlines",
                LENIENT
                    .encode(pem)
                    .as_bytes()
                    .chunks(20)
                    .map(|c| format!("{}\n", std::str::from_utf8(c).unwrap()))
                    .collect(),
            ),
            ("no padding", pem.replace("==", "")),
        ]
    }

    #[test]
    fn deformed_pem_is_read_all_the_same() {
        for (name, text) in deformed(CERTIFICATE) {
            assert_eq!(certificates(&text.into()).map(|c| c[0].len()), Ok(16), "{name}");
        }
        for (name, text) in deformed(KEY) {
            assert!(private_key(&text.into()).is_ok(), "{name}");
        }
    }

    #[test]
    fn what_is_not_there_is_said() {
        let fails = |text: &str| certificates(&text.into()).unwrap_err().to_string();
        assert_eq!(fails(" \n"), "it is empty");
        assert!(fails(KEY).contains("swapped"));
        assert!(fails("/etc/tls/tls.crt").contains("looks like a path"));
        assert!(fails("<!DOCTYPE html><html>").contains("web page"));
        assert!(fails("-----BEGIN CERTIFICATE-----\nMAEC").contains("no end"));
        assert!(fails("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----").contains("not base64"));
        assert!(certificates(&Secret::new(vec![0x30, 0x82, 0xff, 0xfe])).unwrap_err().to_string().contains("binary"));
        let key = |text: &str| private_key(&text.into()).unwrap_err();
        assert_eq!(key(&format!("{KEY}{KEY}")), PemError::SeveralKeys { count: 2 });
        assert_eq!(key(&KEY.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY")), PemError::Encrypted);
        let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00FF\n\nMAEC\n-----END RSA PRIVATE KEY-----";
        assert_eq!(key(legacy), PemError::Encrypted);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_nothing_leaks(text in ".{0,200}") {
            for candidate in [text.clone(), format!("-----BEGIN {text}"), format!("-----BEGIN X-----{text}-----END X-----")] {
                let secret = Secret::from(candidate);
                let _ = certificates(&secret);
                let _ = private_key(&secret);
            }
        }
    }
}
