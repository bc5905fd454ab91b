//! All that can be said of a server's material, and which clients would take it: the doctor's whole look.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use tls_core::{Identity, IdentitySet};

use crate::accepted::{CLIENTS, accepted_by, missing_names};
use crate::clients::load_clients;
use crate::diagnose::{Finding, Severity};
use crate::pairs::{self, Kept};
use crate::source::Sources;

/// What was found.
#[derive(Debug)]
pub struct Examined {
    /// What is wrong, errors among it.
    pub findings: Vec<Finding>,
    /// For each client whether it would take what it gets, once it trusts the CA; empty where nothing can be served.
    pub accepted_by: Vec<(&'static str, bool)>,
}

/// Reads all of `sources` and says what is wrong with it; `names` are those that clients will call the server by.
pub fn examine(sources: &mut Sources, names: &[String], now: SystemTime) -> Examined {
    let mut findings = Vec::new();
    let mut read = Vec::new();
    let mut whole = true;
    for one in pairs::read_all(sources, &Kept::default()) {
        match one {
            Ok(mut one) => {
                findings.append(&mut one.findings);
                read.push(one);
            }
            Err(error) => {
                whole = false;
                findings.push(error.finding());
            }
        }
    }
    let mut accepted = Vec::new();
    if whole {
        let (set, doubled) = pairs::set(&read, sources.strict_sni);
        findings.extend(doubled);
        accepted = CLIENTS.iter().map(|(client, _)| (*client, true)).collect();
        let asked = asked(&set, names, &mut findings);
        if asked.iter().map(|(_, names)| names.len()).sum::<usize>() < names.len() {
            // Who asks for a name that is refused takes nothing.
            accepted.iter_mut().for_each(|(_, all)| *all = false);
        }
        for (identity, names) in asked {
            findings.extend(missing_names(&identity, &names));
            let takes = accepted_by(&identity, &names, now);
            accepted.iter_mut().zip(takes).for_each(|((_, all), (_, this))| *all &= this);
        }
    }
    if let Some(clients) = &mut sources.clients {
        match load_clients(clients) {
            Ok(loaded) => findings.extend(loaded.findings),
            Err(error) => findings.push(error.finding()),
        }
    }
    Examined { findings, accepted_by: accepted }
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
