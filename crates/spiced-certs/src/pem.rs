//! PEM (RFC 7468), read tolerantly and meant strictly.
//!
//! Tolerated: a BOM, CRLF, literal `\n`, newlines turned to blanks, text around the blocks, one
//! more layer of base64, blocks that are neither certificate nor key (`EC PARAMETERS`). Never
//! guessed: which of two keys is meant.

use std::path::Path;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer,
    PrivateSec1KeyDer,
};
use tls_core::Secret;
use zeroize::Zeroizing;

use crate::encrypted::{self, Dek};

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
pub(crate) fn certificates(pem: &Secret) -> Result<Vec<CertificateDer<'static>>, PemError> {
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
pub(crate) fn revocation_lists(text: &Secret) -> Result<Vec<CertificateRevocationListDer<'static>>, PemError> {
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

/// A private key, and how it was kept.
#[derive(Debug)]
pub(crate) struct ReadKey {
    /// The key.
    pub(crate) der: PrivateKeyDer<'static>,
    /// Whether it was encrypted.
    pub(crate) encrypted: bool,
}

/// The private key of a PEM text: PKCS#8, PKCS#1 or SEC1. An encrypted one is opened with `passphrase`: PKCS#8 with
/// PBES2 (AES or triple DES; PBKDF2 or scrypt), and what OpenSSL wrote before (`Proc-Type: 4,ENCRYPTED`; AES or triple
/// DES).
///
/// # Errors
/// There is none, there are several, or it is encrypted and not with this passphrase.
pub(crate) fn private_key(pem: &Secret, passphrase: Option<&Secret>) -> Result<ReadKey, PemError> {
    let blocks = blocks(pem)?;
    let keys: Vec<&Block> = blocks.iter().filter(|block| block.label.ends_with("PRIVATE KEY")).collect();
    let key = match keys.as_slice() {
        [] => return Err(PemError::NoKey { instead: Instead::of(&blocks) }),
        [one] => *one,
        several => return Err(PemError::SeveralKeys { count: several.len() }),
    };
    let sealed = key.dek.is_some() || key.label == "ENCRYPTED PRIVATE KEY";
    let der = match (&key.dek, passphrase) {
        _ if !sealed => key.der.clone(),
        (_, None) => return Err(PemError::Encrypted),
        (Some(dek), Some(passphrase)) => dek.open(&key.der, passphrase)?,
        (None, Some(passphrase)) => encrypted::pkcs8(&key.der, passphrase)?,
    };
    let der = der.to_vec();
    let der = match key.label.as_str() {
        "PRIVATE KEY" | "ENCRYPTED PRIVATE KEY" => PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der)),
        "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(der)),
        "EC PRIVATE KEY" => PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(der)),
        "OPENSSH PRIVATE KEY" => return Err(PemError::OpenSsh),
        label => return Err(PemError::UnknownKey { label: label.to_owned() }),
    };
    Ok(ReadKey { der, encrypted: sealed })
}

/// In what a PEM text is unlike what programs write, where it is read all the same.
pub(crate) fn oddities(pem: &Secret) -> Vec<&'static str> {
    let bytes = pem.expose();
    let Ok(text) = std::str::from_utf8(bytes) else { return Vec::new() };
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
    [
        (text.starts_with('\u{feff}'), "begins with a byte order mark"),
        (text.contains("\r\n"), "has Windows' line ends"),
        (begun && text.contains("\\n"), "has \\n in letters for its line ends"),
        (one_line && !text.contains("\\n"), "has blanks for its line ends"),
        (!begun, "is coded in base64 once more"),
        (begun && !text.contains("\\n") && around(text), "has other text around its blocks"),
    ]
    .into_iter()
    .filter_map(|(is, what)| is.then_some(what))
    .collect()
}

