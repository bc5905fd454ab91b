//! The doctor: what is wrong with a certificate that serves all the same, with a stable code, a
//! sentence and a fix.

use std::path::Path;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use serde::Serialize;
use tls_core::{CertificateSummary, Identity, Origin, Validity};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::trust;

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

/// What is to be said of how long a certificate is still good; nothing where it is for 30 days or more.
pub fn ending(certificate: &CertificateSummary, origin: &str, now: SystemTime) -> Vec<Finding> {
    let mut found = Vec::new();
    validity(certificate, now, &mut |code, severity, message, fix| {
        let (origin, subject) = (origin.to_owned(), certificate.subject.clone());
        found.push(Finding { code, severity, origin, subject, message, fix: fix.to_owned() });
    });
    found
}

/// What is to be said of an identity at the time `now`. `reordered`: its chain was out of order.
pub(crate) fn identity(identity: &Identity, reordered: bool, now: SystemTime) -> Vec<Finding> {
    let origin = identity.certificate_origin().to_string();
    chain(&identity.certified_key().cert, identity.leaf(), origin, reordered, now)
}

/// What is to be said of a chain, whoever presents it.
pub(crate) fn chain(
    chain: &[CertificateDer<'_>],
    leaf: &CertificateSummary,
    origin: String,
    reordered: bool,
    now: SystemTime,
) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut say = |code, severity, message: String, fix: &str| {
        let (origin, subject) = (origin.clone(), leaf.subject.clone());
        found.push(Finding { code, severity, origin, subject, message, fix: fix.to_owned() });
    };
    validity(leaf, now, &mut say);
    if reordered {
        say(
            "TLS-CHAIN-ORDER",
            Severity::Warning,
            "the chain is not in order; it is served in the right one".to_owned(),
            "put the server's certificate first, then each intermediate after the one it signed",
        );
    }
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
    let last = chain.last().filter(|_| chain.len() > 1).and_then(|der| CertificateSummary::read(der).ok());
    if let Some(root) = last.filter(|last| last.self_signed) {
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
        && let Some(severity) = intermediate_missing(&chain[0], now)
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
fn intermediate_missing(leaf: &CertificateDer<'_>, now: SystemTime) -> Option<Severity> {
    let roots = trust::system_roots();
    match trust::verified(leaf, &[], &roots, now) {
        // A root of the store signed it itself.
        Ok(()) => None,
        Err(webpki::Error::UnknownIssuer) => {
            let organisation = |der: &CertificateDer<'_>, issuer: bool| {
                let (_, parsed) = X509Certificate::from_der(der).ok()?;
                let name = if issuer { parsed.issuer() } else { parsed.subject() };
                let text = name.iter_organization().next()?.as_str().ok()?.to_owned();
                Some(text)
            };
            let issuer = organisation(leaf, true);
            let public = issuer.is_some() && roots.iter().any(|root| organisation(root, false) == issuer);
            Some(if public { Severity::Warning } else { Severity::Info })
        }
        Err(_) => None,
    }
}

fn validity(leaf: &CertificateSummary, now: SystemTime, say: &mut impl FnMut(&'static str, Severity, String, &str)) {
    let renew = "renew it in its place; a new one serves by itself";
    let left = leaf.seconds_left(now);
    let ends = format!("the certificate ends in {}", span(left, ""));
    match leaf.validity(now) {
        Validity::Valid => {}
        Validity::EndsWithin30Days => say("TLS-ENDS-SOON", Severity::Warning, ends, renew),
        Validity::EndsWithin7Days => say("TLS-ENDS-SOON", Severity::Error, ends, renew),
        Validity::Expired => {
            say("TLS-EXPIRED", Severity::Error, format!("the certificate expired {}", span(-left, "ago")), renew);
        }
        Validity::NotYet { starts_in } => {
            let message = format!("the certificate is not valid yet: it starts in {}", span(starts_in, ""));
            say("TLS-NOT-YET-VALID", Severity::Error, message, "check this machine's clock, or wait");
        }
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

/// PostgreSQL's rule for key files: 0600, or 0640 where root owns it; and a mounted secret, which
/// nobody can change, is worth a word only.
pub(crate) fn key_file(path: &Path, origin: &Origin) -> Option<Finding> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    let mode = metadata.mode() & 0o777;
    let allowed = if metadata.uid() == 0 { 0o640 } else { 0o600 };
    if !metadata.is_file() || mode & !(allowed | 0o100) == 0 {
        return None;
    }
    // Kubernetes and Docker mount secrets from memory or read-only, with a mode of their own.
    let mounted =
        path.parent().is_some_and(|folder| folder.join("..data").exists()) || path.starts_with("/run/secrets");
    let severity = if mounted { Severity::Info } else { Severity::Warning };
    Some(Finding {
        code: "TLS-KEY-PERMISSIONS",
        severity,
        origin: origin.to_string(),
        subject: path.display().to_string(),
        message: format!("the key file has mode {mode:04o}: others on this machine may read it"),
        fix: if mounted {
            "set defaultMode: 0400 on the volume".to_owned()
        } else {
            format!("chmod 600 {}", path.display())
        },
    })
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
            let mut said = Vec::new();
            validity(&leaf, now, &mut |code, severity, message, _| said.push((code, severity, message)));
            said.pop()
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
