//! Reads PEM (RFC 7468), leniently in form and strictly in content.
//!
//! Tolerated: a BOM, UTF-16, CRLF, literal `\n`, newlines replaced by blanks, text in any encoding around the blocks,
//! more layers of base64, lines that are nearly BEGIN or END, labels that do not match their block, and blocks that are
//! neither certificates nor keys (`EC PARAMETERS`). Never guessed: which of two keys is meant.

pub(crate) mod damage;
pub(crate) mod der;
pub(crate) mod encrypted;
pub(crate) mod format;
pub(crate) mod openssh;

use std::path::Path;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use tls_core::Secret;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use self::damage::Around;
use self::der::KeyForm;
use self::encrypted::Dek;
use self::format::{Format, no_key_in_pkcs7};

/// Base64 without strict padding, because tools wrap and cut it in different ways.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// Returns the certificates of a PEM text, in order.
///
/// # Errors
/// Fails if there is no certificate, or a block is not base64.
pub(crate) fn certificates(pem: &Secret) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let blocks = blocks(pem)?;
    let chain: Vec<_> = blocks
        .iter()
        .filter(|block| matches!(block.label.as_str(), "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE"))
        .map(|block| CertificateDer::from(block.der.to_vec()))
        .collect();
    if chain.is_empty() {
        return Err(PemError::NoCertificate { instead: FoundInstead::of(&blocks) });
    }
    Ok(chain)
}

/// Returns the certificates of a PEM text, or the single certificate of a DER file, to describe material that cannot be
/// loaded as it is.
///
/// # Errors
/// Fails if there is no certificate.
pub(crate) fn certificates_or_der(text: &Secret) -> Result<Vec<CertificateDer<'static>>, PemError> {
    match certificates(text) {
        Err(PemError::NoPem { format: Some(Format::Der) }) if X509Certificate::from_der(text.expose()).is_ok() => {
            Ok(vec![CertificateDer::from(text.expose().to_vec())])
        }
        read => read,
    }
}

/// Returns true if `text` is PEM, or another form that certificates and keys are stored in, even one that cannot be
/// read here.
pub(crate) fn is_material(text: &Secret) -> bool {
    match blocks(text) {
        Ok(_) => true,
        Err(PemError::Empty | PemError::NoPem { format: None | Some(Format::Path { .. }) }) => false,
        Err(_) => true,
    }
}

/// Returns the revocation lists (RFC 5280 §5) of a PEM text, or the single list of a DER file. CAs publish both forms.
///
/// # Errors
/// Fails if there is no revocation list, or a block is not base64.
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
        return Err(PemError::NoRevocationList { instead: FoundInstead::of(&blocks) });
    }
    Ok(lists)
}

/// A private key, and whether it was stored encrypted.
#[derive(Debug)]
pub(crate) struct ReadKey {
    /// The key.
    pub(crate) der: PrivateKeyDer<'static>,
    /// Whether it was encrypted.
    pub(crate) encrypted: bool,
}