/// Why a PEM text does not give what it should. No variant holds any of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum PemError {
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
    /// The private key is encrypted, and there is no passphrase.
    #[error("the private key is encrypted, and nothing gives its passphrase")]
    Encrypted,
    /// The private key is encrypted with another passphrase, or damaged.
    #[error("the private key does not open with the passphrase that is given")]
    WrongPassphrase,
    /// The private key is encrypted in a way that is not supported.
    #[error("the private key is encrypted in a way that is not supported{}", .cipher.as_ref().map(|name| format!(" ({name})")).unwrap_or_default())]
    UnknownCipher {
        /// The cipher, where the file names it.
        cipher: Option<String>,
    },
    /// The private key is of a kind that TLS has no use for.
    #[error("the `{label}` is of a kind that TLS cannot use")]
    UnknownKey {
        /// The block's label.
        label: String,
    },
    /// The private key is in OpenSSH's own form.
    #[error("the private key is in OpenSSH's form")]
    OpenSsh,
}

impl PemError {
    /// A stable code, as the doctor's findings have it.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Empty => "TLS-EMPTY",
            Self::NoPem { looks_like: Some(LooksLike::Path) } => "TLS-PATH-AS-PEM",
            Self::NoPem { looks_like: Some(LooksLike::Html) } => "TLS-HTML",
            Self::NoPem { looks_like: Some(LooksLike::Der) } => "TLS-DER",
            Self::NoPem { looks_like: Some(LooksLike::Pkcs12) } => "TLS-PKCS12",
            Self::NoPem { looks_like: Some(LooksLike::JavaKeystore) } => "TLS-JKS",
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
            Self::WrongPassphrase => "TLS-KEY-PASSPHRASE",
            Self::UnknownCipher { .. } => "TLS-KEY-CIPHER",
            Self::UnknownKey { .. } => "TLS-KEY-UNUSABLE",
            Self::OpenSsh => "TLS-KEY-OPENSSH",
        }
    }

    /// What to change, where `wanted` was looked for in `file`, or in a setting. Commands stand between backticks, fit
    /// to be run.
    pub(crate) fn fix(&self, wanted: Wanted, file: Option<&Path>) -> String {
        let (from, to, between) = match file.map(|file| file.display().to_string()) {
            Some(file) => (quoted(&file), quoted(&format!("{file}.pem")), quoted(&format!("{file}.p12"))),
            None => ("FILE".to_owned(), "FILE.pem".to_owned(), "FILE.p12".to_owned()),
        };
        let unpack = match wanted {
            Wanted::Key => "-nocerts -nodes",
            _ => "-nokeys",
        };
        let convert = match (self, wanted) {
            (Self::NoPem { looks_like: Some(LooksLike::Der) }, Wanted::Key) => {
                format!("`openssl pkey -inform der -in {from} -out {to}`")
            }
            (Self::NoPem { looks_like: Some(LooksLike::Der) }, Wanted::RevocationList) => {
                format!("`openssl crl -inform der -in {from} -out {to}`")
            }
            (Self::NoPem { looks_like: Some(LooksLike::Der) }, _) => {
                format!("`openssl x509 -inform der -in {from} -out {to}`")
            }
            (Self::NoPem { looks_like: Some(LooksLike::Pkcs12) }, _) => {
                format!("`openssl pkcs12 -in {from} {unpack} -out {to}`")
            }
            (Self::NoPem { looks_like: Some(LooksLike::JavaKeystore) }, _) => format!(
                "`keytool -importkeystore -srckeystore {from} -destkeystore {between} -deststoretype PKCS12 && openssl pkcs12 -in \
                 {between} {unpack} -out {to}`"
            ),
            (Self::UnknownCipher { .. }, _) => format!(
                "`openssl pkcs8 -topk8 -v2 aes-256-cbc -provider legacy -provider default -in {from} -out {to}`"
            ),
            (Self::OpenSsh, _) => {
                format!("`cp {from} {to} && chmod 600 {to} && ssh-keygen -p -m PKCS8 -N '' -f {to}`")
            }
            _ => String::new(),
        };
        if !convert.is_empty() {
            return format!("convert it and give the new file: {convert}");
        }
        match self {
            Self::Encrypted => "set key_passphrase beside it, a reference such as ${env:TLS_KEY_PASSPHRASE}".to_owned(),
            Self::WrongPassphrase => {
                format!("compare key_passphrase with what opens it: `openssl pkey -noout -in {from}`")
            }
            Self::NoPem { looks_like: Some(LooksLike::Path) } => {
                "for a path use certificate_file or key_file: the settings that end with _file".to_owned()
            }
            Self::SeveralKeys { .. } => "leave the one key in it that is the certificate's".to_owned(),
            _ => wanted.description().to_owned(),
        }
    }

    /// True where the text may be one that is being written.
    pub(crate) fn may_be_torn(&self) -> bool {
        matches!(
            self,
            Self::Empty
                | Self::Unfinished { .. }
                | Self::NotBase64 { .. }
                | Self::WrongPassphrase
                | Self::NoPem { looks_like: None }
                | Self::NoCertificate { instead: Instead::Other }
                | Self::NoKey { instead: Instead::Other }
        )
    }
}

