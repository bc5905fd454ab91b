//! The known clients, and how each one matches the names of a certificate.
//!
//! Every rule was observed in the client itself (`conformance/tls/test_tls_verdicts.py`): curl 7.88 and OpenSSL 3.0,
//! Python's `ssl` with its default context, Go 1.27, OpenJDK 17, grpcio 1.85 (BoringSSL), rustls 0.23, Chromium 156 and
//! Firefox 153 (`browsers` counts as refused if one of them refuses, or Safari by Apple's published rules).

use std::net::IpAddr;

use rustls_pki_types::ServerName;
use serde::ser::{Serialize, Serializer};
use webpki::EndEntityCert;

use crate::diagnostics::facts::{Facts, Names};

/// A set of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Clients(u8);

impl Clients {
    /// Every known client, in the order of the bits.
    pub const NAMES: [&'static str; 8] = ["curl", "openssl", "python", "go", "java", "grpcio", "browsers", "rustls"];
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const CURL: Self = Self(1);
    pub(crate) const OPENSSL: Self = Self(1 << 1);
    pub(crate) const PYTHON: Self = Self(1 << 2);
    pub(crate) const GO: Self = Self(1 << 3);
    pub(crate) const JAVA: Self = Self(1 << 4);
    pub(crate) const GRPCIO: Self = Self(1 << 5);
    pub(crate) const BROWSERS: Self = Self(1 << 6);
    pub(crate) const RUSTLS: Self = Self(1 << 7);
    /// The clients that verify with libssl.
    pub(crate) const LIBSSL: Self = Self(0b111);
    /// Every client.
    pub const ALL: Self = Self(u8::MAX);

    const EACH: [Self; 8] =
        [Self::CURL, Self::OPENSSL, Self::PYTHON, Self::GO, Self::JAVA, Self::GRPCIO, Self::BROWSERS, Self::RUSTLS];

    /// Returns true if the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// Returns true if every client is in the set.
    pub fn is_all(self) -> bool {
        self == Self::ALL
    }

    /// Returns the union of both sets.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the clients of this set that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns the names of the clients.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().enumerate().filter(move |(bit, _)| self.0 & (1 << bit) != 0).map(|(_, name)| name)
    }

    /// Returns the clients as a list in a sentence: `curl, Go and Java`; `every client` for all.
    pub(crate) fn listed(self) -> String {
        let names: Vec<&str> = self.names().map(shown).collect();
        match names.as_slice() {
            _ if self.is_all() => "every client".to_owned(),
            [] => "no client".to_owned(),
            [one] => (*one).to_owned(),
            [first @ .., last] => format!("{} and {last}", first.join(", ")),
        }
    }

    /// Returns the clients as a subject with its verb: `curl and Go refuse`, `Java refuses`.
    pub(crate) fn refuse(self) -> String {
        let singular = self.is_all() || self.names().count() == 1 && self != Self::BROWSERS;
        format!("{} refuse{}", self.listed(), if singular { "s" } else { "" })
    }

    /// Returns for each client whether it is absent from this set of clients that refuse, and therefore accepts.
    pub fn accepted_by(self) -> Vec<(&'static str, bool)> {
        Self::NAMES.into_iter().enumerate().map(|(bit, name)| (name, self.0 & (1 << bit) == 0)).collect()
    }
}

