//! A certificate chain and its key, proven to match.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::Serialize;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::{Origin, provider};

/// A server's identity: the leaf certificate, its intermediates, and the leaf's key.
///
/// It cannot be built with a key that does not match the leaf.
#[derive(Debug)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    leaf: CertificateSummary,
    certificate_origin: Origin,
    key_origin: Origin,
    paired_at: SystemTime,
}

impl Identity {
    /// Pairs a chain (leaf first) with its key.
    ///
    /// # Errors
    /// Fails if the chain is empty or not X.509, if TLS cannot use the kind of key, or if the key does not match the
    /// leaf.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        certificate_origin: Origin,
        key_origin: Origin,
    ) -> Result<Self, IdentityError> {
        let leaf = CertificateSummary::read(chain.first().ok_or(IdentityError::Empty)?)?;
        let provider: Arc<CryptoProvider> = provider();
        let key = provider.key_provider.load_private_key(key).map_err(|_| IdentityError::UnusableKey)?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InvalidCertificate(_)) if is_key_of(&certified) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(IdentityError::NotAPair { subject: leaf.subject });
            }
            Err(e) => {
                return Err(IdentityError::UnusableCertificate { subject: leaf.subject, reason: e.to_string() });
            }
        }
        let paired_at = SystemTime::now();
        Ok(Self { certified: Arc::new(certified), leaf, certificate_origin, key_origin, paired_at })
    }

    /// Returns the chain and key as rustls needs them.
    pub fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// Returns a summary of the leaf.
    pub fn leaf(&self) -> &CertificateSummary {
        &self.leaf
    }

    /// Returns the origin of the chain.
    pub fn certificate_origin(&self) -> &Origin {
        &self.certificate_origin
    }

    /// Returns the origin of the key.
    pub fn key_origin(&self) -> &Origin {
        &self.key_origin
    }

    /// Returns when the chain and the key were paired, just before they were first used.
    pub fn paired_at(&self) -> SystemTime {
        self.paired_at
    }

    /// Returns true if `other` presents the same chain.
    pub fn same_chain(&self, other: &Self) -> bool {
        self.certified.cert == other.certified.cert
    }
}

/// Returns true if the leaf is X.509 and the key matches it. rustls' client-side parser rejects X.509 v1 (without
/// extensions, as `openssl x509 -req` creates it) and some critical extensions; many clients accept both, so such
/// certificates are allowed.
fn is_key_of(certified: &CertifiedKey) -> bool {
    let Some(Ok(leaf)) = certified.cert.first().map(parse) else { return false };
    let key = certified.key.public_key();
    key.is_some_and(|key| key.as_ref() == leaf.public_key().raw)
}

/// Why a chain and a key do not form an [`Identity`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The chain is empty.
    #[error("the chain holds no certificate")]
    Empty,
    /// The leaf is not X.509.
    #[error("the certificate cannot be read: {reason}")]
    Malformed {
        /// The parser's reason.
        reason: String,
    },
    /// The leaf is X.509, but TLS cannot use it.
    #[error("the certificate {subject} cannot be used: {reason}")]
    UnusableCertificate {
        /// The leaf's subject.
        subject: String,
        /// The reason that rustls gives.
        reason: String,
    },
    /// The key is not RSA (2048 to 8192 bits), ECDSA (P-256, P-384, P-521) or Ed25519.
    #[error("the key is of a kind or size that is not supported here (rustls)")]
    UnusableKey,
    /// The key belongs to a different certificate.
    #[error("the key is not the key of the certificate {subject}")]
    NotAPair {
        /// The leaf's subject.
        subject: String,
    },
}

/// The main fields of a certificate, safe to log and display.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateSummary {
    /// The subject's distinguished name.
    pub subject: String,
    /// The subject alternative names: DNS names, IP addresses and URIs.
    pub names: Vec<String>,
    /// The issuer's distinguished name.
    pub issuer: String,
    /// SHA-256 of the DER encoding, in lower-case hex.
    pub fingerprint: String,
    /// Start of validity, in Unix seconds.
    pub not_before: i64,
    /// End of validity, in Unix seconds.
    pub not_after: i64,
    /// True if subject and issuer are the same.
    pub self_signed: bool,
}

