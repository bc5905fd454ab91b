//! The findings about a chain, about how PEM is written, and about a key file.

use std::path::Path;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use tls_core::{CertificateSummary, Origin, Secret, Sourced};

use super::compatibility::Clients;
use super::expiry::{DAY, chain_ending};
use super::facts::Facts;
use super::path;
use super::path::trust::Roots;
use super::report::{Finding, Severity, severity};
use crate::pem;
use crate::source::Input;

/// The longest lifetime that Apple's clients accept, in days; it applies to certificates of private CAs too.
pub(crate) const MAX_DAYS: i64 = 825;

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