/// Returns the private key of a PEM text: PKCS#8, PKCS#1, SEC1 or OpenSSH's form. An encrypted key is decrypted with
/// `passphrase`: PKCS#8 with PBES2 (AES or triple DES; PBKDF2 or scrypt), or OpenSSL's legacy format (`Proc-Type:
/// 4,ENCRYPTED`; AES or triple DES).
///
/// # Errors
/// Fails if there is no key or more than one, or if an encrypted key cannot be decrypted with this passphrase.
pub(crate) fn private_key(pem: &Secret, passphrase: Option<&Secret>) -> Result<ReadKey, PemError> {
    let blocks = blocks(pem)?;
    let keys: Vec<&Block> = blocks.iter().filter(|block| block.label.ends_with("PRIVATE KEY")).collect();
    let key = match keys.as_slice() {
        [] => return Err(PemError::NoKey { instead: FoundInstead::of(&blocks) }),
        [one] => *one,
        several => return Err(PemError::SeveralKeys { count: several.len() }),
    };
    if key.label == "OPENSSH PRIVATE KEY" {
        let (der, encrypted) = openssh::private_key(&key.der, passphrase)?;
        return Ok(ReadKey { der, encrypted });
    }
    // Trust the structure over the label: programs write one form under the label of another.
    let sealed = key.dek.is_some()
        || KeyForm::of(&key.der) == Some(KeyForm::EncryptedPkcs8)
        || key.label == "ENCRYPTED PRIVATE KEY" && KeyForm::of(&key.der).is_none();
    let der = match (&key.dek, passphrase) {
        _ if !sealed => key.der.clone(),
        (_, None) => return Err(PemError::Encrypted),
        (Some(dek), Some(passphrase)) => dek.open(&key.der, passphrase)?,
        (None, Some(passphrase)) => encrypted::pkcs8(&key.der, passphrase)?,
    };
    let form = KeyForm::of(&der).or(match key.label.as_str() {
        "PRIVATE KEY" | "ENCRYPTED PRIVATE KEY" => Some(KeyForm::Pkcs8),
        "RSA PRIVATE KEY" => Some(KeyForm::Pkcs1),
        "EC PRIVATE KEY" => Some(KeyForm::Sec1),
        _ => None,
    });
    let der = form.and_then(|form| form.key(der.to_vec()));
    let kind = || match form {
        Some(KeyForm::Dsa) => "DSA".to_owned(),
        _ => key.label.trim_end_matches("PRIVATE KEY").trim().to_owned(),
    };
    match der {
        Some(der) => Ok(ReadKey { der, encrypted: sealed }),
        None => Err(PemError::UnknownKey { kind: kind() }),
    }
}

/// Returns the number of private keys in a text; 0 if it cannot be read.
pub(crate) fn count_keys(pem: &Secret) -> usize {
    blocks(pem).map_or(0, |blocks| blocks.iter().filter(|block| block.label.ends_with("PRIVATE KEY")).count())
}

/// Returns true if no two of the `count` certificates share a line, so that line-based tools can process the text.
pub(crate) fn is_plain(pem: &Secret, count: usize) -> bool {
    let text = pem.expose_text().unwrap_or_default();
    let lines = text.lines().filter(|line| *line == "-----BEGIN CERTIFICATE-----").count();
    lines == count && text.matches(BEGIN).count() == text.lines().filter(|line| line.starts_with(BEGIN)).count()
}

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

/// Why a PEM text cannot be used. No variant contains any of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum PemError {
    /// The text is only white space.
    #[error("it is empty")]
    Empty,
    /// There is no PEM block.
    #[error("it holds no PEM block{}", .format.as_ref().map_or("", Format::instead))]
    NoPem {
        /// The detected format, if it is known.
        format: Option<Format>,
    },
    /// A block has no END line.
    #[error("the block `{label}` has no end; the text is cut off")]
    Unfinished {
        /// The block's label.
        label: String,
    },
    /// A block's content is not base64.
    #[error("the block `{label}` is not base64; {}", .around.map_or("the text is damaged", Around::text))]
    NotBase64 {
        /// The block's label.
        label: String,
        /// The text around its lines, if that is recognized.
        around: Option<Around>,
    },
    /// A block has another length than its content states.
    #[error("the block `{label}` is damaged: {}", .around.map_or("lines or letters of it are lost or doubled", Around::text))]
    Damaged {
        /// The block's label.
        label: String,
        /// The text around its lines, if that is recognized.
        around: Option<Around>,
    },
    /// The text has git's conflict markers.
    #[error("it has git's conflict markers: a merge left two versions in it")]
    Conflict,
    /// There are blocks, but no certificate.
    #[error("it holds no certificate{}", .instead.text())]
    NoCertificate {
        /// What was found instead.
        instead: FoundInstead,
    },
    /// There are blocks, but no private key.
    #[error("it holds no private key{}", .instead.text())]
    NoKey {
        /// What was found instead.
        instead: FoundInstead,
    },
    /// There are blocks, but no revocation list.
    #[error("it holds no revocation list{}", .instead.text())]
    NoRevocationList {
        /// What was found instead.
        instead: FoundInstead,
    },
    /// There are several private keys.
    #[error("it holds {count} private keys; exactly one is required")]
    SeveralKeys {
        /// The number of keys.
        count: usize,
    },
    /// The private key is encrypted, and no passphrase is given.
    #[error("the private key is encrypted, and no passphrase is set")]
    Encrypted,
    /// The private key is encrypted with another passphrase, or damaged.
    #[error("the passphrase that is set does not decrypt the private key")]
    WrongPassphrase,
    /// The private key is encrypted in a way that is not supported.
    #[error("the private key is encrypted in a way that is not supported{}", .cipher.as_ref().map(|name| format!(" ({name})")).unwrap_or_default())]
    UnknownCipher {
        /// The cipher, if the file names it.
        cipher: Option<String>,
    },
    /// The private key is of a kind that is not supported.
    #[error("the private key is {kind}, which is not supported here (rustls)")]
    UnknownKey {
        /// The kind.
        kind: String,
    },
}

