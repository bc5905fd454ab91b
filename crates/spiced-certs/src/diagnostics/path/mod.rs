//! Verifies a chain as clients do, from the leaf through the presented certificates up to the topmost issuer: every
//! signature, CA flag, path length, name constraint and usage. Each fault lists the clients that refuse the chain for
//! it.

pub(crate) mod order;
pub(crate) mod trust;

pub(crate) use order::{Leaf, Writing, order};

use std::net::IpAddr;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Name;

use crate::diagnostics::compatibility::Clients;
use crate::diagnostics::facts::{Facts, Hash, Signed};
use crate::diagnostics::path::trust::{Roots, organisation};

/// A fault in a chain.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) code: &'static str,
    pub(crate) refused_by: Clients,
    pub(crate) message: String,
    pub(crate) fix: String,
}

/// The result of a verification.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    pub(crate) faults: Vec<Fault>,
    /// What could not be checked, one sentence each.
    pub(crate) unchecked: Vec<String>,
    /// The subject of the root that the chain leads to, if it is part of the chain.
    pub(crate) root_sent: Option<String>,
    /// The topmost certificate, if its issuer's certificate is not available.
    pub(crate) open_end: Option<CertificateDer<'static>>,
    /// A sentence stating the assumption that its issuer is a root that clients have, if nothing contradicts it.
    pub(crate) taken_for_root: Option<String>,
}

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

/// Finds the faults for which `issuer` cannot issue `child`, with `below` intermediates between `issuer` and the leaf.
fn issuer_faults(
    issuer: &Facts<'_>,
    child: &Facts<'_>,
    child_is_leaf: bool,
    below: usize,
    is_root: bool,
    found: &mut Verified,
) {
    let (name, below_name) = (issuer.subject(), child.subject());
    let again = || "have the certificate issued by a CA that may issue it, and replace the whole file".to_owned();
    let mut fault = |code, refused_by, message: String, fix: String| {
        found.faults.push(Fault { code, refused_by, message, fix });
    };
    // A version 1 root is a CA only because clients trust it.
    let is_ca = issuer.is_ca() || is_root && issuer.is_v1();
    if !is_ca {
        fault(
            "TLS-ISSUER-NOT-CA",
            Clients::ALL,
            format!("{name}, which issued {below_name}, is not a CA (basicConstraints does not say CA:TRUE)"),
            again(),
        );
    }
    if issuer.key_usage().is_some_and(|usage| !usage.key_cert_sign()) {
        fault(
            "TLS-ISSUER-KEY-USAGE",
            Clients::ALL,
            format!("{name}, which issued {below_name}, may not sign certificates (keyUsage lacks keyCertSign)"),
            again(),
        );
    }
    if let Some(most) = issuer.path_length().filter(|most| below > *most as usize) {
        let of_root = Clients::ALL.without(Clients::JAVA).without(Clients::GRPCIO).without(Clients::RUSTLS);
        fault(
            "TLS-PATH-LENGTH",
            if is_root { of_root } else { Clients::ALL },
            format!("{name} allows {most} intermediates below it (pathLenConstraint), and there are {below}"),
            again(),
        );
    }
    if let Some(usage) = issuer.extended_key_usage().filter(|usage| !usage.server_auth) {
        // Java, BoringSSL and webpki do not look at the usage of a root.
        let all = if is_root { Clients::LIBSSL.or(Clients::GO) } else { Clients::ALL.without(Clients::JAVA) };
        fault(
            "TLS-ISSUER-USAGE",
            if usage.any { all.without(Clients::GO) } else { all },
            format!("{name} may not issue certificates for servers (extendedKeyUsage lacks serverAuth)"),
            again(),
        );
    }
    if let Some(oid) = issuer.unknown_critical() {
        fault(
            "TLS-CRITICAL-EXTENSION",
            Clients::ALL,
            format!("{name} has a critical extension that clients do not know ({oid})"),
            again(),
        );
    }
    // Without a policy in the certificate, a CA that requires one makes the clients refuse that check policies.
    let requires_policy = issuer.has_critical(POLICY_CONSTRAINTS) && !child.has_extension(CERTIFICATE_POLICIES);
    for (applies, extension, refused_by) in [
        (requires_policy, "policyConstraints", Clients::GO.or(Clients::JAVA).or(Clients::GRPCIO).or(Clients::RUSTLS)),
        (issuer.has_critical(INHIBIT_ANY_POLICY), "inhibitAnyPolicy", Clients::GO.or(Clients::RUSTLS)),
    ] {
        if applies && !is_root {
            fault(
                "TLS-CRITICAL-EXTENSION",
                refused_by,
                format!("{name} has the critical extension {extension}: {} what it issues", refused_by.refuse()),
                again(),
            );
        }
    }
    if let Some(id) = child.authority_key() {
        let names_key = id.key_identifier.as_ref().zip(issuer.subject_key()).is_some_and(|(id, key)| id.0 != key);
        let names_serial = id.authority_cert_serial.is_some_and(|serial| serial != issuer.x509.raw_serial());
        let refused = match (names_key, names_serial) {
            (true, _) if !child_is_leaf => Clients::LIBSSL.or(Clients::GRPCIO).or(Clients::JAVA),
            (true, _) | (_, true) => Clients::LIBSSL.or(Clients::GRPCIO),
            _ => Clients::NONE,
        };
        if !refused.is_empty() {
            fault(
                "TLS-ISSUER-KEY-ID",
                refused,
                format!(
                    "{below_name} names another certificate as its issuer's than that of {name} \
                     (authorityKeyIdentifier)"
                ),
                "replace the intermediate with the one that the CA delivered with the certificate".to_owned(),
            );
        }
    }
    if issuer.rsa_bits().is_some_and(|bits| bits < 2048) {
        fault(
            "TLS-WEAK-KEY",
            Clients::LIBSSL.or(Clients::RUSTLS).or(Clients::BROWSERS),
            format!("{name}, which issued {below_name}, has a key that is too short: {}", issuer.key()),
            "have the certificate issued by a CA with a P-256 key, or RSA of 2048 bits or more".to_owned(),
        );
    }
    if issuer.key().starts_with("Ed") {
        fault(
            "TLS-UNUSUAL-KEY",
            Clients::BROWSERS,
            format!("{name}, which issued {below_name}, has a key that browsers do not know: {}", issuer.key()),
            "have the certificate issued by a CA with a P-256 or an RSA key".to_owned(),
        );
    }
}