/// What is looked for in a PEM text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Certificate,
    Key,
    ClientCa,
    RevocationList,
}

impl Wanted {
    /// What it takes.
    fn description(self) -> &'static str {
        match self {
            Self::Certificate => "it takes a PEM file: the server's certificate, then its intermediates",
            Self::Key => "it takes one RSA, ECDSA or Ed25519 key in PEM (PKCS#8, PKCS#1 or SEC1)",
            Self::ClientCa => {
                "it takes a PEM file with the certificate of the CA that signs client certificates, not a client's own"
            }
            Self::RevocationList => "it takes the CA's revocation list (CRL), PEM or DER",
        }
    }
}

/// `text` as one word of a shell's line.
pub(crate) fn quoted(text: &str) -> String {
    shlex::try_quote(text).map_or_else(|_| "FILE".to_owned(), |word| word.into_owned())
}

/// What stands there instead of what was wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instead {
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
pub(crate) enum LooksLike {
    /// DER.
    Der,
    /// PKCS#12, with a certificate and its key.
    Pkcs12,
    /// Java's own keystore.
    JavaKeystore,
    /// Other binary data.
    Binary,
    /// A path.
    Path,
    /// A web page.
    Html,
}

fn hint(looks_like: Option<LooksLike>) -> &'static str {
    match looks_like {
        None => "",
        Some(LooksLike::Der) => ", but DER, the binary form",
        Some(LooksLike::Pkcs12) => ", but a PKCS#12 store (.p12, .pfx)",
        Some(LooksLike::JavaKeystore) => ", but a Java keystore",
        Some(LooksLike::Binary) => ", but binary data",
        Some(LooksLike::Path) => ", but what looks like a path",
        Some(LooksLike::Html) => ", but a web page",
    }
}

struct Block {
    label: String,
    der: Zeroizing<Vec<u8>>,
    /// RFC 1421's `Proc-Type: 4,ENCRYPTED`, and how.
    dek: Option<Dek>,
}

fn blocks(pem: &Secret) -> Result<Vec<Block>, PemError> {
    if pem.is_blank() {
        return Err(PemError::Empty);
    }
    let binary = || PemError::NoPem { looks_like: Some(LooksLike::of_bytes(pem.expose())) };
    let Some(text) = text(pem.expose()) else { return Err(binary()) };
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
        let Some((_, tail)) = tail.split_once(DASHES) else { return Err(PemError::Unfinished { label }) };
        blocks.push(block(label, body)?);
        rest = tail;
    }
    Ok(blocks)
}

