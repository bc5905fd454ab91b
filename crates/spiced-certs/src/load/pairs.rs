//! Reads all pairs of a server in parallel on all cores. A pair that did not change is not built again.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustls::SignatureAlgorithm;
use tls_core::{Identity, SniCertResolver};

use crate::diagnostics::compatibility::Clients;
use crate::diagnostics::path::trust::Roots;
use crate::diagnostics::{Finding, Severity};
use crate::load::{Digest, LoadError, Loaded, Read};
use crate::source::{Pair, Sources};

/// The number of pairs that justifies a thread.
const WORTH_A_THREAD: usize = 16;

/// Identities by the digest of the material they were built from.
#[derive(Debug, Default)]
pub(crate) struct IdentityCache(HashMap<Digest, Arc<Identity>>);

/// A pair that was read.
pub(crate) struct LoadedPair {
    digest: Digest,
    pub(crate) identity: Arc<Identity>,
    /// Its findings, if it is new.
    pub(crate) findings: Vec<Finding>,
    /// Whether the identity was built again.
    pub(crate) is_new: bool,
    /// What could not be checked, if it is new.
    pub(crate) unchecked: Vec<String>,
}

impl IdentityCache {
    pub(crate) fn of(read: &[LoadedPair]) -> Self {
        Self(read.iter().map(|one| (one.digest, one.identity.clone())).collect())
    }

    fn read(&self, pair: &mut Pair, roots: &Roots) -> Result<LoadedPair, Vec<LoadError>> {
        let read = Read::of(pair)?;
        let digest = read.digest(pair);
        if let Some(identity) = self.0.get(&digest) {
            return Ok(LoadedPair {
                digest,
                identity: identity.clone(),
                findings: Vec::new(),
                is_new: false,
                unchecked: Vec::new(),
            });
        }
        let loaded = read.pair(pair, roots)?;
        let Loaded { identity, findings, unchecked } = loaded;
        Ok(LoadedPair { digest, identity: Arc::new(identity), findings, is_new: true, unchecked })
    }
}

/// Reads each pair of `sources`, in order.
pub(crate) fn read_all(
    sources: &mut Sources,
    kept: &IdentityCache,
    roots: &Roots,
) -> Vec<Result<LoadedPair, Vec<LoadError>>> {
    let pairs: Vec<&mut Pair> = sources.pairs_mut().collect();
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let helpers = cores.min(pairs.len().div_ceil(WORTH_A_THREAD)) - 1;
    let left = Mutex::new(pairs.into_iter().enumerate());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || -> Vec<_> { std::iter::from_fn(next).map(|(at, pair)| (at, kept.read(pair, roots))).collect() };
    let mut read = thread::scope(|scope| {
        // If a thread cannot be spawned, the existing ones do its work.
        let helpers: Vec<_> =
            (0..helpers).filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok()).collect();
        let mut read = work();
        for helper in helpers {
            read.extend(helper.join().unwrap_or_else(|lost| std::panic::resume_unwind(lost)));
        }
        read
    });
    read.sort_unstable_by_key(|(at, _)| *at);
    read.into_iter().map(|(_, one)| one).collect()
}

/// Combines the pairs into a resolver, and returns the findings about the combination.
pub(crate) fn set(read: &[LoadedPair], strict: bool) -> (SniCertResolver, Vec<Finding>) {
    let mut identities = read.iter().map(|one| one.identity.clone());
    let default = identities.next().expect("there is always a first pair");
    let set = SniCertResolver::new(default, identities, strict);
    let doubled = set.iter().filter_map(|identity| doubled(identity, &set)).collect();
    (set, doubled)
}

/// Returns the algorithm of an identity's key.
pub(crate) fn kind(identity: &Identity) -> SignatureAlgorithm {
    identity.certified_key().key.algorithm()
}

/// Returns a finding about the names of `identity` that an earlier identity with the same kind of key answers for.
fn doubled(identity: &Arc<Identity>, set: &SniCertResolver) -> Option<Finding> {
    let mut names = Vec::new();
    let mut other = None;
    for name in identity.leaf().dns_names() {
        let first = set.for_name(name).find(|one| kind(one) == kind(identity))?;
        if !Arc::ptr_eq(first, identity) {
            names.push(name);
            other = Some(first);
        }
    }
    let other = other?;
    let shown = names.iter().take(3).copied().collect::<Vec<_>>().join(", ");
    let more = if names.len() > 3 { format!(" and {} more", names.len() - 3) } else { String::new() };
    Some(Finding {
        code: "TLS-SNI-DOUBLED",
        severity: Severity::Warning,
        origin: identity.certificate_origin().to_string(),
        subject: identity.leaf().subject.clone(),
        message: format!(
            "for {shown}{more} the certificate {} (from {}) takes precedence, with a key of the same kind: this one is \
             never presented for them",
            other.leaf().subject,
            other.certificate_origin()
        ),
        fix: "remove one of the two from runtime.tls.certificates".to_owned(),
        refused_by: Clients::NONE,
    })
}
