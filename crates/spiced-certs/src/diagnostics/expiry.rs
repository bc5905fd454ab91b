//! Findings about certificates that expire soon, have expired or are not valid yet.

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use tls_core::{CertificateSummary, Identity, Validity};

use super::compatibility::Clients;
use super::report::{Finding, Severity};

pub(super) const DAY: i64 = 86_400;

/// The role of a certificate in findings about its expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Server,
    Intermediate,
    ClientCa,
}

impl Whose {
    fn noun(self) -> &'static str {
        match self {
            Self::Server => "certificate",
            Self::Intermediate => "intermediate",
            Self::ClientCa => "client CA",
        }
    }

    /// Returns the codes for: expires soon, expired, not yet valid.
    fn codes(self) -> [&'static str; 3] {
        match self {
            Self::Server => ["TLS-ENDS-SOON", "TLS-EXPIRED", "TLS-NOT-YET-VALID"],
            Self::Intermediate => {
                ["TLS-INTERMEDIATE-ENDS-SOON", "TLS-INTERMEDIATE-EXPIRED", "TLS-INTERMEDIATE-NOT-YET-VALID"]
            }
            Self::ClientCa => ["TLS-CLIENT-CA-ENDS-SOON", "TLS-CLIENT-CA-EXPIRED", "TLS-CLIENT-CA-NOT-YET-VALID"],
        }
    }

    fn fix(self) -> &'static str {
        match self {
            Self::Server => "renew it in place; the new one is loaded automatically",
            Self::Intermediate => "append the CA's current intermediate instead; the new chain is loaded automatically",
            Self::ClientCa => {
                "add the CA's new certificate next to it, which is loaded automatically; remove the old one when no \
                 client uses it"
            }
        }
    }

    /// Returns the finding about the expiry of `certificate`; `None` if it is valid for 30 days or more.
    pub(crate) fn ending(self, certificate: &CertificateSummary, origin: &str, now: SystemTime) -> Option<Finding> {
        let left = certificate.seconds_left(now);
        let noun = self.noun();
        let [soon, over, not_yet] = self.codes();
        let ends = || format!("the {noun} expires in {}", span(left, ""));
        let (code, severity, message, fix) = match certificate.validity(now) {
            Validity::Valid => return None,
            Validity::EndsWithin30Days => (soon, Severity::Warning, ends(), self.fix()),
            Validity::EndsWithin7Days => (soon, Severity::Error, ends(), self.fix()),
            Validity::Expired => {
                (over, Severity::Error, format!("the {noun} expired {}", span(-left, "ago")), self.fix())
            }
            Validity::NotYet { starts_in } => {
                let message = format!("the {noun} is not valid yet: it starts in {}", span(starts_in, ""));
                (not_yet, Severity::Error, message, "check this machine's clock, or wait")
            }
        };
        let (origin, subject) = (origin.to_owned(), certificate.subject.clone());
        let ended = matches!(certificate.validity(now), Validity::Expired | Validity::NotYet { .. });
        let refused_by = if ended && self != Self::ClientCa { Clients::ALL } else { Clients::NONE };
        Some(Finding { code, severity, origin, subject, message, fix: fix.to_owned(), refused_by })
    }
}

/// Returns the findings about the expiry of `identity` and its intermediates; none if they are valid for 30 days or
/// more.
pub fn ending(identity: &Identity, now: SystemTime) -> Vec<Finding> {
    let origin = identity.certificate_origin().to_string();
    chain_ending(&identity.certified_key().cert, identity.leaf(), &origin, now)
}

pub(super) fn chain_ending(
    chain: &[CertificateDer<'_>],
    leaf: &CertificateSummary,
    origin: &str,
    now: SystemTime,
) -> Vec<Finding> {
    let above = intermediates(chain);
    let above = above.iter().filter_map(|one| Whose::Intermediate.ending(one, origin, now));
    Whose::Server.ending(leaf, origin, now).into_iter().chain(above).collect()
}

/// Returns the certificates between the leaf and a root. Clients have their own copy of a root, so its expiry does not
/// matter here.
fn intermediates(chain: &[CertificateDer<'_>]) -> Vec<CertificateSummary> {
    let above = chain.iter().skip(1).filter_map(|der| CertificateSummary::read(der).ok());
    above.filter(|one| !one.self_signed).collect()
}

pub(crate) fn span(seconds: i64, after: &str) -> String {
    let text = match seconds {
        s if s >= 2 * DAY => format!("{} days", s / DAY),
        s if s >= 2 * 3600 => format!("{} hours", s / 3600),
        s => format!("{} minutes", s / 60),
    };
    format!("{text} {after}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity_in_words() {
        let at = |start: i64, end: i64| {
            let leaf = CertificateSummary {
                subject: String::new(),
                names: Vec::new(),
                issuer: String::new(),
                fingerprint: String::new(),
                not_before: start,
                not_after: end,
                self_signed: false,
            };
            let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000 * DAY as u64);
            let said = Whose::Server.ending(&leaf, "", now);
            said.map(|finding| (finding.code, finding.severity, finding.message))
        };
        assert_eq!(at(0, 2_000 * DAY), None);
        assert_eq!(
            at(0, 997 * DAY).unwrap(),
            ("TLS-EXPIRED", Severity::Error, "the certificate expired 3 days ago".to_owned())
        );
        assert_eq!(at(1_001 * DAY, 2_000 * DAY).unwrap().0, "TLS-NOT-YET-VALID");
        assert_eq!(at(0, 1_020 * DAY).unwrap().1, Severity::Warning);
        assert_eq!(at(0, 1_003 * DAY).unwrap().1, Severity::Error);
    }
}
