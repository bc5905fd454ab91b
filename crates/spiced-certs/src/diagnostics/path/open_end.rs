//! A chain whose topmost issuer is not available: it is either a root that clients have, or missing.

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

use super::fault::{Fault, Verified};
use super::trust::{Roots, organisation};
use crate::diagnostics::compatibility::Clients;
use crate::diagnostics::facts::{Facts, Signed};

/// Handles a chain whose topmost issuer is not available: it is either a root that clients have, or missing.
pub(super) fn unknown_issuer(path: &[&Facts<'_>], roots: &Roots, hints: &[CertificateDer<'_>], found: &mut Verified) {
    let top = path[path.len() - 1];
    let issuer = match top.x509.issuer().to_string() {
        empty if empty.is_empty() => "(no name)".to_owned(),
        text => text,
    };
    let why = if roots.are_given() {
        Some("none of the certificates of --ca issued it".to_owned())
    } else {
        missing_because(top, hints, roots)
    };
    let Some(why) = why else {
        let who = if path.len() == 1 { "the certificate" } else { "the topmost intermediate" };
        found.taken_for_root = Some(format!(
            "whether clients trust the issuer of {who} ({issuer}): its certificate is not available, and it is assumed \
             to be a root that they have; --ca FILE checks it"
        ));
        return;
    };
    // Some clients trust a certificate directly, regardless of its issuer.
    let by_itself = Clients::CURL.or(Clients::GRPCIO).or(Clients::GO).or(Clients::JAVA);
    let is_pinned = roots.are_given() && roots.holds(path[0]);
    let urls = top.issuer_urls();
    let fetch = urls.first().map(|url| format!("; its CA publishes it at {url}")).unwrap_or_default();
    found.faults.push(Fault {
        code: "TLS-INTERMEDIATE-MISSING",
        refused_by: if is_pinned { Clients::ALL.without(by_itself) } else { Clients::ALL },
        message: format!("the certificate of the issuer ({issuer}) is missing: {why}; clients cannot build the chain"),
        fix: format!(
            "append the issuer's certificate to the file (fullchain.pem instead of cert.pem){fetch}; if the issuer is \
             a root that clients trust, --ca FILE confirms it"
        ),
    });
}

/// Returns the evidence that the issuer of `top` is an intermediate, and not a root that issued it directly.
fn missing_because(top: &Facts<'_>, hints: &[CertificateDer<'_>], roots: &Roots) -> Option<String> {
    let signed = |hint: &CertificateDer<'_>| {
        Facts::of(hint).is_some_and(|hint| {
            top.names_as_issuer(&hint) && !hint.is_self_issued() && top.signed_by(&hint) == Signed::Yes
        })
    };
    if hints.iter().any(signed) {
        return Some("it is an intermediate, which was presented before".to_owned());
    }
    if top.is_public() {
        return Some("it is a public CA's, whose roots issue no certificate directly".to_owned());
    }
    let above = top.authority_key().and_then(|id| id.authority_cert_issuer);
    let names_another = above
        .iter()
        .flatten()
        .any(|name| matches!(name, GeneralName::DirectoryName(name) if name.as_raw() != top.x509.issuer().as_raw()));
    if names_another {
        return Some("the certificate says who issued it in turn (authorityKeyIdentifier)".to_owned());
    }
    if let Some(name) = organisation(top.x509.issuer()).filter(|name| is_public_ca(name) || roots.are_of(name)) {
        return Some(format!("{name} is a public CA, and this is not one of its roots"));
    }
    if !top.issuer_urls().is_empty() {
        return Some("the certificate says where it can be downloaded (authorityInfoAccess)".to_owned());
    }
    let common = top.x509.issuer().iter_common_name().find_map(|name| name.as_str().ok().map(str::to_ascii_lowercase));
    let words = ["issuing", "intermediate", "subordinate", "sub ca", "subca", "sub-ca"];
    common
        .filter(|name| words.iter().any(|word| name.contains(word)))
        .map(|_| "by its name it is an intermediate".to_owned())
}

/// Returns true for public CAs whose intermediates do not bear the organisation name of their roots.
fn is_public_ca(organisation: &str) -> bool {
    const NAMES: [&str; 14] = [
        "Let's Encrypt",
        "ZeroSSL",
        "ZeroSSL GmbH",
        "Google Trust Services",
        "Google Trust Services LLC",
        "Amazon",
        "DigiCert Inc",
        "DigiCert, Inc.",
        "Sectigo Limited",
        "GlobalSign nv-sa",
        "GoDaddy.com, Inc.",
        "SSL Corporation",
        "Buypass AS-983163327",
        "Microsoft Corporation",
    ];
    NAMES.contains(&organisation)
}
