//! From a [`Pair`] to an identity, and what is to be said about it.

use std::path::PathBuf;
use std::time::SystemTime;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tls_core::{Identity, IdentityError, Origin, Sourced, provider};

use crate::chain::{self, Ordered};
use crate::diagnose::{self, Finding, Severity};
use crate::handshake;
use crate::pem::{self, PemError};
use crate::source::{Input, Pair, read};

/// An identity, and what an operator should know of it.
#[derive(Debug)]
pub struct Loaded {
    /// The identity.
    pub identity: Identity,
    /// Findings, none of which keeps it from serving.
    pub findings: Vec<Finding>,
}

/// Reads certificate and key and pairs them. A FIFO is read once: it becomes text in `pair`.
///
/// # Errors
/// Either cannot be read, is not what it should be, or they are no pair.
pub fn load(pair: &mut Pair) -> Result<Loaded, LoadError> {
    let certificate = pem::certificates(&read::read(&mut pair.certificate)?)
        .map_err(|reason| LoadError::certificate(&pair.certificate, reason))?;
    let key = pem::private_key(&read::read(&mut pair.key)?).map_err(|reason| LoadError::key(&pair.key, reason))?;
    assemble(certificate, key, pair)
}

fn assemble(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pair: &Pair,
) -> Result<Loaded, LoadError> {
    let unusable = |reason: String| LoadError::Key {
        place: place(&pair.key),
        origin: pair.key.origin.clone(),
        code: "TLS-KEY-UNUSABLE",
        reason,
    };
    let signer = provider()
        .key_provider
        .load_private_key(key.clone_key())
        .map_err(|_| unusable(IdentityError::UnusableKey.to_string()))?;
    let Ordered { chain, changed } = chain::order(certificates, signer.as_ref());
    let (certificate_origin, key_origin) = (pair.certificate.origin.clone(), pair.key.origin.clone());
    let identity = Identity::new(chain, key, certificate_origin, key_origin).map_err(|reason| match reason {
        IdentityError::NotAPair { subject } => LoadError::NotAPair(Box::new(Mismatch {
            subject,
            certificate: place(&pair.certificate),
            certificate_origin: pair.certificate.origin.clone(),
            key: place(&pair.key),
            key_origin: pair.key.origin.clone(),
        })),
        other => LoadError::Certificate {
            place: place(&pair.certificate),
            origin: pair.certificate.origin.clone(),
            code: "TLS-CERTIFICATE-UNUSABLE",
            reason: other.to_string(),
        },
    })?;
    handshake::with_itself(&identity).map_err(|error| LoadError::NoHandshake {
        subject: identity.leaf().subject.clone(),
        origin: pair.certificate.origin.clone(),
        reason: error.to_string(),
    })?;
    let mut findings = diagnose::identity(&identity, changed, SystemTime::now());
    if let Input::File(path) = &pair.key.value {
        findings.extend(diagnose::key_file(path, &pair.key.origin));
    }
    Ok(Loaded { identity, findings })
}

/// Why a pair gives no identity. Nothing of what was read is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file cannot be read.
    #[error("{origin}: cannot read {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The setting that names it.
        origin: Origin,
        /// Why.
        reason: String,
    },
    /// The certificate is none.
    #[error("{origin}: the certificate{place}: {reason}")]
    Certificate {
        /// Where it was read, for a message: ` in /etc/tls.crt`, or empty.
        place: String,
        /// The setting that gives it.
        origin: Origin,
        /// A stable code of what is wrong.
        code: &'static str,
        /// Why.
        reason: String,
    },
    /// The CA that is to vouch for clients is none.
    #[error("{origin}: the client CA{place}: {reason}")]
    ClientCa {
        /// Where it was read, for a message.
        place: String,
        /// The setting that gives it.
        origin: Origin,
        /// Why.
        reason: String,
    },
    /// A revocation list is none.
    #[error("{origin}: the revocation list{place}: {reason}")]
    RevocationList {
        /// Where it was read, for a message.
        place: String,
        /// The setting that gives it.
        origin: Origin,
        /// Why.
        reason: String,
    },
    /// The key is none.
    #[error("{origin}: the key{place}: {reason}")]
    Key {
        /// Where it was read, for a message.
        place: String,
        /// The setting that gives it.
        origin: Origin,
        /// A stable code of what is wrong.
        code: &'static str,
        /// Why.
        reason: String,
    },
    /// Certificate and key are a pair, and no handshake comes about with them.
    #[error("{origin}: no handshake comes about with the certificate {subject}: {reason}")]
    NoHandshake {
        /// The leaf's subject.
        subject: String,
        /// The setting that gives it.
        origin: Origin,
        /// What rustls said.
        reason: String,
    },
    /// A reload found a certificate that is out of date, and what serves is better.
    #[error("{origin}: the certificate {subject} is out of date, and what serves is in date or ends later")]
    OutOfDate {
        /// The leaf's subject.
        subject: String,
        /// The setting that gives it.
        origin: Origin,
    },
    /// A reload found a certificate whose time has not come, and what serves is in date: it is to be read again then.
    #[error("{origin}: the certificate {subject} is not valid yet; it is taken when its time comes, in {starts_in} s")]
    NotYet {
        /// The leaf's subject.
        subject: String,
        /// The setting that gives it.
        origin: Origin,
        /// In how many seconds it is valid.
        starts_in: i64,
    },
    /// The key is another certificate's.
    #[error(transparent)]
    NotAPair(Box<Mismatch>),
}

