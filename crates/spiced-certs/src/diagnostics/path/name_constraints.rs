//! Name constraints (RFC 5280 §4.2.1.10): which clients refuse a leaf because of those of an issuer.

use std::net::IpAddr;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Name;

use super::fault::{Fault, Verified};
use crate::diagnostics::compatibility::Clients;
use crate::diagnostics::facts::Facts;

/// Finds the clients that refuse `leaf` because of the name constraints of `issuer` (RFC 5280 §4.2.1.10).
pub(super) fn names_outside(issuer: &Facts<'_>, leaf: &Facts<'_>, found: &mut Verified) {
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