/// Finds the clients that refuse `leaf` because of the name constraints of `issuer` (RFC 5280 §4.2.1.10).
fn names_outside(issuer: &Facts<'_>, leaf: &Facts<'_>, found: &mut Verified) {
    let Some((constraints, critical)) = issuer.name_constraints() else { return };
    let bases = |subtrees: &'_ Option<Vec<x509_parser::extensions::GeneralSubtree<'_>>>| -> Vec<Base> {
        subtrees.iter().flatten().filter_map(|subtree| Base::of(&subtree.base)).collect()
    };
    let (permitted, excluded) = (bases(&constraints.permitted_subtrees), bases(&constraints.excluded_subtrees));
    let names = leaf.names();
    let mut dns = names.dns.clone();
    if dns.is_empty() {
        dns.extend(names.common.iter().filter(|name| name.contains('.') && !name.contains(' ')).cloned());
    }
    let subject = rdns(leaf.x509.subject());
    let mut presented: Vec<(String, Presented<'_>)> =
        dns.iter().map(|name| (name.clone(), Presented::Dns(name))).collect();
    presented.extend(names.addresses.iter().map(|ip| (ip.to_string(), Presented::Address(*ip))));
    let others = leaf.other_names();
    presented.extend(others.mails.iter().map(|mail| ((*mail).to_owned(), Presented::Mail(mail))));
    presented.extend(others.uris.iter().map(|uri| ((*uri).to_owned(), Presented::Uri(uri))));
    if !subject.is_empty() {
        presented.push((leaf.subject(), Presented::Directory(&subject)));
    }
    let is_outside = |presented: &Presented<'_>| {
        let of_kind = |base: &&Base| base.is_kind_of(presented);
        let mut kind = permitted.iter().filter(of_kind).peekable();
        let lacks = kind.peek().is_some() && !kind.any(|base| base.holds(presented));
        lacks || excluded.iter().filter(of_kind).any(|base| base.holds(presented))
    };
    let outside: Vec<&str> =
        presented.iter().filter(|(_, one)| is_outside(one)).map(|(name, _)| name.as_str()).collect();
    if !outside.is_empty() {
        // Java knows only the name and the key of a trusted root.
        let refused = if issuer.is_self_signed() { Clients::ALL.without(Clients::JAVA) } else { Clients::ALL };
        found.faults.push(Fault {
            code: "TLS-NAME-CONSTRAINTS",
            refused_by: refused,
            message: format!(
                "{} may not issue certificates for {} (name constraints)",
                issuer.subject(),
                outside.join(", ")
            ),
            fix: "have it issued for names that this CA may issue for, or by another CA".to_owned(),
        });
        return;
    }
    let any = |wanted: fn(&Base) -> bool| permitted.iter().chain(&excluded).any(wanted);
    let mut refused = Clients::NONE;
    if !names.addresses.is_empty() && any(|base| matches!(base, Base::Address(..))) {
        refused = refused.or(Clients::GRPCIO);
    }
    // Java treats the common name as a host name if there is no DNS name, and cannot parse an empty base.
    let is_common = |name: &&String| dns.is_empty() && !name.is_empty() && !name.contains([' ', '.']);
    if names.common.iter().filter(is_common).any(|name| is_outside(&Presented::Dns(name)))
        || any(|base| matches!(base, Base::Dns(name) if name.is_empty()))
    {
        refused = refused.or(Clients::JAVA);
    }
    if critical && any(|base| matches!(base, Base::Directory(_) | Base::Other)) {
        refused = refused.or(Clients::GO);
    }
    if !refused.is_empty() {
        found.faults.push(Fault {
            code: "TLS-NAME-CONSTRAINTS",
            refused_by: refused,
            message: format!(
                "{} has name constraints of a kind that {} cannot check",
                issuer.subject(),
                refused.listed()
            ),
            fix: "have it issued by a CA that is constrained only to DNS names".to_owned(),
        });
    }
}

