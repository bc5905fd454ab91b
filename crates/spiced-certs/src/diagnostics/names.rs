//! Finds problems with the names of a certificate: for the names that clients connect to, or for the certificate's own
//! names if these are unknown.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::diagnostics::compatibility::{Clients, refusing, refusing_by};
use crate::diagnostics::facts::Facts;
use crate::diagnostics::report::{Finding, Severity, severity};

/// The most names that are checked. A certificate may have a thousand, and this many show every problem.
const MAX_NAMES: usize = 200;

/// Returns the names that clients use for a server with this certificate, according to the certificate. The `*` of a
/// wildcard is replaced by a label.
pub(crate) fn own(leaf: &Facts<'_>) -> Vec<String> {
    let names = leaf.names();
    let dns = names.dns.iter().filter(|name| is_host_name(name)).map(|name| name.replace('*', "x"));
    let own: BTreeSet<String> = dns.chain(names.addresses.iter().map(ToString::to_string)).take(MAX_NAMES).collect();
    if own.is_empty() && names.dns.is_empty() {
        return names.common.into_iter().filter(|name| is_host_name(name)).collect();
    }
    own.into_iter().collect()
}

/// Returns the clients that refuse `leaf` for one of `names`.
pub(crate) fn refusing_any(leaf: &Facts<'_>, names: &[String]) -> Clients {
    names.iter().map(|name| refusing(leaf, name)).fold(Clients::NONE, Clients::or)
}

/// Returns the findings about the names of `leaf`, from `origin`, for clients that connect to `asked`, or to the
/// certificate's own names if `asked` is empty.
pub(crate) fn findings(leaf: &Facts<'_>, origin: &str, asked: &[String]) -> Vec<Finding> {
    let names = leaf.names();
    let finding = |code, severity, refused_by, message: String, fix: String| Finding {
        code,
        severity,
        origin: origin.to_owned(),
        subject: leaf.subject(),
        message,
        fix,
        refused_by,
    };
    let mut found = Vec::new();
    let own = own(leaf);
    let tried = if asked.is_empty() { own.as_slice() } else { asked };
    let nameless = names.dns.is_empty() && names.addresses.is_empty();
    if nameless {
        let refused = refusing_any(leaf, tried).or(Clients::GO).or(Clients::BROWSERS).or(Clients::RUSTLS);
        // The finding about X.509 v1 covers this already.
        let is_said = leaf.is_v1() && refused.without(Clients::GO.or(Clients::BROWSERS).or(Clients::RUSTLS)).is_empty();
        let common = names.common.first().map(|name| format!("; its common name is {name}")).unwrap_or_default();
        let no_san = finding(
            "TLS-NO-SAN",
            Severity::Warning,
            refused,
            format!(
                "the certificate has no subject alternative name{common}: {} it, and so does Python's requests",
                refused.refuse()
            ),
            format!("make it again with -addext {}", alternative_names(tried, "NAME")),
        );
        found.extend((!is_said).then_some(no_san));
    }
    for name in names.dns.iter().filter(|name| !is_host_name(name)).take(3) {
        found.push(finding(
            "TLS-NAME-INVALID",
            if own.is_empty() { Severity::Error } else { Severity::Info },
            if own.is_empty() { Clients::ALL } else { Clients::NONE },
            format!("the alternative name `{}` is not a host name: no client can request it", name.escape_default()),
            "have it issued with plain names: no scheme, no port, no path, no blank".to_owned(),
        ));
    }
    let host = |name: &&String| name.contains('.') && is_host_name(name) && name.parse::<IpAddr>().is_err();
    for common in names.common.iter().filter(host).filter(|_| !nameless && asked.is_empty()) {
        if refusing(leaf, &common.replace('*', "x")).is_all() {
            found.push(finding(
                "TLS-COMMON-NAME-NOT-COVERED",
                Severity::Info,
                Clients::NONE,
                format!(
                    "the common name {common} is not among the alternative names: clients that connect to it refuse \
                     the certificate"
                ),
                format!("have it issued with {}", alternative_names(std::slice::from_ref(common), "NAME")),
            ));
        }
    }
    for name in tried {
        let refused = refusing_by(leaf, &names, name);
        if refused.is_empty() || nameless && !refused.is_all() {
            continue;
        }
        // If there are other names, it is unknown which names a wildcard is used for.
        let is_sample = asked.is_empty()
            && names.dns.iter().any(|dns| dns.contains('*') && dns.replace('*', "x") == *name)
            && own.len() > 1;
        let (code, message) = explained(leaf, name, refused, asked.is_empty());
        // An address among the DNS names is the fault itself, so the fix must not repeat it.
        let dns = names.dns.iter().filter(|one| is_host_name(one) && one.parse::<IpAddr>().is_err()).cloned();
        let mut wanted: Vec<String> = dns.chain(names.addresses.iter().map(ToString::to_string)).collect();
        wanted.retain(|one| one != name);
        let fix = match code {
            "TLS-NAME-UNDERSCORE" => format!(
                "give the server a name without an underscore, and have it issued with {}",
                alternative_names(&[name.replace('_', "-")], "NAME")
            ),
            "TLS-WILDCARD" => "have it issued with the names themselves in place of the wildcard".to_owned(),
            _ => {
                wanted.insert(0, name.clone());
                format!("have it issued with {}", alternative_names(&wanted, name))
            }
        };
        let refused_by = if is_sample { Clients::NONE } else { refused };
        found.push(finding(code, severity(refused_by), refused_by, message, fix));
    }
    found
}