/// A key that is another certificate's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the key{key} (from {key_origin}) is not the key of the certificate {subject}{certificate} (from {certificate_origin})"
)]
pub struct Mismatch {
    /// The leaf's subject.
    pub subject: String,
    /// Where the certificate was read, for a message.
    pub certificate: String,
    /// The setting that gives it.
    pub certificate_origin: Origin,
    /// Where the key was read, for a message.
    pub key: String,
    /// The setting that gives it.
    pub key_origin: Origin,
}

impl LoadError {
    fn certificate(from: &Sourced<Input>, reason: PemError) -> Self {
        let (origin, code) = (from.origin.clone(), reason.code());
        Self::Certificate { place: place(from), origin, code, reason: reason.to_string() }
    }

    fn key(from: &Sourced<Input>, reason: PemError) -> Self {
        let (origin, code) = (from.origin.clone(), reason.code());
        Self::Key { place: place(from), origin, code, reason: reason.to_string() }
    }

    /// As a finding of the doctor.
    pub fn finding(&self) -> Finding {
        let (code, origin, subject) = match self {
            Self::Unreadable { path, origin, .. } => ("TLS-UNREADABLE", origin, path.display().to_string()),
            Self::Certificate { origin, code, .. } | Self::Key { origin, code, .. } => (*code, origin, String::new()),
            Self::ClientCa { origin, .. } => ("TLS-CLIENT-CA", origin, String::new()),
            Self::RevocationList { origin, .. } => ("TLS-CRL", origin, String::new()),
            Self::NoHandshake { origin, subject, .. } => ("TLS-NO-HANDSHAKE", origin, subject.clone()),
            Self::OutOfDate { origin, subject } => ("TLS-OUT-OF-DATE", origin, subject.clone()),
            Self::NotYet { origin, subject, .. } => ("TLS-NOT-YET-VALID", origin, subject.clone()),
            Self::NotAPair(mismatch) => ("TLS-KEY-MISMATCH", &mismatch.key_origin, mismatch.subject.clone()),
        };
        Finding {
            code,
            severity: Severity::Error,
            origin: origin.to_string(),
            subject,
            message: self.to_string(),
            fix: self.hint().to_owned(),
        }
    }

    /// What to change, in one sentence.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "check the path and that this user may read the file",
            Self::Certificate { .. } => "it takes a PEM file: the server's certificate, then its intermediates",
            Self::Key { .. } => "it takes one unencrypted RSA, ECDSA or Ed25519 key in PEM (PKCS#8, PKCS#1 or SEC1)",
            Self::ClientCa { .. } => {
                "it takes a PEM file with the certificate of the CA that signs client certificates, not a client's own"
            }
            Self::RevocationList { .. } => "it takes the CA's revocation list (CRL), PEM or DER",
            Self::NoHandshake { .. } => {
                "have it issued for another kind of key: RSA of 2048 bits or more, P-256 or P-384"
            }
            Self::OutOfDate { .. } => "put a certificate there that is in date, or check this machine's clock",
            Self::NotYet { .. } => "wait, or check this machine's clock",
            Self::NotAPair(_) => {
                "compare `openssl x509 -in CERT -noout -pubkey` with `openssl pkey -in KEY -pubout`: a renewal may have changed only \
                 one of the files"
            }
        }
    }
}

/// Where it is read, for a message: ` in /etc/tls.crt`, or empty.
pub(crate) fn place(from: &Sourced<Input>) -> String {
    match &from.value {
        Input::File(path) => format!(" in {}", path.display()),
        Input::Text(_) | Input::Watched(_) => String::new(),
    }
}

#[cfg(test)]
mod tests;
