//! The doctor: what is wrong with a certificate that serves all the same, with a stable code, a
//! sentence and a fix.

use std::path::Path;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use serde::Serialize;
use tls_core::{CertificateSummary, Identity, Origin, Secret, Sourced, Validity};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::source::Input;
use crate::trust::Roots;
use crate::{pem, trust};

const DAY: i64 = 86_400;

/// The longest lifetime that Apple's clients take, also of a private CA's certificate.
pub(crate) const MOST_DAYS: i64 = 825;

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Some clients will refuse, or soon will.
    Warning,
    /// Clients refuse now.
    Error,
}

/// Something an operator should know of a certificate or key that is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A stable code, `TLS-EXPIRED`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Where the material came from.
    pub origin: String,
    /// The certificate's subject, or the key's file.
    pub subject: String,
    /// One sentence.
    pub message: String,
    /// What to do.
    pub fix: String,
}

/// Whose certificate it is that ends.
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

    /// The codes of: ends soon, over, not begun.
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
            Self::Server => "renew it in its place; a new one serves by itself",
            Self::Intermediate => "append the CA's present intermediate instead; a new chain serves by itself",
            Self::ClientCa => {
                "add the CA's new certificate beside it, which is taken by itself; take the old one away when no client uses it"
            }
        }
    }

    /// What is to be said of how long `certificate` is still good; nothing where it is for 30 days or more.
    pub(crate) fn ending(self, certificate: &CertificateSummary, origin: &str, now: SystemTime) -> Option<Finding> {
        let left = certificate.seconds_left(now);
        let noun = self.noun();
        let [soon, over, not_yet] = self.codes();
        let ends = || format!("the {noun} ends in {}", span(left, ""));
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
        Some(Finding { code, severity, origin, subject, message, fix: fix.to_owned() })
    }
}

/// What is to be said of how long `identity` is still good, its intermediates too; nothing where it is for 30 days or
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

