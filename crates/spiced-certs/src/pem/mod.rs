//! Reads PEM (RFC 7468), leniently in form and strictly in content.
//!
//! Tolerated: a BOM, UTF-16, CRLF, literal `\n`, newlines replaced by blanks, text in any encoding around the blocks,
//! more layers of base64, lines that are nearly BEGIN or END, labels that do not match their block, and blocks that are
//! neither certificates nor keys (`EC PARAMETERS`). Never guessed: which of two keys is meant.

mod blocks;
mod damage;
pub(crate) mod der;
mod encrypted;
mod error;
mod fix;
mod format;
mod leniencies;
mod openssh;
mod text;

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use tls_core::Secret;
use x509_parser::prelude::{FromDer, X509Certificate};

use self::blocks::{Block, blocks, found_instead};
use self::der::KeyForm;
pub(crate) use self::error::{FoundInstead, PemError};
pub(crate) use self::fix::{Expected, quoted};
use self::format::Format;
pub(crate) use self::leniencies::leniencies;
use self::text::BEGIN;

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
        return Err(PemError::NoCertificate { instead: found_instead(&blocks) });
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
        return Err(PemError::NoRevocationList { instead: found_instead(&blocks) });
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
        [] => return Err(PemError::NoKey { instead: found_instead(&blocks) }),
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

#[cfg(test)]
mod tests;