impl PemError {
    /// Returns the stable code of the finding.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Empty => "TLS-EMPTY",
            Self::NoPem { format: Some(format) } => format.code(),
            Self::NoPem { format: None } => "TLS-NOT-PEM",
            Self::Unfinished { .. } => "TLS-PEM-CUT",
            Self::NotBase64 { .. } | Self::Damaged { .. } | Self::Conflict => "TLS-PEM-DAMAGED",
            Self::NoCertificate { instead: FoundInstead::Key } | Self::NoKey { instead: FoundInstead::Certificate } => {
                "TLS-SWAPPED"
            }
            Self::NoCertificate { instead: FoundInstead::Pkcs7 } | Self::NoKey { instead: FoundInstead::Pkcs7 } => {
                "TLS-PKCS7"
            }
            Self::NoCertificate { .. } => "TLS-NO-CERTIFICATE",
            Self::NoKey { .. } => "TLS-NO-KEY",
            Self::NoRevocationList { .. } => "TLS-NO-CRL",
            Self::SeveralKeys { .. } => "TLS-SEVERAL-KEYS",
            Self::Encrypted => "TLS-KEY-ENCRYPTED",
            Self::WrongPassphrase => "TLS-KEY-PASSPHRASE",
            Self::UnknownCipher { .. } => "TLS-KEY-CIPHER",
            Self::UnknownKey { .. } => "TLS-KEY-UNUSABLE",
        }
    }

    /// Returns the fix, given that `wanted` was expected in `file`, or in a setting. Commands are in backticks and can
    /// be run as they are.
    pub(crate) fn fix(&self, wanted: Expected, file: Option<&Path>) -> String {
        let (from, to) = match file.map(|file| file.display().to_string()) {
            Some(file) => (quoted(&file), quoted(&format!("{file}.pem"))),
            None => ("FILE".to_owned(), "FILE.pem".to_owned()),
        };
        match self {
            Self::Encrypted => "also set key_passphrase, to a reference such as ${env:TLS_KEY_PASSPHRASE}".to_owned(),
            Self::WrongPassphrase => {
                format!("compare key_passphrase with the passphrase that decrypts it: `openssl pkey -noout -in {from}`")
            }
            Self::NoPem { format: Some(format) } => {
                format.fix(wanted, file).unwrap_or_else(|| wanted.description().to_owned())
            }
            Self::NoKey { instead: FoundInstead::Pkcs7 } => no_key_in_pkcs7(),
            Self::NoCertificate { instead: FoundInstead::Pkcs7 } => {
                format!("convert it and use the new file: `openssl pkcs7 -print_certs -in {from} -out {to}`")
            }
            Self::UnknownCipher { .. } => format!(
                "convert it and use the new file: `openssl pkcs8 -topk8 -v2 aes-256-cbc -provider legacy -provider \
                 default -in {from} -out {to}`"
            ),
            Self::Unfinished { .. } if file.is_none() => format!(
                "a value of several lines must be quoted where it is set: in .env NAME=\"-----BEGIN …\", in YAML with \
                 a block scalar (|); {}",
                wanted.description()
            ),
            Self::NotBase64 { around: Some(around), .. } | Self::Damaged { around: Some(around), .. }
                if around.can_be_taken_away() =>
            {
                let private = wanted.umask();
                format!("remove that and use the new file: `{private}{} {from} > {to}`", around.sed())
            }
            Self::Conflict => {
                let private = wanted.umask();
                format!(
                    "keep one of the two versions and use the new file; for the first: `{private}sed -e '/^<<<<<<< /d' -e \
                     '/^=======$/,/^>>>>>>> /d' {from} > {to}`"
                )
            }
            Self::NotBase64 { .. } | Self::Damaged { .. } | Self::Unfinished { .. } => {
                format!("copy it again, completely, from its source; {}", wanted.description())
            }
            Self::SeveralKeys { .. } => "keep only the certificate's key in it".to_owned(),
            _ => wanted.description().to_owned(),
        }
    }

    /// Returns true if the file has one other format as a whole, whatever was expected in it.
    pub(crate) fn is_container(&self) -> bool {
        matches!(self, Self::NoPem { format: Some(_) })
    }

    /// Returns true if the text may have been read in the middle of a write.
    pub(crate) fn maybe_partial_write(&self) -> bool {
        matches!(
            self,
            Self::Empty
                | Self::Unfinished { .. }
                | Self::NotBase64 { .. }
                | Self::Damaged { .. }
                | Self::WrongPassphrase
                | Self::NoPem { format: None }
                | Self::NoCertificate { instead: FoundInstead::Other }
                | Self::NoKey { instead: FoundInstead::Other }
        )
    }
}

