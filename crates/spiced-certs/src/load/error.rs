//! Why material cannot be loaded or used, with the finding and the fix.

use std::path::PathBuf;

use tls_core::{Origin, Sourced};

use crate::diagnostics::compatibility::Clients;
use crate::diagnostics::{Finding, Severity};
use crate::pem::{Expected, PemError};
use crate::source::Input;

/// Why a pair cannot be loaded. No variant contains any of the material that was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file cannot be read.
    #[error("{origin}: cannot read {path:?}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The setting that names it.
        origin: Origin,
        /// Why, and which file or directory is at fault.
        reason: String,
        /// The fix.
        fix: String,
    },
    /// The material is invalid, or not of the expected kind.
    #[error(transparent)]
    Unusable(Box<Unusable>),
    /// Certificate and key match, but a handshake with them fails.
    #[error("{origin}: no handshake succeeds with the certificate {subject}: {reason}")]
    NoHandshake {
        /// The leaf's subject.
        subject: String,
        /// The setting that provides the certificate.
        origin: Origin,
        /// The error that rustls returned.
        reason: String,
    },
    /// A reload found a certificate that is out of date, and the current one is better.
    #[error("{origin}: the certificate {subject} is out of date, and the current one is in date or expires later")]
    OutOfDate {
        /// The leaf's subject.
        subject: String,
        /// The setting that provides the certificate.
        origin: Origin,
    },
    /// A reload found a revocation list that is out of date, and the current one is not.
    #[error("{origin}: a revocation list is out of date, and those in force are not")]
    ListOutOfDate {
        /// The setting that provides the client CA.
        origin: Origin,
    },
    /// A reload found a certificate that is not valid yet, and the current one is in date. The new one must be read
    /// again once it is valid.
    #[error(
        "{origin}: the certificate {subject} is not valid yet; it is loaded when it becomes valid, in {starts_in} s"
    )]
    NotYet {
        /// The leaf's subject.
        subject: String,
        /// The setting that provides the certificate.
        origin: Origin,
        /// Seconds until it becomes valid.
        starts_in: i64,
    },
    /// The key belongs to another certificate.
    #[error(transparent)]
    NotAPair(Box<Mismatch>),
    /// Clients would refuse the new certificate, and they accept the current one.
    #[error(
        "{}: {} would refuse the new certificate, but accept the current one: {}",
        finding.origin,
        clients.listed(),
        finding.message
    )]
    Refused {
        /// The reason for the refusal.
        finding: Box<Finding>,
        /// The clients that would refuse it.
        clients: Clients,
    },
    /// Clients whose certificates are accepted now would be refused after the reload.
    #[error("{}: clients whose certificates are accepted now would be refused: {}", finding.origin, finding.message)]
    LocksOut {
        /// The reason for the refusal.
        finding: Box<Finding>,
    },
    /// A revocation list is older than the one in force.
    #[error("{}: {}", finding.origin, finding.message)]
    OlderList {
        /// The reason.
        finding: Box<Finding>,
    },
    /// Several errors.
    #[error("{} (and {} more; spiced tls check lists all)", errors[0], errors.len() - 1)]
    Several {
        /// The errors; at least two.
        errors: Vec<LoadError>,
    },
}

/// A key that belongs to another certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the key{key} (from {key_origin}) is not the key of the certificate {subject}{certificate} (from {certificate_origin}){note}"
)]
pub struct Mismatch {
    /// The leaf's subject.
    pub subject: String,
    /// Where the certificate was read from, for a message.
    pub certificate: String,
    /// The setting that provides the certificate.
    pub certificate_origin: Origin,
    /// Where the key was read from, for a message.
    pub key: String,
    /// The setting that provides the key.
    pub key_origin: Origin,
    /// The likely cause, to append to a message.
    pub note: String,
    /// The fix.
    pub fix: String,
}

/// Material that is invalid, or not of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: the {what}{place}: {reason}")]
pub struct Unusable {
    what: &'static str,
    pub(super) place: String,
    origin: Origin,
    code: &'static str,
    reason: String,
    pub(super) fix: String,
    may_be_torn: bool,
}

impl Unusable {
    /// Returns the error for PEM that does not contain what was expected.
    pub(crate) fn pem(from: &Sourced<Input>, wanted: Expected, reason: &PemError) -> LoadError {
        let code = match wanted {
            Expected::Certificate | Expected::Key => reason.code(),
            Expected::ClientCa => "TLS-CLIENT-CA",
            Expected::RevocationList => "TLS-CRL",
            Expected::Authority => "TLS-CA-FILE",
        };
        let mut fix = reason.fix(wanted, from.value.file());
        // The environment variable sets the passphrase of the default pair only, not of those in `certificates`.
        if *reason == PemError::Encrypted && !from.origin.to_string().contains("certificates[") {
            fix.push_str(", or SPICED_RUNTIME__TLS__KEY_PASSPHRASE");
        }
        let LoadError::Unusable(mut unusable) = Self::of(from, wanted, code, reason.to_string(), fix) else {
            unreachable!("made as such")
        };
        unusable.may_be_torn = reason.maybe_partial_write();
        LoadError::Unusable(unusable)
    }

