//! Classifies why a handshake with a server failed, as finely as the fixes differ.

use std::io;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, OtherError};
use tls_core::CertificateSummary;
use x509_parser::time::ASN1Time;

use crate::outbound::HandshakeObserver;
use crate::outbound::observer::Presented;

/// Why a handshake failed. `Display` is half a sentence about the server: "its certificate …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No trusted CA issued the certificate.
    #[error("its certificate ({subject}) was issued by {issuer}, which is not trusted")]
    UnknownIssuer {
        /// The leaf's subject.
        subject: String,
        /// The issuer of the last certificate in the presented chain.
        issuer: String,
        /// Whether the server sent intermediates. If not, one may be missing on the server.
        intermediates: bool,
    },
    /// The certificate is self-signed, and not trusted.
    #[error("its certificate ({subject}) is self-signed, and not trusted")]
    SelfSigned {
        /// The leaf's subject.
        subject: String,
    },
    /// A trusted CA has the issuer's name but another key, as after the CA was created again.
    #[error(
        "its certificate ({subject}) was issued by another {issuer} than the one that is trusted: their keys differ"
    )]
    AnotherKey {
        /// The leaf's subject.
        subject: String,
        /// The issuer of the last certificate in the presented chain.
        issuer: String,
    },
    /// The certificate is not valid for the name.
    #[error("its certificate is not for `{asked}`: {}", names_text(.names))]
    WrongName {
        /// The name that was connected to.
        asked: String,
        /// The names that the certificate is valid for.
        names: Vec<String>,
    },
    /// The certificate has expired.
    #[error("its certificate ({subject}) expired at {not_after}")]
    Expired {
        /// The leaf's subject.
        subject: String,
        /// The time of expiry, as RFC 3339 in UTC.
        not_after: String,
    },
    /// The certificate is not valid yet.
    #[error("its certificate ({subject}) is not valid before {not_before}")]
    NotYetValid {
        /// The leaf's subject.
        subject: String,
        /// The start of its validity, as RFC 3339 in UTC.
        not_before: String,
    },
    /// The certificate is a CA's, or not valid for servers.
    #[error("its certificate ({subject}) is not one for a server: {reason}")]
    NotForServers {
        /// The leaf's subject.
        subject: String,
        /// What the certificate is instead.
        reason: &'static str,
    },
    /// The certificate has another fault.
    #[error("its certificate is refused: {0}")]
    Certificate(String),
    /// The response is not TLS.
    #[error("it does not speak TLS")]
    PlainText,
    /// The server requires a client certificate, and none was presented.
    #[error("it asks for a client certificate")]
    CertificateRequired,
    /// The server refuses the client certificate.
    #[error("it refuses the client certificate ({0})")]
    CertificateRefused(String),
    /// The server ended the handshake with an alert.
    #[error("it ended the TLS handshake ({0})")]
    Alert(String),
    /// The connection was closed during the handshake.
    #[error("it closed the connection during the TLS handshake")]
    Closed,
    /// Another error.
    #[error("the TLS handshake failed: {0}")]
    Other(String),
}

impl Refusal {
    /// Classifies an I/O error of a connection that failed before any response. `observer` belongs to the connection's
    /// configuration.
    pub fn of_io(error: &io::Error, observer: &HandshakeObserver) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(error) => Self::of(error, observer),
            None if matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe) => {
                Self::of_end(observer)
            }
            None => Self::Other(error.to_string()),
        }
    }

    /// Classifies an error of rustls.
    pub fn of(error: &Error, observer: &HandshakeObserver) -> Self {
        match error {
            Error::InvalidCertificate(reason) => certificate(reason, observer),
            // The first bytes of the response are not a TLS record.
            Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
                Self::PlainText
            }
            Error::AlertReceived(alert) => of_alert(*alert, observer.has_certificate()),
            other => Self::Other(other.to_string()),
        }
    }

    /// Classifies a connection that the server closed without an alert.
    pub fn of_end(observer: &HandshakeObserver) -> Self {
        match (observer.certificate_asked(), observer.has_certificate()) {
            (true, false) => Self::CertificateRequired,
            (true, true) => Self::CertificateRefused("it closed the connection".to_owned()),
            _ => Self::Closed,
        }
    }
}