/// What a PEM text is expected to contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Certificate,
    Key,
    ClientCa,
    RevocationList,
    /// The roots that clients trust.
    Authority,
}

impl Expected {
    /// Returns the beginning of a shell command that writes such material: nobody else may read a key.
    pub(crate) fn umask(self) -> &'static str {
        if self == Self::Key { "umask 077 && " } else { "" }
    }

    /// Describes what the setting accepts.
    fn description(self) -> &'static str {
        match self {
            Self::Certificate => "it expects a PEM file: the server's certificate, then its intermediates",
            Self::Key => "it expects one RSA, ECDSA or Ed25519 key in PEM (PKCS#8, PKCS#1 or SEC1)",
            Self::ClientCa => {
                "it expects a PEM file with the certificate of the CA that signs client certificates, not a client's \
                 own"
            }
            Self::Authority => "it expects a PEM file with the certificates of the roots that clients trust",
            Self::RevocationList => "it expects the CA's revocation list (CRL), PEM or DER",
        }
    }
}

/// Quotes `text` as one shell word.
pub(crate) fn quoted(text: &str) -> String {
    shlex::try_quote(text).map_or_else(|_| "FILE".to_owned(), |word| word.into_owned())
}

/// What a text contains instead of what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FoundInstead {
    /// Blocks of other kinds.
    Other,
    /// A certificate, but a key was expected.
    Certificate,
    /// A private key, but a certificate was expected.
    Key,
    /// A certificate request.
    Request,
    /// A public key.
    PublicKey,
    /// PKCS#7: certificates without a key.
    Pkcs7,
    /// A revocation list.
    RevocationList,
    /// An attribute certificate (RFC 5755).
    AttributeCertificate,
    /// Diffie-Hellman or curve parameters.
    Parameters,
}

