//! Which clients would take a certificate, once they trust its CA.

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use tls_core::{CertificateSummary, Identity};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::diagnose::{Finding, LeafKey, MOST_DAYS, Severity, has_weak_signature, intermediates};

/// What differs between clients, and between certificates.
pub(crate) struct Traits {
    /// In date, with a usage that allows a server, and signed well.
    sound: bool,
    /// It is for the names that are asked for, where RFC 9525 wants them.
    named: bool,
    /// Or in the common name, where it has no others.
    named_in_subject: bool,
    is_ca: bool,
    unusual_key: bool,
    long: bool,
}

/// Whether a client takes what has these traits.
pub(crate) type Takes = fn(&Traits) -> bool;

pub(crate) const CLIENTS: [(&str, Takes); 7] = [
    // Without a SAN, OpenSSL, curl and gRPC's core look at the common name.
    ("curl", |t| t.sound && (t.named || t.named_in_subject)),
    ("openssl", |t| t.sound && (t.named || t.named_in_subject)),
    ("go", |t| t.sound && t.named),
    ("java", |t| t.sound && (t.named || t.named_in_subject)),
    ("grpcio", |t| t.sound && (t.named || t.named_in_subject) && !t.unusual_key),
    ("browsers", |t| t.sound && t.named && !t.is_ca && !t.unusual_key && !t.long),
    ("rustls", |t| t.sound && t.named && !t.is_ca),
];

/// Says for each client whether it would take `identity` at the time `now`, for each of `names`.
pub(crate) fn accepted_by(identity: &Identity, names: &[String], now: SystemTime) -> Vec<(&'static str, bool)> {
    chain_accepted_by(&identity.certified_key().cert, identity.leaf(), names, now)
}

/// The same of a chain, whoever presents it.
pub(crate) fn chain_accepted_by(
    chain: &[CertificateDer<'_>],
    leaf: &CertificateSummary,
    names: &[String],
    now: SystemTime,
) -> Vec<(&'static str, bool)> {
    let parsed = X509Certificate::from_der(&chain[0]).map(|(_, parsed)| parsed).ok();
    let usage = parsed.as_ref().and_then(|parsed| parsed.extended_key_usage().ok().flatten().map(|e| e.value));
    let subject = parsed.as_ref().map(|parsed| parsed.subject().iter_common_name());
    let common: Vec<String> =
        subject.into_iter().flatten().filter_map(|name| name.as_str().ok().map(str::to_owned)).collect();
    let traits = Traits {
        sound: leaf.validity(now).is_in_date()
            && intermediates(chain).iter().all(|one| one.validity(now).is_in_date())
            && usage.is_none_or(|usage| usage.server_auth || usage.any)
            && !chain.iter().any(|der| has_weak_signature(der)),
        named: !leaf.names.is_empty() && names.iter().all(|name| covers(&leaf.names, name)),
        named_in_subject: leaf.names.is_empty() && names.iter().all(|name| covers(&common, name)),
        is_ca: parsed.as_ref().is_some_and(|parsed| parsed.is_ca()),
        unusual_key: parsed.as_ref().is_some_and(|parsed| LeafKey::of(parsed) != LeafKey::Usual),
        long: leaf.not_after - leaf.not_before > MOST_DAYS * 86_400,
    };
    CLIENTS.iter().map(|(client, takes)| (*client, takes(&traits))).collect()
}

/// What is to be said of names that a certificate should have and has not.
pub(crate) fn missing_names(identity: &Identity, names: &[String]) -> Vec<Finding> {
    names_missing(identity.leaf(), &identity.certificate_origin().to_string(), names)
}

pub(crate) fn names_missing(leaf: &CertificateSummary, origin: &str, names: &[String]) -> Vec<Finding> {
    let missing = |name: &&String| !covers(&leaf.names, name);
    let finding = |name: &String| Finding {
        code: "TLS-NAME-NOT-COVERED",
        severity: Severity::Error,
        origin: origin.to_owned(),
        subject: leaf.subject.clone(),
        message: format!("the certificate is not for {name}; it is for {}", leaf.names.join(", ")),
        fix: format!("have it issued with subjectAltName={name} among its names"),
    };
    names.iter().filter(missing).map(finding).collect()
}

/// Whether one of `names` is `name`: exactly, or by a wildcard in the place of the first label (RFC 9525 §6.3).
fn covers(names: &[String], name: &str) -> bool {
    let fits = |pattern: &String| {
        pattern.eq_ignore_ascii_case(name)
            || pattern.strip_prefix("*.").is_some_and(|parent| {
                name.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent))
            })
    };
    names.iter().any(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_wildcards() {
        let names = ["db.example.com", "*.apps.example.com", "10.0.0.1"].map(str::to_owned);
        for good in ["db.example.com", "DB.example.com", "a.apps.example.com", "10.0.0.1"] {
            assert!(covers(&names, good), "{good}");
        }
        for bad in ["example.com", "a.b.apps.example.com", "apps.example.com", ".apps.example.com", "10.0.0.2"] {
            assert!(!covers(&names, bad), "{bad}");
        }
    }
}
