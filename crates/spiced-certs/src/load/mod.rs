//! Loads a [`Pair`] into an identity and collects the findings about it.

pub(crate) mod chain;
pub(crate) mod error;
pub(crate) mod pairs;

use std::path::Path;

use aws_lc_rs::digest;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tls_core::{Identity, IdentityError, Secret, Sourced, provider};

use self::chain::{Ordered, unusable_certificate};
use self::error::place;
pub use self::error::{LoadError, Mismatch, Unusable};
use crate::diagnostics::facts::Facts;
use crate::diagnostics::path;
use crate::diagnostics::path::trust::Roots;
use crate::diagnostics::{self, Finding};
use crate::handshake;
use crate::pem::der;
use crate::pem::{self, Expected, PemError};
use crate::source::{Input, Pair, read};

/// An identity, and what an operator should know about it.
#[derive(Debug)]
pub struct Loaded {
    /// The identity.
    pub identity: Identity,
    /// Findings that do not prevent the identity from being used.
    pub findings: Vec<Finding>,
    /// What could not be checked, one sentence each.
    pub unchecked: Vec<String>,
}

/// Reads a certificate and its key, and pairs them. A FIFO can be read only once, so its content replaces it in `pair`
/// as text.
///
/// # Errors
/// Fails if the certificate or the key cannot be read or used, or if the key belongs to another certificate.
pub fn load(pair: &mut Pair) -> Result<Loaded, LoadError> {
    let read = Read::of(pair).map_err(LoadError::all)?;
    read.pair(pair, &Roots::default()).map_err(LoadError::all)
}

/// The bytes of a pair, read once.
pub(crate) struct Read {
    certificate: Secret,
    key: Secret,
    passphrase: Option<Secret>,
}

impl Read {
    /// Reads every input of the pair; returns every error, not only the first.
    pub(crate) fn of(pair: &mut Pair) -> Result<Self, Vec<LoadError>> {
        let certificate = read::read(&mut pair.certificate);
        let key = read::read(&mut pair.key);
        let passphrase = pair.passphrase.as_mut().map(read::read).transpose();
        match (certificate, key, passphrase) {
            (Ok(certificate), Ok(key), Ok(passphrase)) => Ok(Self { certificate, key, passphrase }),
            (certificate, key, passphrase) => {
                // The inputs that were readable may be invalid as well: report both kinds of error together.
                let of_certificate = certificate.map(|text| pem::certificates(&text).err());
                let of_key = key.map(|text| match &passphrase {
                    Ok(passphrase) => pem::private_key(&text, passphrase.as_ref()).err(),
                    Err(_) => None,
                });
                let said = |reason: Option<PemError>, input, wanted| Some(Unusable::pem(input, wanted, &reason?));
                let certificate =
                    of_certificate.map_or_else(Some, |why| said(why, &pair.certificate, Expected::Certificate));
                let key = of_key.map_or_else(Some, |why| said(why, &pair.key, Expected::Key));
                Err(certificate.into_iter().chain(key).chain(passphrase.err()).collect())
            }
        }
    }

