//! From a [`Pair`] to an identity, and what is to be said about it.

use std::path::PathBuf;
use std::time::SystemTime;

use aws_lc_rs::digest;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tls_core::{Identity, IdentityError, Origin, Secret, Sourced, provider};

use crate::diagnose::{self, Finding, Severity};
use crate::pem::{self, PemError, Wanted};
use crate::source::{Input, Pair, read};
use crate::trust::Roots;
use crate::{chain, handshake};

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
    let read = Read::of(pair)?;
    read.pair(pair, &Roots::default())
}

/// The bytes of a pair, as they were read, once.
pub(crate) struct Read {
    certificate: Secret,
    key: Secret,
    passphrase: Option<Secret>,
}

impl Read {
    pub(crate) fn of(pair: &mut Pair) -> Result<Self, LoadError> {
        Ok(Self {
            certificate: read::read(&mut pair.certificate)?,
            key: read::read(&mut pair.key)?,
            passphrase: pair.passphrase.as_mut().map(read::read).transpose()?,
        })
    }

    /// What differs where the material does, or where it comes from.
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

    /// Makes an identity of it.
    pub(crate) fn pair(self, pair: &Pair, roots: &Roots) -> Result<Loaded, LoadError> {
        let certificates = pem::certificates(&self.certificate)
            .map_err(|reason| Unusable::pem(&pair.certificate, Wanted::Certificate, &reason))?;
        let key = pem::private_key(&self.key, self.passphrase.as_ref())
            .map_err(|reason| Unusable::pem(&pair.key, Wanted::Key, &reason))?;
        let encrypted = key.encrypted;
        let mut loaded = assemble(certificates, key.der, pair, roots)?;
        let subject = &loaded.identity.leaf().subject;
        for (text, input, what) in
            [(&self.certificate, &pair.certificate, "certificate"), (&self.key, &pair.key, "key")]
        {
            loaded.findings.extend(diagnose::oddly_written(text, input, what, subject));
        }
        if let (false, Some(passphrase)) = (encrypted, &pair.passphrase) {
            loaded.findings.push(diagnose::unused_passphrase(&passphrase.origin, subject));
        }
        Ok(loaded)
    }
}

/// A SHA-256.
pub(crate) type Digest = [u8; 32];

