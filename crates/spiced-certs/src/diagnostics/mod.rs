//! Finds problems of a certificate that can still be served, each with a stable code, a sentence and a fix.

pub(crate) mod check_config;
pub(crate) mod compatibility;
pub(crate) mod facts;
pub(crate) mod names;
pub(crate) mod path;
pub(crate) mod remote;

use std::path::Path;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use serde::Serialize;
use tls_core::{CertificateSummary, Identity, Origin, Secret, Sourced, Validity};

use crate::diagnostics::compatibility::Clients;
use crate::diagnostics::facts::Facts;
use crate::diagnostics::path::trust::Roots;
use crate::pem;
use crate::source::Input;

const DAY: i64 = 86_400;

/// The longest lifetime that Apple's clients accept, in days; it applies to certificates of private CAs too.
pub(crate) const MAX_DAYS: i64 = 825;

/// The codes of findings for which clients refuse a certificate, or are themselves refused. These findings block a
/// reload.
pub const REFUSALS: [&str; 33] = [
    "TLS-CHAIN-REFUSED",
    "TLS-CHAIN-SIGNATURE",
    "TLS-CLIENT-CA-NOT-CA",
    "TLS-CRL-MISSING",
    "TLS-CRL-OLDER",
    "TLS-CRL-SIGNATURE",
    "TLS-CRITICAL-EXTENSION",
    "TLS-EMPTY-SUBJECT",
    "TLS-EXPIRED",
    "TLS-INTERMEDIATE-EXPIRED",
    "TLS-INTERMEDIATE-MISSING",
    "TLS-INTERMEDIATE-NOT-YET-VALID",
    "TLS-IP-AS-DNS",
    "TLS-ISSUER-KEY-ID",
    "TLS-ISSUER-KEY-USAGE",
    "TLS-ISSUER-NOT-CA",
    "TLS-ISSUER-USAGE",
    "TLS-KEY-USAGE",
    "TLS-LEAF-IS-CA",
    "TLS-NAME-CONSTRAINTS",
    "TLS-NAME-INVALID",
    "TLS-NAME-NOT-COVERED",
    "TLS-NAME-UNDERSCORE",
    "TLS-NO-SAN",
    "TLS-NO-SERVER-AUTH",
    "TLS-OTHER-CA",
    "TLS-PATH-LENGTH",
    "TLS-ROOT-EXPIRED",
    "TLS-UNUSUAL-KEY",
    "TLS-WEAK-KEY",
    "TLS-WEAK-SIGNATURE",
    "TLS-WILDCARD",
    "TLS-X509-V1",
];

/// The severity of a [`Finding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Information only.
    Info,
    /// Some clients refuse, or soon will.
    Warning,
    /// Clients refuse now.
    Error,
}

/// What an operator should know about a certificate or key in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A stable code, such as `TLS-EXPIRED`.
    pub code: &'static str,
    /// The severity.
    pub severity: Severity,
    /// Where the material came from.
    pub origin: String,
    /// The certificate's subject, or the key's file.
    pub subject: String,
    /// The finding, in one sentence.
    pub message: String,
    /// The fix.
    pub fix: String,
    /// The clients that refuse the certificate because of it.
    #[serde(skip_serializing_if = "Clients::is_empty")]
    pub refused_by: Clients,
}

impl Finding {
    /// Returns true if the finding affects clients enough to fail `spiced tls check`. With `strict`, every effect on
    /// clients counts, and so does every warning.
    pub fn fails(&self, strict: bool) -> bool {
        let refused = !self.refused_by.is_empty();
        match self.severity {
            Severity::Error => true,
            Severity::Warning => refused || strict,
            Severity::Info => refused && strict,
        }
    }
}

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