fn block(label: String, body: &str) -> Result<Block, PemError> {
    // RFC 1421 headers are words with a colon at the start; base64 has no colon.
    let (value, content) = match body.rfind(':') {
        // What follows the last header's value; headers end with an empty line, or a blank one.
        Some(colon) => {
            let after = body[colon + 1..].trim_start();
            after.split_once(char::is_whitespace).unwrap_or((after, ""))
        }
        None => ("", body),
    };
    // DEK-Info is the last header of OpenSSL's, and of everybody's after it.
    let dek = (body.contains("Proc-Type:") && body.contains("ENCRYPTED")).then(|| Dek::read(value));
    let compact = Zeroizing::new(content.split_whitespace().collect::<String>());
    match LENIENT.decode(compact.as_bytes()) {
        Ok(der) if !der.is_empty() => Ok(Block { label, der: Zeroizing::new(der), dek }),
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

impl LooksLike {
    /// By the first bytes of what is no text.
    fn of_bytes(bytes: &[u8]) -> Self {
        const SEQUENCE: u8 = 0x30;
        // PFX (RFC 7292 §4): the version 3, then a sequence, which in a key or a certificate is never so.
        const PFX: [u8; 4] = [0x02, 0x01, 0x03, SEQUENCE];
        match bytes {
            // JKS and JCEKS.
            [0xfe, 0xed, 0xfe, 0xed, ..] | [0xce, 0xce, 0xce, 0xce, ..] => Self::JavaKeystore,
            [SEQUENCE, length, content @ ..] => {
                let more = usize::from(if *length > 0x80 { length & 0x7f } else { 0 });
                match content.get(more..) {
                    Some(content) if content.starts_with(&PFX) => Self::Pkcs12,
                    _ => Self::Der,
                }
            }
            _ => Self::Binary,
        }
    }
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
            assert!(private_key(&text.into(), None).is_ok(), "{name}");
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
        let binary = |bytes: &[u8]| certificates(&Secret::new(bytes.to_vec())).unwrap_err().code();
        assert_eq!(binary(&[0x30, 0x82, 0xff, 0xfe, 0x30]), "TLS-DER");
        assert_eq!(binary(&[0x30, 0x82, 0x0b, 0xfe, 0x02, 0x01, 0x03, 0x30, 0x82]), "TLS-PKCS12");
        assert_eq!(binary(&[0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2]), "TLS-JKS");
        assert_eq!(binary(&[0xff, 0xfe]), "TLS-NOT-PEM");
        let key = |text: &str| private_key(&text.into(), None).unwrap_err();
        assert_eq!(key(&format!("{KEY}{KEY}")), PemError::SeveralKeys { count: 2 });
        assert_eq!(key(&KEY.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY")), PemError::Encrypted);
        let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00FF\n\nMAEC\n-----END RSA PRIVATE KEY-----";
        assert_eq!(key(legacy), PemError::Encrypted);
    }

    proptest! {
        /// Good PEM with a few letters changed, cut or doubled.
        #[test]
        fn damage_does_no_harm(key in any::<bool>(), cuts in prop::collection::vec((0..120_usize, any::<char>(), 0..3_u8), 1..4)) {
            let mut text: Vec<char> = if key { KEY } else { CERTIFICATE }.chars().collect();
            for (at, letter, what) in cuts {
                let at = at % text.len();
                match what {
                    0 => text[at] = letter,
                    1 => text.truncate(at + 1),
                    _ => text.insert(at, letter),
                }
            }
            let secret = Secret::from(text.into_iter().collect::<String>());
            let _ = certificates(&secret);
            let _ = private_key(&secret, None);
            let _ = revocation_lists(&secret);
            let _ = oddities(&secret);
        }

        #[test]
        fn bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let secret = Secret::new(bytes);
            let _ = (certificates(&secret), private_key(&secret, None).err(), revocation_lists(&secret));
        }

        #[test]
        fn nothing_panics_and_nothing_leaks(text in ".{0,200}") {
            for candidate in [text.clone(), format!("-----BEGIN {text}"), format!("-----BEGIN X-----{text}-----END X-----")] {
                let secret = Secret::from(candidate);
                let _ = certificates(&secret);
                let _ = private_key(&secret, None);
                let _ = private_key(&secret, Some(&Secret::from("passphrase")));
            }
        }
    }
}
