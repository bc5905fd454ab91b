//! Verifies a chain as clients do, from the leaf through the presented certificates up to the topmost issuer: every
//! signature, CA flag, path length, name constraint and usage. Each fault lists the clients that refuse the chain for
//! it.

mod checks;
mod fault;
mod name_constraints;
mod open_end;
pub(crate) mod order;
pub(crate) mod trust;

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;

use self::checks::{expired_root, issuer_faults, leaf_faults, not_the_given, signature_faults, strict_fault};
use self::fault::Fault;
pub(crate) use self::fault::Verified;
use self::name_constraints::names_outside;
use self::open_end::unknown_issuer;
pub(crate) use self::order::{Leaf, Writing, order};
use self::trust::Roots;
use crate::diagnostics::compatibility::Clients;
use crate::diagnostics::facts::{Facts, Signed};

/// How a path ends.
enum Top<'a> {
    /// With a self-signed certificate of the path.
    SelfSigned,
    /// With a root that clients have: one that was given, or one of this system's.
    Known(Box<Facts<'a>>),
    /// With an issuer whose certificate is not available.
    Unknown,
    /// With an issuer that did not sign the certificate below it.
    Broken,
}

/// Verifies `chain`, the leaf first. `roots` are the roots that clients trust, as far as known. `hints` are
/// certificates that are not presented and may prove that one is missing.
pub(crate) fn verify(
    chain: &[CertificateDer<'_>],
    roots: &Roots,
    hints: &[CertificateDer<'_>],
    now: SystemTime,
) -> Verified {
    let facts: Vec<Facts<'_>> = chain.iter().filter_map(Facts::of).collect();
    let Some(leaf) = facts.first() else { return Verified::default() };
    let mut found = Verified::default();
    let mut path = vec![leaf];
    let top = climb(&facts, &mut path, roots, &mut found);
    let links: Vec<(&Facts<'_>, bool)> = path.iter().skip(1).map(|one| (*one, one.is_self_signed())).collect();
    for (at, (issuer, is_root)) in links.iter().enumerate() {
        let below = path[1..=at].iter().filter(|one| !one.is_self_issued()).count();
        issuer_faults(issuer, path[at], at == 0, below, *is_root, &mut found);
        names_outside(issuer, leaf, &mut found);
    }
    match &top {
        Top::Known(root) => {
            let last = path.len() - 1;
            let below = path[1..].iter().filter(|one| !one.is_self_issued()).count();
            let mut above = Verified::default();
            issuer_faults(root, path[last], last == 0, below, true, &mut above);
            names_outside(root, leaf, &mut above);
            expired_root(root, now, &mut above);
            if roots.are_given() && !root.is_self_signed() && roots.issuer_of(root).is_none() {
                above.faults.push(Fault {
                    code: "TLS-OTHER-CA",
                    refused_by: Clients::OPENSSL.or(Clients::PYTHON),
                    message: format!(
                        "--ca holds the intermediate {}, but not the root above it: OpenSSL and Python accept only a \
                         chain that ends with a root",
                        root.subject()
                    ),
                    fix: "give clients the root's certificate".to_owned(),
                });
            }
            found.faults.append(&mut above.faults);
            let is_root =
                |one: &&Facts<'_>| one.is_self_signed() && one.x509.public_key().raw == root.x509.public_key().raw;
            found.root_sent = facts.iter().skip(1).find(is_root).map(Facts::subject);
        }
        Top::SelfSigned if path.len() > 1 => {
            let root = path[path.len() - 1];
            expired_root(root, now, &mut found);
            found.root_sent = Some(root.subject());
            not_the_given(root, roots, &mut found);
        }
        Top::SelfSigned => not_the_given(leaf, roots, &mut found),
        Top::Unknown => {
            found.open_end = path.last().map(|top| top.der.clone().into_owned());
            unknown_issuer(&path, roots, hints, &mut found);
        }
        Top::Broken => {}
    }
    for one in &path {
        signature_faults(one, &mut found);
    }
    leaf_faults(leaf, &mut found);
    if let Some(reason) = path.iter().find_map(|one| strict_fault(one)) {
        found.unchecked.push(format!(
            "Python 3.13 and later by default, which follows RFC 5280 strictly (VERIFY_X509_STRICT): it refuses the \
             chain, because {reason}"
        ));
    }
    // rustls decides for itself which chains it accepts.
    let anchor = match &top {
        Top::Known(root) => Some(root.der),
        _ if path.len() > 1 => path.last().map(|last| last.der),
        _ => None,
    };
    if let Some(anchor) = anchor
        && !found.faults.iter().any(|fault| Clients::RUSTLS.without(fault.refused_by).is_empty())
        && let Err(reason) = crate::diagnostics::path::trust::verify_to(anchor, leaf.der, &chain[1..], now)
        && !is_about_time(&reason)
    {
        found.faults.push(Fault {
            code: "TLS-CHAIN-REFUSED",
            refused_by: Clients::RUSTLS,
            message: format!("rustls does not accept the chain: {reason}"),
            fix: "have the certificate issued again, as its CA issues it for web servers".to_owned(),
        });
    }
    found
}

fn is_about_time(reason: &webpki::Error) -> bool {
    matches!(reason, webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. })
}

/// Follows the issuers as far as possible and adds them to `path`.
fn climb<'r, 'f>(
    facts: &'f [Facts<'f>],
    path: &mut Vec<&'f Facts<'f>>,
    roots: &'r Roots,
    found: &mut Verified,
) -> Top<'r> {
    loop {
        let child = path[path.len() - 1];
        if child.is_self_signed() {
            return Top::SelfSigned;
        }
        if let Some(root) = roots.issuer_of(child) {
            return Top::Known(Box::new(root));
        }
        let on_path = |one: &&Facts<'_>| path.iter().any(|other| other.der == one.der);
        let named: Vec<&Facts<'_>> = facts.iter().filter(|one| child.names_as_issuer(one) && !on_path(one)).collect();
        let best = named.iter().find(|one| child.signed_by(one) == Signed::Yes);
        let best = best.or_else(|| named.iter().find(|one| child.signed_by(one) == Signed::Unknown));
        match (best, named.first()) {
            (Some(issuer), _) => {
                if child.signed_by(issuer) == Signed::Unknown {
                    found
                        .unchecked
                        .push(format!("the signature of {}: its algorithm is not supported here", child.subject()));
                }
                path.push(issuer);
            }
            (None, Some(impostor)) => {
                let url = child.issuer_urls().first().map(|url| format!(" ({url})")).unwrap_or_default();
                found.faults.push(Fault {
                    code: "TLS-CHAIN-SIGNATURE",
                    refused_by: Clients::ALL,
                    message: format!(
                        "the certificate {} in the file has the name of the issuer of {}, but did not sign it: it has \
                         another key",
                        impostor.subject(),
                        child.subject()
                    ),
                    fix: format!(
                        "replace it with the intermediate that the CA delivered with the certificate{url}: \
                         fullchain.pem, not one of an earlier issue"
                    ),
                });
                return Top::Broken;
            }
            (None, None) => return Top::Unknown,
        }
    }
}
