//! All that can be said of a server's material, and which clients would take it: the doctor's whole look.

use std::net::IpAddr;
use std::sync::Arc;

use tls_core::{Identity, IdentitySet, Sourced};

use crate::clients::load_clients;
use crate::compatibility::Clients;
use crate::diagnose::{Finding, Severity};
use crate::facts::Facts;
use crate::load::{LoadError, Unusable};
use crate::names;
use crate::pairs::{self, Kept};
use crate::pem::{self, Wanted};
use crate::source::{Input, Sources, read};
use crate::trust::Roots;

/// What was found.
#[derive(Debug)]
pub struct Examined {
    /// What is wrong, errors among it.
    pub findings: Vec<Finding>,
    /// For each client whether it would take what it gets, once it trusts the CA; empty where nothing can be served.
    pub accepted_by: Vec<(&'static str, bool)>,
    /// What could not be checked, each a sentence.
    pub unchecked: Vec<String>,
}

/// Reads all of `sources` and says what is wrong with it; `names` are those that clients will call the server by, and
/// `authority` holds the roots that they trust, as PEM, where it is known.
///
/// # Errors
/// `authority` cannot be read, or holds no certificate.
pub fn examine(
    sources: &mut Sources,
    names: &[String],
    authority: Option<&mut Sourced<Input>>,
) -> Result<Examined, LoadError> {
    let roots = match authority {
        Some(authority) => Roots::given(
            pem::certificates(&read::read(authority)?)
                .map_err(|reason| Unusable::pem(authority, Wanted::Authority, &reason))?,
        ),
        None => Roots::thorough(),
    };
    let mut findings = Vec::new();
    let mut unchecked = Vec::new();
    let mut read = Vec::new();
    let mut whole = true;
    for one in pairs::read_all(sources, &Kept::default(), &roots) {
        match one {
            Ok(mut one) => {
                findings.append(&mut one.findings);
                unchecked.append(&mut one.unchecked);
                read.push(one);
            }
            Err(errors) => {
                whole = false;
                findings.extend(errors.iter().map(LoadError::finding));
            }
        }
    }
    let mut accepted_by = Vec::new();
    if whole {
        let (set, doubled) = pairs::set(&read, sources.strict_sni);
        findings.extend(doubled);
        for (identity, names) in asked(&set, names, &mut findings) {
            findings.extend(names_of(&identity, &names));
        }
        let refused = findings.iter().map(|finding| finding.refused_by).fold(Clients::NONE, Clients::or);
        accepted_by = refused.accepted_by();
    }
    if let Some(clients) = &mut sources.clients {
        match load_clients(clients) {
            Ok(loaded) => findings.extend(loaded.findings),
            Err(error) => findings.push(error.finding()),
        }
    }
    unchecked.sort();
    unchecked.dedup();
    Ok(Examined { findings, accepted_by, unchecked })
}

/// What is to be said of the names of `identity`, for clients that call it by `names`, or by its own.
pub(crate) fn names_of(identity: &Identity, names: &[String]) -> Vec<Finding> {
    let leaf = identity.certified_key().cert.first().and_then(Facts::of);
    leaf.map(|leaf| names::findings(&leaf, &identity.certificate_origin().to_string(), names)).unwrap_or_default()
}

/// Which identity is asked for by which of `names`; each of them, where no name is given.
fn asked(set: &IdentitySet, names: &[String], findings: &mut Vec<Finding>) -> Vec<(Arc<Identity>, Vec<String>)> {
    if names.is_empty() {
        return set.iter().map(|identity| (identity.clone(), Vec::new())).collect();
    }
    let mut asked: Vec<(Arc<Identity>, Vec<String>)> = Vec::new();
    for name in names {
        // An address is asked for by nobody (RFC 6066 §3).
        let asked_for = Some(name.as_str()).filter(|name| name.parse::<IpAddr>().is_err());
        let Some(identity) = set.answer(asked_for) else {
            findings.push(Finding {
                code: "TLS-NAME-NOT-COVERED",
                severity: Severity::Error,
                origin: "runtime.tls.strict_sni".to_owned(),
                subject: name.clone(),
                message: match asked_for {
                    Some(name) => format!("no certificate is for {name}, and strict_sni refuses who asks for it"),
                    None => format!("who comes by the address {name} asks for no name, and strict_sni refuses them"),
                },
                fix: match asked_for {
                    Some(name) => format!("add a pair for {name} to runtime.tls.certificates"),
                    None => "have them come by a name, or take strict_sni away".to_owned(),
                },
                refused_by: Clients::ALL,
            });
            continue;
        };
        match asked.iter_mut().find(|(one, _)| Arc::ptr_eq(one, identity)) {
            Some((_, names)) => names.push(name.clone()),
            None => asked.push((identity.clone(), vec![name.clone()])),
        }
    }
    asked
}