impl FoundInstead {
    fn of(blocks: &[Block]) -> Self {
        let has = |end: &str| blocks.iter().any(|b| b.label.ends_with(end));
        match () {
            () if has("PRIVATE KEY") => Self::Key,
            () if has("CERTIFICATE REQUEST") => Self::Request,
            () if has("ATTRIBUTE CERTIFICATE") => Self::AttributeCertificate,
            () if has("CERTIFICATE") => Self::Certificate,
            () if has("PUBLIC KEY") => Self::PublicKey,
            () if has("X509 CRL") => Self::RevocationList,
            () if has("PARAMETERS") => Self::Parameters,
            () if has("PKCS7") || has("CMS") || has("PKCS #7 SIGNED DATA") => Self::Pkcs7,
            () => Self::Other,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Other => "",
            Self::Certificate => ", but a certificate: are certificate and key swapped?",
            Self::Key => ", but a private key: are certificate and key swapped?",
            Self::Request => ", but a certificate request: the certificate that the CA issued for it is required",
            Self::PublicKey => ", but a public key",
            Self::Pkcs7 => ", but PKCS#7 (.p7b), certificates without a key",
            Self::RevocationList => ", but a revocation list (CRL)",
            Self::AttributeCertificate => ", but an attribute certificate, which cannot be used for TLS",
            Self::Parameters => ", but only parameters (DH or EC)",
        }
    }
}

struct Block {
    label: String,
    der: Zeroizing<Vec<u8>>,
    /// The cipher, if RFC 1421's `Proc-Type: 4,ENCRYPTED` is present.
    dek: Option<Dek>,
}