enum Presented<'a> {
    Dns(&'a str),
    Mail(&'a str),
    Uri(&'a str),
    Address(IpAddr),
    Directory(&'a [Vec<u8>]),
}

/// The base of a subtree.
enum Base {
    Dns(String),
    Mail(String),
    Uri(String),
    Address(Vec<u8>, Vec<u8>),
    Directory(Vec<Vec<u8>>),
    /// A kind that no name of a server has.
    Other,
}

impl Base {
    fn of(name: &GeneralName<'_>) -> Option<Self> {
        match name {
            GeneralName::DNSName(name) => Some(Self::Dns(name.to_ascii_lowercase())),
            GeneralName::RFC822Name(name) => Some(Self::Mail(name.to_ascii_lowercase())),
            GeneralName::URI(host) => Some(Self::Uri(host.to_ascii_lowercase())),
            GeneralName::IPAddress(bytes) if [8, 32].contains(&bytes.len()) => {
                let (address, mask) = bytes.split_at(bytes.len() / 2);
                Some(Self::Address(address.to_vec(), mask.to_vec()))
            }
            GeneralName::DirectoryName(name) => Some(Self::Directory(rdns(name))),
            GeneralName::IPAddress(_) => None,
            _ => Some(Self::Other),
        }
    }

    fn is_kind_of(&self, presented: &Presented<'_>) -> bool {
        matches!(
            (self, presented),
            (Self::Dns(_), Presented::Dns(_))
                | (Self::Mail(_), Presented::Mail(_))
                | (Self::Uri(_), Presented::Uri(_))
                | (Self::Address(..), Presented::Address(_))
                | (Self::Directory(_), Presented::Directory(_))
        )
    }

    fn holds(&self, presented: &Presented<'_>) -> bool {
        match (self, presented) {
            (Self::Dns(base), Presented::Dns(name)) => {
                let name = name.trim_start_matches("*.").to_ascii_lowercase();
                // A base with a leading dot matches only the names below it.
                base.is_empty()
                    || name == *base
                    || name.strip_suffix(base.as_str()).is_some_and(|rest| rest.ends_with('.') || base.starts_with('.'))
            }
            (Self::Mail(base), Presented::Mail(name)) => {
                let name = name.to_ascii_lowercase();
                base.contains('@') && name == *base || !base.contains('@') && is_host_in(&name, base)
            }
            (Self::Uri(base), Presented::Uri(uri)) => is_host_in(&host_of(uri), base),
            (Self::Address(base, mask), Presented::Address(ip)) => {
                let bytes = match ip {
                    IpAddr::V4(ip) => ip.octets().to_vec(),
                    IpAddr::V6(ip) => ip.octets().to_vec(),
                };
                bytes.len() == base.len() && bytes.iter().zip(base).zip(mask).all(|((a, b), mask)| a & mask == b & mask)
            }
            (Self::Directory(base), Presented::Directory(name)) => name.starts_with(base),
            _ => false,
        }
    }
}

/// Returns true if the host of a mail address or a URI is `base`, or below it if `base` begins with a dot (RFC 5280
/// §4.2.1.10).
fn is_host_in(name: &str, base: &str) -> bool {
    let host = name.rsplit('@').next().unwrap_or_default();
    base.is_empty() || host == base || base.starts_with('.') && host.ends_with(base)
}

/// Returns the host of a URI, without user and port.
fn host_of(uri: &str) -> String {
    let rest = uri.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    host.split(':').next().unwrap_or_default().to_ascii_lowercase()
}

/// Returns the relative distinguished names of a name, in a form that can be compared.
fn rdns(name: &X509Name<'_>) -> Vec<Vec<u8>> {
    name.iter_rdn()
        .map(|rdn| {
            rdn.iter()
                .flat_map(|one| {
                    let mut bytes = one.attr_type().as_bytes().to_vec();
                    bytes.extend(one.as_str().map_or_else(|_| one.as_slice().to_vec(), |s| s.to_lowercase().into()));
                    bytes
                })
                .collect()
        })
        .collect()
}

fn expired_root(root: &Facts<'_>, now: SystemTime, found: &mut Verified) {
    let at = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    if root.x509.validity().not_after.timestamp() < at {
        found.faults.push(Fault {
            code: "TLS-ROOT-EXPIRED",
            refused_by: Clients::ALL.without(Clients::JAVA).without(Clients::RUSTLS),
            message: format!("the root {} has expired", root.subject()),
            fix: "have the certificate issued by a CA whose root is in date, and have clients trust that".to_owned(),
        });
    }
}

/// Reports a presented root that clients with the given roots do not trust.
fn not_the_given(root: &Facts<'_>, roots: &Roots, found: &mut Verified) {
    if roots.are_given() && !roots.holds(root) {
        found.faults.push(Fault {
            code: "TLS-OTHER-CA",
            refused_by: Clients::ALL,
            message: format!("the chain leads to {}, which is not among the certificates of --ca", root.subject()),
            fix: "give clients that root, or have the certificate issued by the CA that they trust".to_owned(),
        });
    }
}

/// Handles a chain whose topmost issuer is not available: it is either a root that clients have, or missing.
fn unknown_issuer(path: &[&Facts<'_>], roots: &Roots, hints: &[CertificateDer<'_>], found: &mut Verified) {
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

/// Finds faults in how a certificate of the path is signed. No client verifies a root's own signature.
fn signature_faults(one: &Facts<'_>, found: &mut Verified) {
    if one.is_self_issued() {
        return;
    }
    let (hash, refused) = match one.hash() {
        Hash::Good => return,
        Hash::Md5 => ("MD5", Clients::ALL),
        Hash::Sha1 => ("SHA-1", Clients::ALL.without(Clients::JAVA).without(Clients::GRPCIO)),
        Hash::Sha224 => ("SHA-224", Clients::GO.or(Clients::RUSTLS).or(Clients::BROWSERS)),
    };
    found.faults.push(Fault {
        code: "TLS-WEAK-SIGNATURE",
        refused_by: refused,
        message: format!("{} is signed with {hash}: {} it", one.subject(), refused.refuse()),
        fix: "have it issued again, signed with SHA-256".to_owned(),
    });
}

/// Returns why a client that applies RFC 5280 §4.2.1 strictly refuses the certificate.
fn strict_fault(one: &Facts<'_>) -> Option<String> {
    let name = one.subject();
    if one.is_v1() {
        return None;
    }
    if !one.is_self_issued() && one.authority_key().and_then(|id| id.key_identifier).is_none() {
        return Some(format!("{name} does not name its issuer's key (authorityKeyIdentifier)"));
    }
    if one.is_ca() && one.subject_key().is_none() {
        return Some(format!("{name} is a CA's and has no key identifier (subjectKeyIdentifier)"));
    }
    if one.is_ca() && one.key_usage().is_none() {
        return Some(format!("{name} is a CA's and has no key usage"));
    }
    None
}

const CERTIFICATE_POLICIES: &str = "2.5.29.32";
const POLICY_CONSTRAINTS: &str = "2.5.29.36";
const INHIBIT_ANY_POLICY: &str = "2.5.29.54";

/// Extensions that some clients do not support, and refuse if they are critical.
const CRITICAL: [(&str, &str, Clients); 7] = [
    ("1.3.6.1.5.5.7.1.1", "authorityInfoAccess", Clients::ALL.without(Clients::GO)),
    ("2.5.29.18", "issuerAltName", Clients::ALL),
    ("2.5.29.31", "cRLDistributionPoints", Clients::GRPCIO.or(Clients::JAVA)),
    (CERTIFICATE_POLICIES, "certificatePolicies", Clients::RUSTLS),
    (POLICY_CONSTRAINTS, "policyConstraints", Clients::RUSTLS),
    (INHIBIT_ANY_POLICY, "inhibitAnyPolicy", Clients::RUSTLS),
    ("2.16.840.1.113730.1.1", "netscapeCertType", Clients::RUSTLS),
];

fn leaf_faults(leaf: &Facts<'_>, found: &mut Verified) {
    let mut fault = |code, refused_by: Clients, message: String, fix: &str| {
        found.faults.push(Fault { code, refused_by, message, fix: fix.to_owned() });
    };
    if leaf.is_v1() {
        fault(
            "TLS-X509-V1",
            Clients::GO.or(Clients::RUSTLS).or(Clients::BROWSERS),
            "the certificate is X.509 version 1, which has no subject alternative names: Go, browsers and rustls \
             refuse it; `openssl x509 -req` makes one without -extfile"
                .to_owned(),
            "have it issued again, with extensions: openssl x509 -req -extfile FILE",
        );
    }
    if leaf.is_ca() {
        fault(
            "TLS-LEAF-IS-CA",
            Clients::RUSTLS.or(Clients::BROWSERS),
            "the certificate is a CA's: rustls and browsers refuse it as a server's".to_owned(),
            "sign a server certificate with it, or make one with -addext basicConstraints=CA:FALSE",
        );
    }
    if let Some(usage) = leaf.extended_key_usage().filter(|usage| !usage.server_auth) {
        // Netscape's Server Gated Crypto, from the 1990s.
        let is_gated_crypto = usage.other.iter().any(|oid| oid.to_id_string() == "2.16.840.1.113730.4.1");
        let refused = match usage.any {
            _ if is_gated_crypto => Clients::ALL.without(Clients::LIBSSL).without(Clients::JAVA),
            true => Clients::ALL.without(Clients::GO).without(Clients::JAVA),
            false => Clients::ALL,
        };
        fault(
            "TLS-NO-SERVER-AUTH",
            refused,
            format!("the certificate's extended key usage leaves out server authentication: {} it", refused.refuse()),
            "have it issued with extendedKeyUsage=serverAuth",
        );
    }
    if let Some(usage) = leaf.key_usage().filter(|usage| !usage.digital_signature()) {
        let refused = Clients::JAVA.or(Clients::GRPCIO).or(Clients::BROWSERS);
        let refused = match usage.key_encipherment() || usage.key_agreement() {
            true => refused,
            false => refused.or(Clients::LIBSSL),
        };
        fault(
            "TLS-KEY-USAGE",
            refused,
            format!("the certificate's key usage leaves out digitalSignature: {} it", refused.refuse()),
            "have it issued with keyUsage=digitalSignature",
        );
    }
    if let Some(oid) = leaf.unknown_critical() {
        fault(
            "TLS-CRITICAL-EXTENSION",
            Clients::ALL,
            format!("the certificate has a critical extension that clients do not know ({oid})"),
            "have it issued without that extension, or with the extension not critical",
        );
    }
    for (oid, name, refused_by) in CRITICAL {
        if leaf.has_critical(oid) {
            fault(
                "TLS-CRITICAL-EXTENSION",
                refused_by,
                format!("the certificate's extension {name} is critical: {} it", refused_by.refuse()),
                "have it issued with that extension not critical",
            );
        }
    }
    let key = leaf.key();
    if ["Ed25519", "ECDSA on P-521"].contains(&key.as_str()) {
        fault(
            "TLS-UNUSUAL-KEY",
            Clients::GRPCIO.or(Clients::BROWSERS),
            format!("the key is {key}: browsers and grpcio (BoringSSL) refuse it"),
            "have it issued for a P-256 or an RSA key",
        );
    }
    if leaf.rsa_bits().is_some_and(|bits| bits < 2047) {
        fault(
            "TLS-WEAK-KEY",
            Clients::LIBSSL.or(Clients::RUSTLS).or(Clients::BROWSERS),
            format!("the key is too short: {key}"),
            "have it issued for a P-256 key, or RSA of 2048 bits or more",
        );
    }
    if leaf.x509.subject().as_raw().len() <= 2 && !leaf.alternative_names_are_critical() {
        fault(
            "TLS-EMPTY-SUBJECT",
            Clients::JAVA,
            "the certificate has no subject, and its alternative names are not critical: Java refuses it".to_owned(),
            "have it issued with a subject, or with subjectAltName=critical,DNS:NAME",
        );
    }
}