impl CertificateSummary {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// Fails if it is not X.509.
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        Ok(Self::of(&parse(der)?, der))
    }

    /// Summarizes a certificate that is already parsed.
    pub(crate) fn of(parsed: &X509Certificate<'_>, der: &CertificateDer<'_>) -> Self {
        let names = parsed
            .subject_alternative_name()
            .ok()
            .flatten()
            .map(|san| san.value.general_names.iter().filter_map(name_text).map(|name| shown(&name)).collect())
            .unwrap_or_default();
        let subject = match parsed.subject().to_string() {
            empty if empty.is_empty() => "(no subject)".to_owned(),
            text => shown(&text),
        };
        Self {
            subject,
            names,
            issuer: shown(&parsed.issuer().to_string()),
            fingerprint: hex(digest::digest(&digest::SHA256, der).as_ref()),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            self_signed: parsed.subject().as_raw() == parsed.issuer().as_raw(),
        }
    }
}

/// Parses a certificate in DER.
pub(crate) fn parse<'der>(der: &'der CertificateDer<'_>) -> Result<X509Certificate<'der>, IdentityError> {
    // The parser's own message is meant for programmers.
    let malformed = |_| IdentityError::Malformed { reason: "it is not X.509 in DER (RFC 5280 §4)".to_owned() };
    X509Certificate::from_der(der).map(|(_, parsed)| parsed).map_err(malformed)
}

impl CertificateSummary {
    /// Returns the names that a client can request by SNI: DNS names (RFC 6066 §3).
    pub fn dns_names(&self) -> impl Iterator<Item = &str> {
        let is_dns = |name: &&str| !name.contains(':') && name.parse::<IpAddr>().is_err();
        self.names.iter().map(String::as_str).filter(is_dns)
    }

    /// Returns the seconds from `at` to the end of validity; negative after it.
    pub fn seconds_left(&self, at: SystemTime) -> i64 {
        self.not_after - unix(at)
    }

    /// Returns the state of validity at `at`.
    pub fn validity(&self, at: SystemTime) -> Validity {
        let left = self.seconds_left(at);
        match left {
            // The certificate is still valid in its last second (RFC 5280 §4.1.2.5).
            _ if left < 0 => Validity::Expired,
            _ if unix(at) < self.not_before => Validity::NotYet { starts_in: self.not_before - unix(at) },
            _ if left < 7 * DAY => Validity::EndsWithin7Days,
            _ if left < 30 * DAY => Validity::EndsWithin30Days,
            _ => Validity::Valid,
        }
    }
}

/// The state of a certificate's validity, by how urgently an operator must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// Not valid yet.
    NotYet {
        /// Seconds until it becomes valid.
        starts_in: i64,
    },
    /// No action is needed.
    Valid,
    /// Reported as a warning.
    EndsWithin30Days,
    /// Reported as an error.
    EndsWithin7Days,
    /// Expired.
    Expired,
}

impl Validity {
    /// Returns the text that `/v1/status` shows: `ok`, or the reason for an alert.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotYet { .. } => "not valid yet",
            Self::Expired => "expired",
            Self::EndsWithin7Days => "degraded: expires within 7 days",
            Self::EndsWithin30Days => "degraded: expires within 30 days",
            Self::Valid => "ok",
        }
    }

    /// Returns true within the validity period.
    pub fn is_in_date(self) -> bool {
        !matches!(self, Self::NotYet { .. } | Self::Expired)
    }
}

const DAY: i64 = 86_400;

pub(crate) fn unix(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

fn name_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(dns) => Some((*dns).to_owned()),
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        GeneralName::IPAddress(bytes) => {
            if let Ok(v4) = <[u8; 4]>::try_from(*bytes) {
                Some(std::net::Ipv4Addr::from(v4).to_string())
            } else {
                <[u8; 16]>::try_from(*bytes).ok().map(|v6| std::net::Ipv6Addr::from(v6).to_string())
            }
        }
        _ => None,
    }
}

/// Replaces control characters: the names come from the certificate's issuer and appear in terminals and logs.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use rcgen::{CertifiedKey as Made, generate_simple_self_signed};

    use super::*;

    pub(crate) fn identity(name: &str) -> Identity {
        let Made { cert, signing_key } =
            generate_simple_self_signed([name.to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        Identity::new(vec![cert.der().clone()], key, Origin::Default, Origin::Default).unwrap()
    }

    #[test]
    fn a_pair_tells_what_it_is() {
        let made = identity("localhost");
        assert_eq!(made.leaf().names, ["localhost", "127.0.0.1"]);
        assert_eq!(made.leaf().fingerprint.len(), 64);
        assert!(made.leaf().not_before < made.leaf().not_after);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let one = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let other = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(other.signing_key.serialize_der()).unwrap();
        let refused = Identity::new(vec![one.cert.der().clone()], key, Origin::Default, Origin::Default);
        assert!(matches!(refused, Err(IdentityError::NotAPair { .. })));
    }
}