    /// Returns a digest that changes whenever the material or its origin changes.
    pub(crate) fn digest(&self, pair: &Pair) -> Digest {
        let mut context = digest::Context::new(&digest::SHA256);
        let origins = [&pair.certificate, &pair.key].map(|input| format!("{}{}", input.origin, place(input)));
        let parts = [&self.certificate, &self.key].map(Secret::expose);
        for part in parts.into_iter().chain(origins.iter().map(String::as_bytes)) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.update(self.passphrase.as_ref().map_or(&[], |passphrase| passphrase.expose()));
        context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// Builds an identity from the bytes; returns every error, not only the first.
    pub(crate) fn pair(self, pair: &Pair, roots: &Roots) -> Result<Loaded, Vec<LoadError>> {
        let certificates = pem::certificates(&self.certificate);
        let key = pem::private_key(&self.key, self.passphrase.as_ref());
        let (certificates, key) = match (certificates, key) {
            (Ok(certificates), Ok(key)) => (certificates, key),
            (certificates, key) => return Err(wrong_texts(pair, certificates.err(), key.err())),
        };
        let encrypted = key.encrypted;
        let plain = pair.certificate.value.file().filter(|_| pem::is_plain(&self.certificate, certificates.len()));
        let mut loaded = assemble(certificates, key.der, pair, plain, roots).map_err(|error| vec![error])?;
        let subject = loaded.identity.leaf().subject.clone();
        for (text, input, what) in
            [(&self.certificate, &pair.certificate, "certificate"), (&self.key, &pair.key, "key")]
        {
            loaded.findings.extend(diagnostics::oddly_written(text, input, what, &subject));
        }
        let key_file = pair.key.value.file();
        if let Some(path) = pair.certificate.value.file().filter(|path| Some(*path) != key_file)
            && pem::count_keys(&self.certificate) > 0
        {
            loaded.findings.extend(diagnostics::key_file(path, &pair.certificate.origin));
        }
        if let (false, Some(passphrase)) = (encrypted, &pair.passphrase) {
            loaded.findings.push(diagnostics::unused_passphrase(&passphrase.origin, &subject));
        }
        Ok(loaded)
    }
}

/// Converts the parse errors of a pair; a single mistake that affects both texts is reported once.
fn wrong_texts(pair: &Pair, certificate: Option<PemError>, key: Option<PemError>) -> Vec<LoadError> {
    let swapped = |error: &PemError| error.code() == "TLS-SWAPPED";
    let of_certificate = |reason: &PemError| Unusable::pem(&pair.certificate, Expected::Certificate, reason);
    let of_key = |reason: &PemError| Unusable::pem(&pair.key, Expected::Key, reason);
    match (certificate, key) {
        (Some(certificate), Some(key)) if swapped(&certificate) && swapped(&key) => vec![of_certificate(&certificate)],
        (Some(certificate), Some(key)) if certificate == key && certificate.is_container() => {
            let (first, second) = (of_certificate(&certificate), of_key(&key));
            match (first, second) {
                (LoadError::Unusable(mut both), LoadError::Unusable(second)) => {
                    both.place = format!("{} and the key{}", both.place, second.place);
                    both.fix = format!("{}; and for the key: {}", both.fix, second.fix);
                    vec![LoadError::Unusable(both)]
                }
                (first, second) => vec![first, second],
            }
        }
        (certificate, key) => certificate.iter().map(of_certificate).chain(key.iter().map(of_key)).collect(),
    }
}

/// A SHA-256 digest.
pub(crate) type Digest = [u8; 32];

fn assemble(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pair: &Pair,
    plain: Option<&Path>,
    roots: &Roots,
) -> Result<Loaded, LoadError> {
    let signer = provider().key_provider.load_private_key(key.clone_key()).map_err(|_| {
        let reason = format!("the key is {}, which is not supported here (rustls)", der::kind_of_key(&key));
        let fix = "have the certificate issued for another key: RSA of 2048 to 8192 bits, or ECDSA on P-256 or P-384";
        Unusable::of(&pair.key, Expected::Key, "TLS-KEY-UNUSABLE", reason, fix.to_owned())
    })?;
    let (chain, writing) = path::order(certificates, path::Leaf::OfKey(signer.as_ref()));
    let (certificate_origin, key_origin) = (pair.certificate.origin.clone(), pair.key.origin.clone());
    let kind = der::kind_of_key(&key);
    let note = mismatch_note(&chain, &kind, pair);
    let identity = Identity::new(chain, key, certificate_origin, key_origin).map_err(|reason| match reason {
        IdentityError::NotAPair { subject } => LoadError::NotAPair(Box::new(Mismatch {
            subject,
            certificate: place(&pair.certificate),
            certificate_origin: pair.certificate.origin.clone(),
            key: place(&pair.key),
            key_origin: pair.key.origin.clone(),
            note: note.0,
            fix: note.1,
        })),
        other => unusable_certificate(&pair.certificate, &other),
    })?;
    handshake::with_itself(&identity).map_err(|error| LoadError::NoHandshake {
        subject: identity.leaf().subject.clone(),
        origin: pair.certificate.origin.clone(),
        reason: error.to_string(),
    })?;
    let ordered = Ordered { chain: &identity.certified_key().cert, leaf: identity.leaf(), writing: &writing, plain };
    let (mut findings, unchecked) = ordered.findings(&pair.certificate, Some(&pair.key), roots);
    if let Input::File(path) = &pair.key.value {
        findings.extend(diagnostics::key_file(path, &pair.key.origin));
    }
    Ok(Loaded { identity, findings, unchecked })
}

/// Returns the likely cause of a mismatch, if it can be recognized, and the fix.
fn mismatch_note(chain: &[CertificateDer<'_>], key: &str, pair: &Pair) -> (String, String) {
    let word = |input: &Sourced<Input>, otherwise: &str| {
        input.value.file().map_or_else(|| otherwise.to_owned(), |file| pem::quoted(&file.display().to_string()))
    };
    let compare = format!(
        "compare `openssl x509 -in {} -noout -pubkey` with `openssl pkey -in {} -pubout`: a renewal may have changed only \
         one of the files",
        word(&pair.certificate, "CERT"),
        word(&pair.key, "KEY")
    );
    let facts: Vec<Facts<'_>> = chain.iter().filter_map(Facts::of).collect();
    let Some(first) = facts.first() else { return (String::new(), compare) };
    if facts.len() >= 20 && facts.iter().all(Facts::is_self_issued) {
        let fix = "use the server's own certificate; a trust store is for clients".to_owned();
        return (format!("; it holds {} certificates, which are roots: a trust store", facts.len()), fix);
    }
    if first.is_ca() {
        let fullchain = pair.certificate.value.file().map(|file| file.with_file_name("fullchain.pem"));
        let which = match fullchain.filter(|file| file.is_file()) {
            Some(file) => format!("give {}", pem::quoted(&file.display().to_string())),
            None => "give fullchain.pem".to_owned(),
        };
        let fix = format!("{which}, which begins with the server's certificate: cert.pem, then chain.pem");
        return (
            "; the first certificate is a CA's: this looks like chain.pem, which has only the intermediates".to_owned(),
            fix,
        );
    }
    let other = first.key();
    let note = if other == key { String::new() } else { format!("; the key is {key}, and the certificate's {other}") };
    (note, compare)
}

#[cfg(test)]
mod tests;