fn blocks(pem: &Secret) -> Result<Vec<Block>, PemError> {
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
    let text = self::text(decoded.unwrap_or_else(|| Zeroizing::new(String::from_utf8_lossy(bytes).into_owned())));
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
fn layers(text: &[u8]) -> Option<(usize, Zeroizing<String>)> {
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
fn utf32(bytes: &[u8]) -> Option<Zeroizing<String>> {
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
fn url_decoded(text: &str) -> Option<Zeroizing<String>> {
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
fn utf16(bytes: &[u8]) -> Option<Zeroizing<String>> {
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
fn text(text: Zeroizing<String>) -> Zeroizing<String> {
    let bare = text.strip_prefix('\u{feff}').unwrap_or(&text);
    // Replace literal `\r` and `\n`, which environment files and JSON pasted as text contain. Base64 has no backslash,
    // so this is unambiguous.
    let text = Zeroizing::new(bare.replace("\\r", "\n").replace("\\n", "\n"));
    let text = url_decoded(&text).unwrap_or(text);
    with_whole_lines(&text).0
}

/// Repairs lines that are nearly BEGIN or END lines: too many or too few hyphens, typographic dashes, small letters.
/// Also returns the numbers of those lines.
fn with_whole_lines(text: &str) -> (Zeroizing<String>, Vec<usize>) {
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

fn is_invisible(c: char) -> bool {
    ['\u{200b}', '\u{2060}', '\u{feff}', '\u{ad}'].contains(&c)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMA4CAwQFBgcICQoLDA0ODw==\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMA4CAwQFBgcICQoLDA0ODw==\n-----END PRIVATE KEY-----\n";

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
            ("base64 twice more", LENIENT.encode(LENIENT.encode(pem))),
            (
                "base64 three times more, wrapped",
                format!("{}\n", LENIENT.encode(LENIENT.encode(LENIENT.encode(pem) + "\n"))),
            ),
            ("four dashes", pem.replace("-----", "----")),
            ("six dashes", pem.replace("-----", "------")),
            ("a dash too few at one end", pem.replacen("-----\n", "----\n", 1)),
            ("word processor", pem.replace("-----", "\u{2014}\u{2014}-")),
            (
                "small letters",
                pem.replace("BEGIN", "Begin")
                    .replace("CERTIFICATE", "certificate")
                    .replace("PRIVATE KEY", "private key"),
            ),
            ("blank before the dashes", pem.replace("-----BEGIN", "  ----- BEGIN").replace("-----\n", " -----\n")),
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
    fn text_in_other_encodings_is_read() {
        let utf16 = |text: &str, big: bool| -> Vec<u8> {
            text.encode_utf16().flat_map(|u| if big { u.to_be_bytes() } else { u.to_le_bytes() }).collect()
        };
        let latin = |pem: &str| [b"# Schl\xfcssel\n".as_slice(), pem.as_bytes(), b"\xfc"].concat();
        for (name, mark, big) in [
            ("little, mark", "\u{feff}", false),
            ("big, mark", "\u{feff}", true),
            ("little", "", false),
            ("big", "", true),
        ] {
            let coded = |pem: &str| Secret::new(utf16(&format!("{mark}{pem}"), big));
            assert!(certificates(&coded(CERTIFICATE)).is_ok(), "{name}");
            assert!(private_key(&coded(KEY), None).is_ok(), "{name}");
        }
        assert!(certificates(&Secret::new(latin(CERTIFICATE))).is_ok());
        assert!(private_key(&Secret::new(latin(KEY)), None).is_ok());
        assert!(leniencies(&Secret::new(latin(KEY))).iter().any(|odd| odd.contains("UTF-8")));
        assert!(leniencies(&KEY.replace("-----", "----").as_str().into()).iter().any(|odd| odd.contains("line 1 ")));
    }

    #[test]
    fn other_encodings_are_read_and_told() {
        let utf32 = |text: &str, big: bool| -> Vec<u8> {
            text.chars()
                .flat_map(|c| if big { u32::from(c).to_be_bytes() } else { u32::from(c).to_le_bytes() })
                .collect()
        };
        let percent = |text: &str, form: bool| -> String {
            text.chars()
                .map(|c| match c {
                    ' ' if form => "+".to_owned(),
                    c if c.is_ascii_alphanumeric() || c == '-' => c.to_string(),
                    c => format!("%{:02X}", u32::from(c)),
                })
                .collect()
        };
        for (name, coded, odd) in [
            ("UTF-32, little", utf32(CERTIFICATE, false), "UTF-32"),
            ("UTF-32, big", utf32(CERTIFICATE, true), "UTF-32"),
            ("UTF-32 with a mark", utf32(&format!("\u{feff}{CERTIFICATE}"), false), "UTF-32"),
            ("URL", percent(CERTIFICATE, false).into_bytes(), "URL"),
            ("form", percent(CERTIFICATE, true).into_bytes(), "URL"),
            ("URL, hyphens, too", percent(CERTIFICATE, false).replace('-', "%2D").into_bytes(), "URL"),
        ] {
            let secret = Secret::new(coded);
            assert_eq!(certificates(&secret).map(|c| c[0].len()), Ok(16), "{name}");
            let odds = leniencies(&secret);
            assert!(odds.iter().any(|one| one.contains(odd)), "{name}: {odds:?}");
            assert!(!odds.iter().any(|one| one.contains("once more")), "{name}: {odds:?}");
        }
        let page = CERTIFICATE.replace("CwwN", "Cw\u{200b}wN");
        assert!(certificates(&page.as_str().into()).is_ok());
    }

    #[test]
    fn damage_is_told_with_its_cause() {
        let lines = |before: &str| {
            let body = CERTIFICATE.replace("BgcI", "BgcI\n");
            body.lines().map(|line| format!("{before}{line}\n")).collect::<String>()
        };
        let conflict = format!("<<<<<<< HEAD\n{CERTIFICATE}=======\n{CERTIFICATE}>>>>>>> other\n");
        let other_length = CERTIFICATE.replace("BgcI", "");
        for (text, said, fix) in [
            (lines("> "), "a reply to a mail", "sed"),
            (lines("+"), "a diff", "sed"),
            (lines("12: "), "its number", "sed"),
            (CERTIFICATE.replace("==", "=3D=3D"), "quoted-printable", "sed"),
            (other_length, "lost or doubled", "copy it again"),
            (conflict, "conflict markers", "sed"),
        ] {
            let error = certificates(&text.as_str().into()).unwrap_err();
            assert_eq!(error.code(), "TLS-PEM-DAMAGED", "{text}");
            assert!(error.to_string().contains(said), "{error}");
            let written = error.fix(Expected::Certificate, Some(Path::new("tls.crt")));
            assert!(written.contains(fix), "{written}");
        }
    }

    #[test]
    fn formats_are_told_by_their_content() {
        let code = |bytes: &[u8]| certificates(&Secret::new(bytes.to_vec())).unwrap_err().code();
        let table: [(&[u8], &str); 26] = [
            (b"PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n", "TLS-PUTTY"),
            (b"PK\x03\x04\x14\0\0\0\xff\xfe", "TLS-ARCHIVE"),
            (b"\x1f\x8b\x08\0\xff", "TLS-ARCHIVE"),
            (b"\xfd7zXZ\0\0", "TLS-ARCHIVE"),
            (&[b"PK\x03\x04".as_slice(), CERTIFICATE.as_bytes()].concat(), "TLS-ARCHIVE"),
            (&[[0; 257].as_slice(), b"ustar", CERTIFICATE.as_bytes()].concat(), "TLS-ARCHIVE"),
            (b"{\"data\": \"ENC[AES256_GCM,data:x]\", \"sops\": {}}", "TLS-FILE-ENCRYPTED"),
            (b"data: ENC[AES256_GCM,data:x]\nsops:\n    age: []\n", "TLS-FILE-ENCRYPTED"),
            (b"age-encryption.org/v1\n-> X25519 abc\n", "TLS-FILE-ENCRYPTED"),
            (b"age-encryption.org/v1\n-> X25519 abc\n\xff\xfe", "TLS-FILE-ENCRYPTED"),
            (b"-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n-----END AGE ENCRYPTED FILE-----\n", "TLS-FILE-ENCRYPTED"),
            (b"$ANSIBLE_VAULT;1.1;AES256\n6133\n", "TLS-FILE-ENCRYPTED"),
            (b"-----BEGIN PGP MESSAGE-----\n\nhQEM\n=ab12\n-----END PGP MESSAGE-----\n", "TLS-FILE-ENCRYPTED"),
            (b"\0GITCRYPT\0\xff\xfe", "TLS-FILE-ENCRYPTED"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "TLS-GIT-LFS"),
            (b"apiVersion: v1\ndata:\n  tls.crt: LS0t\nkind: Secret\nmetadata:\n  name: db\n", "TLS-KUBERNETES-SECRET"),
            (b"{\n  \"apiVersion\": \"v1\",\n  \"kind\": \"Secret\",\n  \"data\": {}\n}", "TLS-KUBERNETES-SECRET"),
            (b"kind: SealedSecret\n", "TLS-KUBERNETES-SECRET"),
            (b"Certificate:\n    Data:\n        Version: 3 (0x2)\n", "TLS-TEXT-OUTPUT"),
            (b"Private-Key: (256 bit)\npriv:\n", "TLS-TEXT-OUTPUT"),
            (b"ssh-ed25519 AAAA me@here\n", "TLS-SSH-PUBLIC-KEY"),
            (b"\"/etc/tls/tls.crt\"", "TLS-PATH-AS-PEM"),
            (b"-----BEGIN PKCS7-----\nMAEC\n-----END PKCS7-----\n", "TLS-PKCS7"),
            (&[0x30, 0x82, 4, 0xe2, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2, 0xff], "TLS-PKCS7"),
            (b"-----BEGIN CERTIFICATE REQUEST-----\nMAEC\n-----END CERTIFICATE REQUEST-----\n", "TLS-NO-CERTIFICATE"),
            (b"hello\n", "TLS-NOT-PEM"),
        ];
        for (bytes, expected) in table {
            assert_eq!(code(bytes), expected, "{}", String::from_utf8_lossy(bytes));
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
        let dsa = format!(
            "-----BEGIN DSA PRIVATE KEY-----\n{}\n-----END DSA PRIVATE KEY-----",
            LENIENT.encode([0x30, 18, 2, 1, 0, 2, 1, 7, 2, 1, 7, 2, 1, 7, 2, 1, 7, 2, 1, 7,])
        );
        assert_eq!(key(&dsa), PemError::UnknownKey { kind: "DSA".to_owned() });
        let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00FF\n\nMAEC\n-----END RSA PRIVATE KEY-----";
        assert_eq!(key(legacy), PemError::Encrypted);
    }

    proptest! {
        /// Valid PEM with a few characters changed, removed or doubled.
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
            let _ = leniencies(&secret);
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