fn shown(name: &'static str) -> &'static str {
    match name {
        "openssl" => "OpenSSL",
        "python" => "Python",
        "go" => "Go",
        "java" => "Java",
        other => other,
    }
}

impl Serialize for Clients {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

/// Returns the clients that refuse the certificate `leaf` when they connect to `name`, a host name or an address.
pub(crate) fn refusing(leaf: &Facts<'_>, name: &str) -> Clients {
    refusing_by(leaf, &leaf.names(), name)
}

/// As [`refusing`], with the names of `leaf` already read.
pub(crate) fn refusing_by(leaf: &Facts<'_>, names: &Names, name: &str) -> Clients {
    let takes = |client: Clients| match name.parse::<IpAddr>() {
        Ok(address) => takes_address(client, names, address, name),
        Err(_) if client == Clients::RUSTLS => rustls_takes(leaf, name),
        Err(_) => takes_name(client, names, name),
    };
    Clients::EACH.into_iter().filter(|client| !takes(*client)).fold(Clients::NONE, Clients::or)
}

fn takes_address(client: Clients, names: &Names, address: IpAddr, text: &str) -> bool {
    if names.addresses.contains(&address) {
        return true;
    }
    let common = || names.common.iter().any(|name| name == text);
    match client {
        Clients::CURL => names.dns.is_empty() && names.addresses.is_empty() && common(),
        Clients::GRPCIO => names.dns.iter().any(|name| name == text) || names.dns.is_empty() && common(),
        _ => false,
    }
}

fn takes_name(client: Clients, names: &Names, name: &str) -> bool {
    // The JDK encodes names with UseSTD3ASCIIRules (RFC 3490 §4), which forbids underscores.
    if client == Clients::JAVA && name.contains('_') {
        return false;
    }
    let none = Vec::new();
    let patterns = match client {
        Clients::GO | Clients::BROWSERS => &names.dns,
        // curl reads the common name only if there is no other name of a kind that it supports.
        Clients::CURL if names.dns.is_empty() && !names.addresses.is_empty() => &none,
        _ if names.dns.is_empty() => &names.common,
        _ => &names.dns,
    };
    patterns.iter().any(|pattern| fits(client, pattern, name))
}

/// Returns true if `pattern` matches `name` by the rules of `client`.
fn fits(client: Clients, pattern: &str, name: &str) -> bool {
    let strips_dot = [Clients::CURL, Clients::GRPCIO].contains(&client);
    let pattern = if strips_dot { pattern.strip_suffix('.').unwrap_or(pattern) } else { pattern };
    let name = name.strip_suffix('.').unwrap_or(name);
    if client == Clients::GO && pattern == "*" {
        return !name.is_empty() && !name.contains('.');
    }
    if !pattern.contains('*') {
        return pattern.eq_ignore_ascii_case(name);
    }
    if client == Clients::JAVA {
        let (patterns, labels): (Vec<&str>, Vec<&str>) = (pattern.split('.').collect(), name.split('.').collect());
        return patterns.len() > 1
            && patterns.len() == labels.len()
            && patterns.iter().zip(labels).all(|(pattern, label)| fits_label(pattern, label));
    }
    let (Some((first, parent)), Some((label, rest))) = (pattern.split_once('.'), name.split_once('.')) else {
        return false;
    };
    if label.is_empty() || parent.contains('*') || !parent.eq_ignore_ascii_case(rest) {
        return false;
    }
    let beyond_one_label = parent.contains('.');
    let host = |label: &str| label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    match client {
        Clients::OPENSSL => beyond_one_label && host(label) && fits_label(first, label),
        Clients::PYTHON => beyond_one_label && host(label) && first == "*",
        Clients::CURL | Clients::BROWSERS => beyond_one_label && first == "*",
        _ => first == "*",
    }
}

/// Matches one label against a pattern with at most one `*`.
fn fits_label(pattern: &str, label: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern.eq_ignore_ascii_case(label),
        Some((start, end)) => {
            let (pattern, label) = (pattern.to_ascii_lowercase(), label.to_ascii_lowercase());
            label.len() + 1 >= pattern.len()
                && label.starts_with(&start.to_ascii_lowercase())
                && label.ends_with(&end.to_ascii_lowercase())
        }
    }
}

fn rustls_takes(leaf: &Facts<'_>, name: &str) -> bool {
    let Ok(asked) = ServerName::try_from(name) else { return false };
    EndEntityCert::try_from(leaf.der).is_ok_and(|leaf| leaf.verify_is_valid_for_subject_name(&asked).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pattern, name, and the clients that accept it, as observed in the clients themselves.
    #[test]
    fn each_client_compares_names_in_its_own_way() {
        let not_rustls = |clients: Clients| clients.without(Clients::RUSTLS);
        let all = not_rustls(Clients::ALL);
        let table = [
            ("db.example.com", "DB.example.com", all),
            ("*.example.com", "a.example.com", all),
            ("*.example.com", "example.com", Clients::NONE),
            ("*.example.com", "a.b.example.com", Clients::NONE),
            ("*.localhost", "a.localhost", Clients::GO.or(Clients::JAVA).or(Clients::GRPCIO)),
            ("*", "localhost", Clients::GO),
            ("d*.example.com", "db.example.com", Clients::OPENSSL.or(Clients::JAVA)),
            ("a.*.example.com", "a.b.example.com", Clients::JAVA),
            ("my_db.example.com", "my_db.example.com", all.without(Clients::JAVA)),
            ("localhost.", "localhost", Clients::CURL.or(Clients::GRPCIO)),
        ];
        for (pattern, name, taken) in table {
            let names = Names { dns: vec![pattern.to_owned()], ..Names::default() };
            let takes = Clients::EACH.into_iter().filter(|c| *c != Clients::RUSTLS && takes_name(*c, &names, name));
            assert_eq!(takes.fold(Clients::NONE, Clients::or), taken, "{pattern} for {name}");
        }
    }

    #[test]
    fn a_set_lists_its_clients() {
        assert_eq!(Clients::ALL.listed(), "every client");
        assert_eq!(Clients::JAVA.refuse(), "Java refuses");
        assert_eq!(Clients::LIBSSL.listed(), "curl, OpenSSL and Python");
        assert_eq!(Clients::ALL.without(Clients::ALL), Clients::NONE);
        assert_eq!(Clients::JAVA.accepted_by()[4], ("java", false));
    }
}