    pub(crate) fn of(
        from: &Sourced<Input>,
        wanted: Expected,
        code: &'static str,
        reason: String,
        fix: String,
    ) -> LoadError {
        let what = match wanted {
            Expected::Certificate => "certificate",
            Expected::Key => "key",
            Expected::ClientCa => "client CA",
            Expected::RevocationList => "revocation list",
            Expected::Authority => "CA",
        };
        let (place, origin) = (place(from), from.origin.clone());
        LoadError::Unusable(Box::new(Self { what, place, origin, code, reason, fix, may_be_torn: false }))
    }
}

impl LoadError {
    /// Converts the error to a [`Finding`].
    pub fn finding(&self) -> Finding {
        let (code, origin, subject) = match self {
            Self::Unreadable { path, origin, .. } => ("TLS-UNREADABLE", origin, path.display().to_string()),
            Self::Unusable(unusable) => (unusable.code, &unusable.origin, String::new()),
            Self::NoHandshake { origin, subject, .. } => ("TLS-NO-HANDSHAKE", origin, subject.clone()),
            Self::OutOfDate { origin, subject } => ("TLS-OUT-OF-DATE", origin, subject.clone()),
            Self::ListOutOfDate { origin } => ("TLS-CRL-OUT-OF-DATE", origin, String::new()),
            Self::NotYet { origin, subject, .. } => ("TLS-NOT-YET-VALID", origin, subject.clone()),
            Self::Refused { finding, .. } | Self::LocksOut { finding } | Self::OlderList { finding } => {
                return Finding { message: self.to_string(), ..(**finding).clone() };
            }
            Self::Several { errors } => return Finding { message: self.to_string(), ..errors[0].finding() },
            Self::NotAPair(mismatch) => ("TLS-KEY-MISMATCH", &mismatch.key_origin, mismatch.subject.clone()),
        };
        Finding {
            code,
            severity: Severity::Error,
            origin: origin.to_string(),
            subject,
            message: self.to_string(),
            fix: self.hint().to_owned(),
            refused_by: Clients::NONE,
        }
    }

    /// Returns the fix, in one sentence.
    pub fn hint(&self) -> &str {
        match self {
            Self::Unreadable { fix, .. } => fix,
            Self::Unusable(unusable) => &unusable.fix,
            Self::NoHandshake { .. } => {
                "have it issued for another kind of key: RSA of 2048 bits or more, P-256 or P-384"
            }
            Self::OutOfDate { .. } => "put a certificate there that is in date, or check this machine's clock",
            Self::ListOutOfDate { .. } => "put the CA's current list there",
            Self::NotYet { .. } => "wait, or check this machine's clock",
            Self::Refused { finding, .. } | Self::LocksOut { finding } | Self::OlderList { finding } => &finding.fix,
            Self::Several { errors } => errors[0].hint(),
            Self::NotAPair(mismatch) => &mismatch.fix,
        }
    }

    /// Combines one or more errors into one.
    pub(crate) fn all(mut errors: Vec<Self>) -> Self {
        if errors.len() == 1 { errors.swap_remove(0) } else { Self::Several { errors } }
    }

    /// Returns true if the material may have been read in the middle of a write, so that reading again may succeed.
    pub(crate) fn maybe_partial_write(&self) -> bool {
        match self {
            Self::NotAPair(_) | Self::Unreadable { .. } => true,
            Self::Unusable(unusable) => unusable.may_be_torn,
            // A CA and its revocation list are written one after the other.
            Self::LocksOut { .. } => true,
            // A file that is being written contains the leaf first.
            Self::Refused { finding, .. } => finding.code == "TLS-INTERMEDIATE-MISSING",
            Self::Several { errors } => errors.iter().any(Self::maybe_partial_write),
            _ => false,
        }
    }

    /// Returns true if one of two secrets may have changed before the other: the certificate and the key do not match,
    /// or the passphrase does not decrypt the key.
    pub fn is_mid_rotation(&self) -> bool {
        match self {
            Self::NotAPair(_) => true,
            Self::Unusable(unusable) => ["TLS-KEY-PASSPHRASE", "TLS-KEY-ENCRYPTED"].contains(&unusable.code),
            Self::Several { errors } => errors.iter().any(Self::is_mid_rotation),
            _ => false,
        }
    }

    /// Returns the seconds until the certificate is valid, if it is not valid yet.
    pub fn starts_in(&self) -> Option<i64> {
        match self {
            Self::NotYet { starts_in, .. } => Some(*starts_in),
            _ => None,
        }
    }
}

/// Returns where the input is read from, for a message: ` in /etc/tls.crt`, or empty.
pub(crate) fn place(from: &Sourced<Input>) -> String {
    match &from.value {
        Input::File(path) => format!(" in {path:?}"),
        Input::Text(_) | Input::Watched(_) => String::new(),
    }
}