/// Returns why clients refuse `name`, with the code.
fn explained(leaf: &Facts<'_>, name: &str, refused: Clients, own: bool) -> (&'static str, String) {
    let names = leaf.names();
    let refuse = refused.refuse();
    let address: Option<IpAddr> = name.parse().ok();
    if address.is_some() && names.dns.iter().any(|dns| dns == name) {
        return (
            "TLS-IP-AS-DNS",
            format!("{name} is an address, but the certificate has it as a DNS name: {refuse} it"),
        );
    }
    if refused.is_all() || !own {
        let mut listed: Vec<String> = names.dns.clone();
        listed.extend(names.addresses.iter().map(ToString::to_string));
        let for_what = match (listed.is_empty(), names.common.first()) {
            (true, Some(common)) => format!("it has no alternative names, and its common name is {common}"),
            (true, None) => "it has no names at all".to_owned(),
            (false, _) => format!("it is for {}", listed.join(", ")),
        };
        let star = names.dns.iter().find_map(|dns| dns.strip_prefix("*.")).filter(|parent| {
            name.len() >= parent.len() && name.to_ascii_lowercase().ends_with(&parent.to_ascii_lowercase())
        });
        let star = match (star, address) {
            (Some(_), None) => "; `*` matches exactly one label",
            _ => "",
        };
        let code = match () {
            () if refused.is_all() => "TLS-NAME-NOT-COVERED",
            () if name.contains('_') => "TLS-NAME-UNDERSCORE",
            () if names.dns.iter().any(|dns| dns.contains('*')) => "TLS-WILDCARD",
            () => "TLS-NAME-NOT-COVERED",
        };
        let message = match refused.is_all() {
            true => format!("the certificate is not for {name}; {for_what}{star}"),
            false if name.contains('_') => format!("{name} has an underscore: {refuse} it"),
            false => format!("for {name}, {refuse} the certificate; {for_what}"),
        };
        return (code, message);
    }
    if name.contains('_') {
        return (
            "TLS-NAME-UNDERSCORE",
            format!("the name {name} has an underscore, which host names do not have (RFC 1123 §2.1): {refuse} it"),
        );
    }
    let pattern = names.dns.iter().find(|dns| dns.replace('*', "x") == name && dns.contains('*'));
    match pattern {
        Some(pattern) => ("TLS-WILDCARD", format!("the wildcard {pattern} is of a kind that {refuse}")),
        None => ("TLS-NAME-INVALID", format!("the name {name} is written in a way that {refuse}")),
    }
}

/// Returns `names` as the value of an openssl option: `subjectAltName=DNS:a,IP:b`.
pub(crate) fn alternative_names(names: &[String], instead: &str) -> String {
    let each = |name: &String| match name.parse::<IpAddr>() {
        Ok(_) => format!("IP:{name}"),
        Err(_) => format!("DNS:{name}"),
    };
    match names {
        [] => format!("subjectAltName=DNS:{instead}"),
        names => format!("subjectAltName={}", names.iter().take(20).map(each).collect::<Vec<_>>().join(",")),
    }
}

/// Returns true if `name` is something that a client can connect to.
fn is_host_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._*".contains(&b))
}