/// The certificates between the leaf and a root: a root's end is its holders' business.
pub(crate) fn intermediates(chain: &[CertificateDer<'_>]) -> Vec<CertificateSummary> {
    let above = chain.iter().skip(1).filter_map(|der| CertificateSummary::read(der).ok());
    above.filter(|one| !one.self_signed).collect()
}

/// What is to be said of an identity at the time `now`.
pub(crate) fn identity(identity: &Identity, roots: &Roots, now: SystemTime) -> Vec<Finding> {
    let origin = identity.certificate_origin().to_string();
    chain(&identity.certified_key().cert, identity.leaf(), origin, roots, now)
}

/// What is to be said of a chain, whoever presents it.
pub(crate) fn chain(
    chain: &[CertificateDer<'_>],
    leaf: &CertificateSummary,
    origin: String,
    roots: &Roots,
    now: SystemTime,
) -> Vec<Finding> {
    let mut found = chain_ending(chain, leaf, &origin, now);
    let mut say = |code, severity, message: String, fix: &str| {
        let (origin, subject) = (origin.clone(), leaf.subject.clone());
        found.push(Finding { code, severity, origin, subject, message, fix: fix.to_owned() });
    };
    if leaf.names.is_empty() {
        say(
            "TLS-NO-SAN",
            Severity::Warning,
            "the certificate has no subject alternative name: Go, Python requests, browsers and rustls refuse it"
                .to_owned(),
            "make it again with -addext subjectAltName=DNS:NAME",
        );
    }
    let Ok((_, parsed)) = X509Certificate::from_der(&chain[0]) else { return found };
    if parsed.is_ca() {
        say(
            "TLS-LEAF-IS-CA",
            Severity::Warning,
            "the certificate is a CA's: rustls and others refuse it as a server's".to_owned(),
            "sign a server certificate with it, or make one with -addext basicConstraints=CA:FALSE",
        );
    }
    if let Some(usage) = parsed.extended_key_usage().ok().flatten().map(|e| e.value)
        && !usage.server_auth
        && !usage.any
    {
        say(
            "TLS-NO-SERVER-AUTH",
            Severity::Warning,
            "the certificate's extended key usage leaves out server authentication: clients refuse it".to_owned(),
            "have it issued with extendedKeyUsage=serverAuth",
        );
    }
    let kind = LeafKey::of(&parsed);
    if let LeafKey::Unusual(name) = kind {
        say(
            "TLS-UNUSUAL-KEY",
            Severity::Warning,
            format!("the key is {name}: browsers and grpcio (BoringSSL) refuse it"),
            "have it issued for a P-256 or an RSA key",
        );
    }
    if let Some(bits) = chain.iter().find_map(weak_rsa) {
        say(
            "TLS-WEAK-KEY",
            Severity::Warning,
            format!("a certificate of the chain has an RSA key of {bits} bits: nearly every client refuses it"),
            "have it issued for a P-256 key, or RSA of 2048 bits or more",
        );
    }
    if chain.iter().any(|der| has_weak_signature(der)) {
        say(
            "TLS-WEAK-SIGNATURE",
            Severity::Warning,
            "a certificate of the chain is signed with SHA-1 or MD5: nearly every client refuses it".to_owned(),
            "have it issued anew, signed with SHA-256",
        );
    }
    if leaf.not_after - leaf.not_before > MOST_DAYS * DAY {
        say(
            "TLS-LONG-LIFETIME",
            Severity::Info,
            format!("the certificate is valid for more than {MOST_DAYS} days: Apple's clients refuse it"),
            "have it issued for a year or less, and renew it by itself",
        );
    }
    let last = chain.iter().rev().take(2).map(|der| CertificateSummary::read(der).ok()).collect::<Vec<_>>();
    // One that signed nothing of the chain is no root of it.
    if let [Some(root), Some(below)] = last.as_slice()
        && root.self_signed
        && below.issuer == root.subject
    {
        say(
            "TLS-ROOT-SENT",
            Severity::Info,
            format!(
                "the chain ends with the root {}: whoever trusts it has it, and it is sent for nothing",
                root.subject
            ),
            "take the last certificate out of the file",
        );
    }
    if chain.len() == 1
        && !leaf.self_signed
        && !parsed.is_ca()
        && let Some(severity) = intermediate_missing(&chain[0], roots, now)
    {
        say(
            "TLS-INTERMEDIATE-MISSING",
            severity,
            format!(
                "there is no intermediate, and the issuer ({}) is not a root of this system's trust store",
                leaf.issuer
            ),
            "append the issuer's intermediate certificates to the certificate (fullchain.pem)",
        );
    }
    found
}

/// The kind of a leaf's key, as far as clients differ about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeafKey {
    Usual,
    Unusual(&'static str),
}

impl LeafKey {
    pub(crate) fn of(leaf: &X509Certificate<'_>) -> Self {
        let key = &leaf.public_key().algorithm;
        let curve = key.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        match key.algorithm.to_id_string().as_str() {
            "1.3.101.112" => Self::Unusual("Ed25519"),
            _ if curve.is_some_and(|curve| curve.to_id_string() == "1.3.132.0.35") => Self::Unusual("ECDSA on P-521"),
            _ => Self::Usual,
        }
    }
}

/// True where a certificate is signed with SHA-1 or MD5. A root's own signature is not looked at by anybody.
pub(crate) fn has_weak_signature(der: &CertificateDer<'_>) -> bool {
    const WEAK: [&str; 3] = ["1.2.840.113549.1.1.5", "1.2.840.113549.1.1.4", "1.2.840.10045.4.1"];
    X509Certificate::from_der(der).is_ok_and(|(_, parsed)| {
        parsed.subject().as_raw() != parsed.issuer().as_raw()
            && WEAK.contains(&parsed.signature_algorithm.algorithm.to_id_string().as_str())
    })
}

/// Whether a leaf that comes alone seems to lack an intermediate. A private CA may well sign leaves
/// directly, so that is only info; where the system's store has a root with the very organisation
/// that issued it, clients with that store will refuse.
fn intermediate_missing(leaf: &CertificateDer<'_>, roots: &Roots, now: SystemTime) -> Option<Severity> {
    match roots.verify(leaf, &[], now) {
        // A root of the store signed it itself.
        Ok(()) => None,
        Err(webpki::Error::UnknownIssuer) => {
            let issuer =
                X509Certificate::from_der(leaf).ok().and_then(|(_, parsed)| trust::organisation(parsed.issuer()));
            let public = issuer.is_some_and(|issuer| roots.are_of(&issuer));
            Some(if public { Severity::Warning } else { Severity::Info })
        }
        Err(_) => None,
    }
}

/// The length of an RSA key that is too short (NIST SP 800-131A).
fn weak_rsa(der: &CertificateDer<'_>) -> Option<usize> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    match parsed.public_key().parsed().ok()? {
        PublicKey::RSA(key) => Some(key.key_size()).filter(|bits| *bits < 2048),
        _ => None,
    }
}

/// PEM that is read all the same.
pub(crate) fn oddly_written(text: &Secret, from: &Sourced<Input>, what: &str, subject: &str) -> Option<Finding> {
    let odd = pem::oddities(text);
    (!odd.is_empty()).then(|| Finding {
        code: "TLS-PEM-TIDIED",
        severity: Severity::Info,
        origin: from.origin.to_string(),
        subject: subject.to_owned(),
        message: format!(
            "the {what}'s text {}; it is read all the same, and other programs may refuse it",
            odd.join(", ")
        ),
        fix: "write it as it came from its CA: PEM with plain line ends (LF)".to_owned(),
    })
}

pub(crate) fn unused_passphrase(origin: &Origin, subject: &str) -> Finding {
    Finding {
        code: "TLS-PASSPHRASE-UNUSED",
        severity: Severity::Info,
        origin: origin.to_string(),
        subject: subject.to_owned(),
        message: "there is a passphrase, and the key is not encrypted".to_owned(),
        fix: "take it away, or encrypt the key: `openssl pkcs8 -topk8 -v2 aes-256-cbc -in KEY -out NEW`".to_owned(),
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

/// PostgreSQL's rule for key files: this user's or root's, and 0600, or 0640 where root owns it; and a mounted secret,
/// which nobody can change, is worth a word only.
pub(crate) fn key_file(path: &Path, origin: &Origin) -> Vec<Finding> {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = std::fs::metadata(path) else { return Vec::new() };
    if !metadata.is_file() {
        return Vec::new();
    }
    // Kubernetes and Docker mount secrets from memory or read-only, with a mode of their own.
    let mounted =
        path.parent().is_some_and(|folder| folder.join("..data").exists()) || path.starts_with("/run/secrets");
    let finding = |code, message: String, fix: String| Finding {
        code,
        severity: if mounted { Severity::Info } else { Severity::Warning },
        origin: origin.to_string(),
        subject: path.display().to_string(),
        message,
        fix,
    };
    let mut found = Vec::new();
    let (owner, file) = (metadata.uid(), pem::quoted(&path.display().to_string()));
    let me = nix::unistd::geteuid().as_raw();
    if owner != 0 && owner != me {
        found.push(finding(
            "TLS-KEY-OWNER",
            format!("the key file belongs to another user (uid {owner}), who may read and change it"),
            format!("give it to this one: `chown {me} {file}`"),
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