fn assemble(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pair: &Pair,
    roots: &Roots,
) -> Result<Loaded, LoadError> {
    let signer = provider().key_provider.load_private_key(key.clone_key()).map_err(|_| {
        let reason = IdentityError::UnusableKey.to_string();
        let fix = "have the certificate issued for another key: RSA of 2048 to 8192 bits, P-256 or P-384";
        Unusable::of(&pair.key, Wanted::Key, "TLS-KEY-UNUSABLE", reason, fix.to_owned())
    })?;
    let (chain, writing) = chain::order(certificates, signer.as_ref());
    let (certificate_origin, key_origin) = (pair.certificate.origin.clone(), pair.key.origin.clone());
    let identity = Identity::new(chain, key, certificate_origin, key_origin).map_err(|reason| match reason {
        IdentityError::NotAPair { subject } => LoadError::NotAPair(Box::new(Mismatch {
            subject,
            certificate: place(&pair.certificate),
            certificate_origin: pair.certificate.origin.clone(),
            key: place(&pair.key),
            key_origin: pair.key.origin.clone(),
        })),
        other => {
            let fix = "have it issued anew; `openssl x509 -text -noout -in FILE` shows what it says".to_owned();
            Unusable::of(&pair.certificate, Wanted::Certificate, "TLS-CERTIFICATE-UNUSABLE", other.to_string(), fix)
        }
    })?;
    handshake::with_itself(&identity).map_err(|error| LoadError::NoHandshake {
        subject: identity.leaf().subject.clone(),
        origin: pair.certificate.origin.clone(),
        reason: error.to_string(),
    })?;
    let mut findings = diagnose::identity(&identity, roots, SystemTime::now());
    findings.extend(writing.findings(&pair.certificate.origin, &identity.leaf().subject));
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
    /// What was read is not what it should be.
    #[error(transparent)]
    Unusable(Box<Unusable>),
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
    /// A reload found a revocation list that is out of date, and the one in force is not.
    #[error("{origin}: a revocation list is out of date, and those in force are not")]
    ListOutOfDate {
        /// The setting that gives the client CA.
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
    /// Several pairs give no identity.
    #[error("{first} (and {more} more; spiced tls check lists all)")]
    Several {
        /// The first of them.
        first: Box<LoadError>,
        /// How many there are besides.
        more: usize,
    },
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

/// Material that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: the {what}{place}: {reason}")]
pub struct Unusable {
    what: &'static str,
    place: String,
    origin: Origin,
    code: &'static str,
    reason: String,
    fix: String,
    may_be_torn: bool,
}

impl Unusable {
    /// PEM that does not hold what is wanted.
    pub(crate) fn pem(from: &Sourced<Input>, wanted: Wanted, reason: &PemError) -> LoadError {
        let code = match wanted {
            Wanted::Certificate | Wanted::Key => reason.code(),
            Wanted::ClientCa => "TLS-CLIENT-CA",
            Wanted::RevocationList => "TLS-CRL",
        };
        let mut fix = reason.fix(wanted, from.value.file());
        // A variable reaches the pair above the list alone.
        if *reason == PemError::Encrypted && !from.origin.to_string().contains("certificates[") {
            fix.push_str(", or SPICED_RUNTIME__TLS__KEY_PASSPHRASE");
        }
        let LoadError::Unusable(mut unusable) = Self::of(from, wanted, code, reason.to_string(), fix) else {
            unreachable!("made as such")
        };
        unusable.may_be_torn = reason.may_be_torn();
        LoadError::Unusable(unusable)
    }

    pub(crate) fn of(
        from: &Sourced<Input>,
        wanted: Wanted,
        code: &'static str,
        reason: String,
        fix: String,
    ) -> LoadError {
        let what = match wanted {
            Wanted::Certificate => "certificate",
            Wanted::Key => "key",
            Wanted::ClientCa => "client CA",
            Wanted::RevocationList => "revocation list",
        };
        let (place, origin) = (place(from), from.origin.clone());
        LoadError::Unusable(Box::new(Self { what, place, origin, code, reason, fix, may_be_torn: false }))
    }
}

impl LoadError {
    /// As a finding of the doctor.
    pub fn finding(&self) -> Finding {
        let (code, origin, subject) = match self {
            Self::Unreadable { path, origin, .. } => ("TLS-UNREADABLE", origin, path.display().to_string()),
            Self::Unusable(unusable) => (unusable.code, &unusable.origin, String::new()),
            Self::NoHandshake { origin, subject, .. } => ("TLS-NO-HANDSHAKE", origin, subject.clone()),
            Self::OutOfDate { origin, subject } => ("TLS-OUT-OF-DATE", origin, subject.clone()),
            Self::ListOutOfDate { origin } => ("TLS-CRL-OUT-OF-DATE", origin, String::new()),
            Self::NotYet { origin, subject, .. } => ("TLS-NOT-YET-VALID", origin, subject.clone()),
            Self::Several { first, .. } => return Finding { message: self.to_string(), ..first.finding() },
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
    pub fn hint(&self) -> &str {
        match self {
            Self::Unreadable { .. } => "check the path and that this user may read the file",
            Self::Unusable(unusable) => &unusable.fix,
            Self::NoHandshake { .. } => {
                "have it issued for another kind of key: RSA of 2048 bits or more, P-256 or P-384"
            }
            Self::OutOfDate { .. } => "put a certificate there that is in date, or check this machine's clock",
            Self::ListOutOfDate { .. } => "put the CA's current list there",
            Self::NotYet { .. } => "wait, or check this machine's clock",
            Self::Several { first, .. } => first.hint(),
            Self::NotAPair(_) => {
                "compare `openssl x509 -in CERT -noout -pubkey` with `openssl pkey -in KEY -pubout`: a renewal may have changed only \
                 one of the files"
            }
        }
    }

    /// True where the material may be one that is being written: another look may find it whole.
    pub(crate) fn may_be_torn(&self) -> bool {
        match self {
            Self::NotAPair(_) | Self::Unreadable { .. } => true,
            Self::Unusable(unusable) => unusable.may_be_torn,
            Self::Several { first, .. } => first.may_be_torn(),
            _ => false,
        }
    }

    /// True where one of two secrets may have changed before the other: certificate and key are no pair, or a passphrase
    /// does not open its key.
    pub fn is_half_rotated(&self) -> bool {
        match self {
            Self::NotAPair(_) => true,
            Self::Unusable(unusable) => ["TLS-KEY-PASSPHRASE", "TLS-KEY-ENCRYPTED"].contains(&unusable.code),
            Self::Several { first, .. } => first.is_half_rotated(),
            _ => false,
        }
    }

    /// In how many seconds what was found is valid, where its time has not come.
    pub fn starts_in(&self) -> Option<i64> {
        match self {
            Self::NotYet { starts_in, .. } => Some(*starts_in),
            _ => None,
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
