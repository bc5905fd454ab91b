//! Reads new material and checks it as a whole against the material in use.

use std::sync::Arc;
use std::time::SystemTime;

use tls_core::rotation::Publisher;
use tls_core::{ClientAuthPolicy, Identity, SniCertResolver};
use tokio::sync::watch;

use super::judge::{TrustRecord, judge, not_refused, not_taken, not_worse, would_regress};
use crate::client_ca::{LoadedClients, load_clients};
use crate::diagnostics::Finding;
use crate::diagnostics::check_config::names_of;
use crate::diagnostics::path::trust::Roots;
use crate::load::LoadError;
use crate::load::pairs::{self, IdentityCache, LoadedPair};
use crate::source::Sources;

/// The material in use.
pub(super) struct InForce<'a> {
    pub(super) kept: &'a IdentityCache,
    pub(super) publisher: &'a Publisher,
    pub(super) trust: &'a watch::Sender<Arc<ClientAuthPolicy>>,
    pub(super) of_trust: &'a TrustRecord,
}

/// The parts of the new material that differ from the material in use.
pub(super) struct Candidate {
    pub(super) set: Option<(SniCertResolver, Vec<Finding>)>,
    pub(super) clients: Option<LoadedClients>,
    pub(super) kept: IdentityCache,
}

impl Candidate {
    /// Reads `sources` and checks that they may replace the material in use. Parts that did not change are `None`.
    pub(super) fn of(sources: &mut Sources, in_force: &InForce<'_>, force: bool) -> Result<Self, LoadError> {
        let InForce { kept, publisher, trust, of_trust } = *in_force;
        let mut overridden = Vec::new();
        let now = SystemTime::now();
        let roots = Roots::default();
        let read = all(pairs::read_all(sources, kept, &roots))?;
        let clients = load(sources)?;
        let clients = (!clients.trust.same(&trust.borrow())).then_some(clients);
        if let Some(new) = &clients {
            not_worse(&new.trust, &trust.borrow(), now)?;
            match judge(new, &trust.borrow(), of_trust, &sources.accept_findings) {
                Err(error) if !force => return Err(error),
                _ => {}
            }
        }
        let serving = publisher.served().identities;
        let (set, doubled) = pairs::set(&read, sources.strict_sni);
        let kept = IdentityCache::of(&read);
        if set.same(&serving) {
            return Ok(Self { set: None, clients, kept });
        }
        for (at, LoadedPair { identity, .. }) in read.iter().enumerate() {
            let is_default = at == 0 && !identity.same_chain(serving.default());
            if !is_default && serving.iter().any(|one| one.same_chain(identity)) {
                continue;
            }
            // The identities that clients get now for each of its names, and the current default if it becomes the
            // default.
            let named = identity
                .leaf()
                .dns_names()
                .filter_map(|name| serving.for_name(name).find(|one| pairs::kind(one) == pairs::kind(identity)));
            let mut before: Vec<&Arc<Identity>> = named.chain(is_default.then(|| serving.default())).collect();
            if before.iter().any(|before| would_regress(identity.leaf(), before.leaf(), now)) {
                return Err(not_taken(identity, now));
            }
            if serving.iter().any(|one| one.same_chain(identity)) {
                continue;
            }
            // The identity that it replaces may share none of its names: match it by the setting too.
            before.extend(serving.iter().filter(|one| one.certificate_origin() == identity.certificate_origin()));
            before.sort_by_key(|one| Arc::as_ptr(one));
            before.dedup_by(|one, other| Arc::ptr_eq(one, other));
            for before in before {
                match not_refused(identity, before, &set, &sources.accept_findings, &roots, now) {
                    Err(LoadError::Refused { finding, .. }) if force => overridden.push(*finding),
                    other => overridden.extend(other?),
                }
            }
        }
        let names: Vec<Finding> =
            read.iter().filter(|one| one.is_new).flat_map(|one| names_of(&one.identity, &[])).collect();
        let findings = read.into_iter().flat_map(|one| one.findings).chain(names).chain(doubled);
        let mut findings: Vec<Finding> = findings.collect();
        for finding in overridden {
            if !findings.iter().any(|other| (other.code, &other.message) == (finding.code, &finding.message)) {
                findings.push(finding);
            }
        }
        Ok(Self { set: Some((set, findings)), clients, kept })
    }
}

/// Returns every pair, or every error.
fn all(read: Vec<Result<LoadedPair, Vec<LoadError>>>) -> Result<Vec<LoadedPair>, LoadError> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for one in read {
        one.map_or_else(|errors| bad.extend(errors), |one| good.push(one));
    }
    if bad.is_empty() { Ok(good) } else { Err(LoadError::all(bad)) }
}

/// Loads the client policy of `sources`.
pub(super) fn load(sources: &mut Sources) -> Result<LoadedClients, LoadError> {
    match &mut sources.clients {
        Some(material) => load_clients(material),
        None => Ok(LoadedClients { trust: ClientAuthPolicy::nobody(), findings: Vec::new(), lists: Vec::new() }),
    }
}