fn certificate(reason: &CertificateError, observer: &HandshakeObserver) -> Refusal {
    let seen = observer.refused();
    let subject = || seen.as_ref().map_or_else(|| "unreadable".to_owned(), |seen| seen.leaf.subject.clone());
    // The certificate that is out of date may be an intermediate.
    let whose = |end: fn(&CertificateSummary) -> i64, time: &UnixTime| match &seen {
        Some(seen) if end(&seen.leaf).unsigned_abs() != time.as_secs() => {
            format!("a certificate in the chain of {}", subject())
        }
        _ => subject(),
    };
    match reason {
        CertificateError::UnknownIssuer => match seen {
            Some(seen) if seen.leaf.self_signed => Refusal::SelfSigned { subject: seen.leaf.subject },
            Some(Presented { leaf, issuer, intermediates }) => {
                Refusal::UnknownIssuer { subject: leaf.subject, issuer, intermediates: intermediates > 0 }
            }
            None => Refusal::Certificate(reason.to_string()),
        },
        CertificateError::BadSignature | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            match seen {
                Some(seen) if seen.leaf.self_signed => Refusal::SelfSigned { subject: seen.leaf.subject },
                Some(Presented { leaf, issuer, .. }) => Refusal::AnotherKey { subject: leaf.subject, issuer },
                // The chain was accepted, so it is the signature of the handshake that failed.
                None => Refusal::Certificate(reason.to_string()),
            }
        }
        CertificateError::NotValidForNameContext { expected, .. } => Refusal::WrongName {
            asked: expected.to_str().into_owned(),
            names: seen.map(|seen| seen.leaf.names).unwrap_or_default(),
        },
        CertificateError::ExpiredContext { not_after, .. } => {
            Refusal::Expired { subject: whose(|leaf| leaf.not_after, not_after), not_after: rfc3339(not_after) }
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            Refusal::NotYetValid { subject: whose(|leaf| leaf.not_before, not_before), not_before: rfc3339(not_before) }
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Refusal::NotForServers {
            subject: subject(),
            reason: "its extended key usage leaves out server authentication",
        },
        CertificateError::Other(OtherError(inner))
            if matches!(inner.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity)) =>
        {
            Refusal::NotForServers { subject: subject(), reason: "it is a CA's (CA:TRUE)" }
        }
        other => Refusal::Certificate(other.to_string()),
    }
}

/// Classifies an alert (RFC 8446 §6.2). TLS 1.2 has no specific alert for a missing certificate.
fn of_alert(alert: AlertDescription, showed: bool) -> Refusal {
    use AlertDescription as A;
    match alert {
        A::CertificateRequired | A::NoCertificate => Refusal::CertificateRequired,
        A::BadCertificate if !showed => Refusal::CertificateRequired,
        A::BadCertificate
        | A::UnsupportedCertificate
        | A::CertificateRevoked
        | A::CertificateExpired
        | A::CertificateUnknown
        | A::UnknownCA
        | A::AccessDenied
            if showed =>
        {
            Refusal::CertificateRefused(format!("{alert:?}"))
        }
        other => Refusal::Alert(format!("{other:?}")),
    }
}

fn names_text(names: &[String]) -> String {
    match names {
        [] => "it names no host at all (no subject alternative name)".to_owned(),
        names => format!("it is for {}", names.join(", ")),
    }
}

/// Formats a certificate's time as RFC 3339 in UTC.
fn rfc3339(time: &UnixTime) -> String {
    let seconds = time.as_secs();
    let known = i64::try_from(seconds).ok().and_then(|seconds| ASN1Time::from_timestamp(seconds).ok());
    known.map(|time| time.to_datetime()).map_or_else(
        || format!("{seconds} s after 1970"),
        |t| {
            let (month, day) = (u8::from(t.month()), t.day());
            format!("{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", t.year(), t.hour(), t.minute(), t.second())
        },
    )
}