fn chain_ending(
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
pub(crate) fn intermediates(chain: &[CertificateDer<'_>]) -> Vec<CertificateSummary> {
    let above = chain.iter().skip(1).filter_map(|der| CertificateSummary::read(der).ok());
    above.filter(|one| !one.self_signed).collect()
}

/// The findings about a chain, and what could not be checked.
#[derive(Debug, Default)]
pub(crate) struct Diagnosis {
    pub(crate) findings: Vec<Finding>,
    pub(crate) unchecked: Vec<String>,
    /// The subject of the root that is presented, if any.
    pub(crate) root_sent: Option<String>,
    /// The topmost certificate, if its issuer's certificate is not available.
    pub(crate) open_end: Option<CertificateDer<'static>>,
    /// A sentence stating the assumption that its issuer is a root that clients have.
    pub(crate) taken_for_root: Option<String>,
}

/// Returns the findings about a chain. `hints` are certificates that may be missing from it.
pub(crate) fn chain(
    chain: &[CertificateDer<'_>],
    leaf: &CertificateSummary,
    origin: &str,
    roots: &Roots,
    hints: &[CertificateDer<'_>],
    now: SystemTime,
) -> Diagnosis {
    let mut findings = chain_ending(chain, leaf, origin, now);
    let mut verified = path::verify(chain, roots, hints, now);
    let faults = std::mem::take(&mut verified.faults);
    findings.extend(faults.into_iter().map(|fault| Finding {
        code: fault.code,
        severity: severity(fault.refused_by),
        origin: origin.to_owned(),
        subject: leaf.subject.clone(),
        message: fault.message,
        fix: fault.fix,
        refused_by: fault.refused_by,
    }));
    if let Some(facts) = chain.first().and_then(Facts::of) {
        findings.extend(long_lived(&facts, leaf, origin));
    }
    let path::Verified { unchecked, root_sent, open_end, taken_for_root, .. } = verified;
    Diagnosis { findings, unchecked, root_sent, open_end, taken_for_root }
}

/// Returns the severity of a finding for which these clients refuse.
pub(crate) fn severity(refused_by: Clients) -> Severity {
    if refused_by.is_all() { Severity::Error } else { Severity::Warning }
}

/// Returns the longest lifetime, in days, that the Baseline Requirements (§6.3.2) allow for a certificate that a public
/// CA issues at `issued`.
fn most_days(issued: i64) -> i64 {
    // 2029-03-15, 2027-03-15, 2026-03-15, 2020-09-01.
    match issued {
        at if at >= 1_868_227_200 => 47,
        at if at >= 1_805_068_800 => 100,
        at if at >= 1_773_532_800 => 200,
        at if at >= 1_598_918_400 => 398,
        _ => MAX_DAYS,
    }
}

fn long_lived(facts: &Facts<'_>, leaf: &CertificateSummary, origin: &str) -> Vec<Finding> {
    let info = |code, refused_by, message, fix: &str| Finding {
        code,
        severity: Severity::Info,
        origin: origin.to_owned(),
        subject: leaf.subject.clone(),
        message,
        fix: fix.to_owned(),
        refused_by,
    };
    let mut found = Vec::new();
    let public = facts.is_public();
    let most = if public { most_days(leaf.not_before) } else { MAX_DAYS };
    // The validity period includes both ends (RFC 5280 §4.1.2.5).
    if leaf.not_after - leaf.not_before + 1 > most * DAY {
        let message = match public {
            true => format!(
                "the certificate is valid for more than {most} days, the maximum for a public CA at its date: browsers \
                 refuse it"
            ),
            false => format!("the certificate is valid for more than {most} days: Apple's clients refuse it"),
        };
        let fix = "have it issued for a shorter time, and renew it automatically";
        found.push(info("TLS-LONG-LIFETIME", Clients::BROWSERS, message, fix));
    }
    if public && facts.extended_key_usage().is_some_and(|usage| usage.client_auth && usage.server_auth) {
        found.push(info(
            "TLS-PUBLIC-CLIENT-AUTH",
            Clients::NONE,
            "the certificate is also for clients; public CAs no longer issue that, and its renewal will be only for \
             servers"
                .to_owned(),
            "if clients present it, have a private CA issue one for that",
        ));
    }
    found
}

/// Returns a finding if PEM deviates from the standard form but can be read.
pub(crate) fn oddly_written(text: &Secret, from: &Sourced<Input>, what: &str, subject: &str) -> Option<Finding> {
    let odd = pem::leniencies(text);
    (!odd.is_empty()).then(|| Finding {
        code: "TLS-PEM-TIDIED",
        severity: Severity::Info,
        origin: from.origin.to_string(),
        subject: subject.to_owned(),
        message: format!("the {what}'s text {}; it is accepted here, but other programs may refuse it", odd.join(", ")),
        fix: "write it as its CA delivered it: PEM with plain line ends (LF)".to_owned(),
        refused_by: Clients::NONE,
    })
}

pub(crate) fn unused_passphrase(origin: &Origin, subject: &str) -> Finding {
    Finding {
        code: "TLS-PASSPHRASE-UNUSED",
        severity: Severity::Info,
        origin: origin.to_string(),
        subject: subject.to_owned(),
        message: "a passphrase is set, but the key is not encrypted".to_owned(),
        fix: "remove it, or encrypt the key: `openssl pkcs8 -topk8 -v2 aes-256-cbc -in KEY -out NEW`".to_owned(),
        refused_by: Clients::NONE,
    }
}

pub(crate) fn span(seconds: i64, after: &str) -> String {
    let text = match seconds {
        s if s >= 2 * DAY => format!("{} days", s / DAY),
        s if s >= 2 * 3600 => format!("{} hours", s / 3600),
        s => format!("{} minutes", s / 60),
    };
    format!("{text} {after}").trim_end().to_owned()
}

/// Checks a key file by PostgreSQL's rule: owned by this user with mode 0600, or by root with mode 0640. For a mounted
/// secret, whose mode cannot be changed, the finding is information only.
pub(crate) fn key_file(path: &Path, origin: &Origin) -> Vec<Finding> {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = std::fs::metadata(path) else { return Vec::new() };
    if !metadata.is_file() {
        return Vec::new();
    }
    // Kubernetes and Docker mount secrets from memory or read-only, and choose the modes themselves.
    let mounted =
        path.parent().is_some_and(|folder| folder.join("..data").exists()) || path.starts_with("/run/secrets");
    let finding = |code, message: String, fix: String| Finding {
        code,
        severity: if mounted { Severity::Info } else { Severity::Warning },
        origin: origin.to_string(),
        subject: path.display().to_string(),
        message,
        fix,
        refused_by: Clients::NONE,
    };
    let mut found = Vec::new();
    let (owner, file) = (metadata.uid(), pem::quoted(&path.display().to_string()));
    let me = nix::unistd::geteuid().as_raw();
    if owner != 0 && owner != me {
        found.push(finding(
            "TLS-KEY-OWNER",
            format!("the key file belongs to another user (uid {owner}), who may read and change it"),
            format!("change its owner: `chown {me} {file}`"),
        ));
    }
    let mode = metadata.mode() & 0o777;
    let allowed = if owner == 0 { 0o640 } else { 0o600 };
    if mode & !(allowed | 0o100) != 0 {
        found.push(finding(
            "TLS-KEY-PERMISSIONS",
            format!("the key file has mode {mode:04o}: others on this machine may read it"),
            if mounted { "set defaultMode: 0400 on the volume".to_owned() } else { format!("`chmod 600 {file}`") },
        ));
    }
    found
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
