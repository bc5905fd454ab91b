//! Reads the material again, checks it as a whole and publishes it. If a check fails, the current material stays in
//! use.

mod candidate;
mod judge;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use metrics::counter;
use tls_core::ClientAuthPolicy;
use tls_core::rotation::{self, Identities, Publisher};
use tokio::sync::watch;

use self::candidate::{Candidate, InForce, load};
use self::judge::{TrustRecord, judge, not_worse};
use crate::client_ca::LoadedClients;
use crate::diagnostics::Finding;
use crate::diagnostics::check_config::names_of;
use crate::diagnostics::path::trust::Roots;
use crate::load::LoadError;
use crate::load::pairs::{self, IdentityCache};
#[cfg(feature = "self-signed")]
use crate::source::self_signed::SelfSigned;
use crate::source::{Input, Sources, watched};

/// The time between two reads of material that may be partially written.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Reloads a server's certificates and the policy for client certificates.
#[derive(Debug)]
pub struct Reloader {
    sources: Sources,
    kept: IdentityCache,
    publisher: Publisher,
    trust: watch::Sender<Arc<ClientAuthPolicy>>,
    of_trust: TrustRecord,
}

/// Material that was loaded, and the [`Reloader`] for it.
#[derive(Debug)]
pub struct Started {
    /// The identities that endpoints present.
    pub identities: Identities,
    /// The policy for client certificates.
    pub clients: watch::Receiver<Arc<ClientAuthPolicy>>,
    /// The findings of the load.
    pub findings: Vec<Finding>,
    /// Reloads the material.
    pub reloader: Reloader,
}

impl Reloader {
    /// Reads `sources` and publishes them on new channels. A FIFO can be read only once, so its content replaces it as
    /// text.
    ///
    /// # Errors
    /// Returns every input that cannot be read or used.
    pub fn start(mut sources: Sources) -> Result<Started, Vec<LoadError>> {
        let mut errors = Vec::new();
        let mut read = Vec::new();
        for one in pairs::read_all(&mut sources, &IdentityCache::default(), &Roots::default()) {
            one.map_or_else(|failed| errors.extend(failed), |one| read.push(one));
        }
        let clients = match load(&mut sources) {
            Ok(clients) if errors.is_empty() => clients,
            other => {
                errors.extend(other.err());
                return Err(errors);
            }
        };
        let (set, doubled) = pairs::set(&read, sources.strict_sni);
        let kept = IdentityCache::of(&read);
        let names: Vec<Finding> = read.iter().flat_map(|one| names_of(&one.identity, &[])).collect();
        let findings = read.into_iter().flat_map(|one| one.findings).chain(names).chain(doubled);
        let of_trust = TrustRecord { findings: clients.findings.clone(), lists: clients.lists };
        let findings = findings.chain(clients.findings).collect();
        let (publisher, identities) = rotation::channel(set);
        let (trust, clients) = watch::channel(Arc::new(clients.trust));
        Ok(Started { identities, clients, findings, reloader: Self { sources, kept, publisher, trust, of_trust } })
    }

    /// Creates a reloader that publishes `sources` through `publisher` and requests no client certificates.
    pub fn new(sources: impl Into<Sources>, publisher: Publisher) -> Self {
        let (trust, _) = watch::channel(Arc::new(ClientAuthPolicy::nobody()));
        Self {
            sources: sources.into(),
            kept: IdentityCache::default(),
            publisher,
            trust,
            of_trust: TrustRecord::default(),
        }
    }

    /// Waits until a secret of the material has changed since the last read; waits forever if none can change.
    pub async fn changed(&mut self) {
        watched::changed(self.inputs()).await;
    }

    /// Marks the current secrets as seen: they are about to be read, so their changes must not trigger another reload.
    pub fn mark_seen(&mut self) {
        watched::mark_seen(self.inputs());
    }

    fn inputs(&mut self) -> impl Iterator<Item = &mut Input> {
        let Sources { pair, more, clients, .. } = &mut self.sources;
        let clients = clients.iter_mut().map(|clients| &mut clients.authority.value);
        std::iter::once(pair).chain(more).flat_map(|pair| pair.inputs()).chain(clients)
    }

    /// Returns true if a change of a secret can change a pair.
    pub fn is_watched(&self) -> bool {
        self.sources.is_watched()
    }

    /// Reads the material now. Blocks on file system access.
    pub fn reload(&mut self) -> Outcome {
        let candidate = self.candidate(false);
        self.settle_again(candidate)
    }

    /// Reads material that has just changed. Material that is missing or looks partially written is read again until
    /// the given time has passed, and only then rejected. Blocks for that time.
    pub fn reload_patiently(&mut self, patience: Duration) -> Outcome {
        let end = Instant::now() + patience;
        loop {
            match self.candidate(false) {
                Err(error) if error.maybe_partial_write() && Instant::now() < end => std::thread::sleep(POLL_INTERVAL),
                candidate => return self.settle_again(candidate),
            }
        }
    }

    /// Reads the material from the current sources.
    fn candidate(&mut self, force: bool) -> Result<Candidate, LoadError> {
        let in_force =
            InForce { kept: &self.kept, publisher: &self.publisher, trust: &self.trust, of_trust: &self.of_trust };
        Candidate::of(&mut self.sources, &in_force, force)
    }

    /// Reads the material from `sources`.
    fn candidate_of(&self, sources: &mut Sources, force: bool) -> Result<Candidate, LoadError> {
        let in_force =
            InForce { kept: &self.kept, publisher: &self.publisher, trust: &self.trust, of_trust: &self.of_trust };
        Candidate::of(sources, &in_force, force)
    }

    /// Settles a candidate from the current sources. If the pairs are rejected, the client policy is still updated, so
    /// that a broken server certificate does not keep a revoked client accepted.
    fn settle_again(&mut self, candidate: Result<Candidate, LoadError>) -> Outcome {
        if candidate.is_err() {
            self.take_trust();
        }
        self.settle(candidate)
    }

    /// Updates the client policy from the current sources, if the new one passes its checks.
    fn take_trust(&mut self) {
        if let Ok(clients) = load(&mut self.sources)
            && !clients.trust.same(&self.trust.borrow())
            && not_worse(&clients.trust, &self.trust.borrow(), SystemTime::now()).is_ok()
            && judge(&clients, &self.trust.borrow(), &self.of_trust, &self.sources.accept_findings).is_ok()
        {
            self.of_trust = TrustRecord { findings: clients.findings, lists: clients.lists };
            self.trust.send_replace(Arc::new(clients.trust));
        }
    }

    /// Returns the development CA and leaf if they are in use and the leaf expires soon. Reads files.
    #[cfg(feature = "self-signed")]
    pub fn development_due(&self) -> Option<SelfSigned> {
        let served = self.publisher.served();
        if SelfSigned::is_due(served.identity().leaf()) { SelfSigned::keeping(&self.sources.pair) } else { None }
    }

    /// Reads the material from `sources`, which become the current sources unless the material is rejected. In that
    /// case the previous sources are read again, so that a rejected replacement neither lets their certificates expire
    /// nor keeps a revoked client accepted. With `force`, material that clients would refuse is accepted too.
    pub fn reload_from(&mut self, mut sources: Sources, force: bool) -> Outcome {
        let candidate = self.candidate_of(&mut sources, force);
        if candidate.is_ok() {
            self.sources = sources;
        } else if let Ok(before) = self.candidate(false) {
            self.swap(before);
        } else {
            self.take_trust();
        }
        self.settle(candidate)
    }

    /// Reads the material from `sources` and returns the outcome that a reload would have, without reloading.
    pub fn check(&self, mut sources: Sources, force: bool) -> Outcome {
        match self.candidate_of(&mut sources, force) {
            Ok(Candidate { set: None, clients: None, .. }) => Outcome::Unchanged,
            Ok(Candidate { set, clients, .. }) => {
                let clients = clients.map(|loaded| loaded.findings).unwrap_or_default();
                Outcome::Swapped(clients.into_iter().chain(set.map(|(_, found)| found).unwrap_or_default()).collect())
            }
            Err(error) => Outcome::Rejected(error),
        }
    }

    fn settle(&mut self, candidate: Result<Candidate, LoadError>) -> Outcome {
        let (outcome, label) = match candidate {
            Ok(Candidate { set: None, clients: None, kept }) => {
                self.kept = kept;
                self.publisher.unchanged();
                (Outcome::Unchanged, "unchanged")
            }
            Ok(candidate) => (Outcome::Swapped(self.swap(candidate)), "swapped"),
            Err(error) => {
                self.publisher.reject(error.to_string());
                (Outcome::Rejected(error), "rejected")
            }
        };
        counter!("spiced_tls_reload_total", "result" => label).increment(1);
        outcome
    }

    /// Uses the candidate for every handshake from now on; returns its findings.
    fn swap(&mut self, Candidate { set, clients, kept }: Candidate) -> Vec<Finding> {
        self.kept = kept;
        let mut said = Vec::new();
        if let Some(LoadedClients { trust, findings, lists }) = clients {
            self.trust.send_replace(Arc::new(trust));
            self.of_trust = TrustRecord { findings: findings.clone(), lists };
            said.extend(findings);
        }
        match set {
            Some((set, findings)) => {
                self.publisher.publish(set);
                said.extend(findings);
            }
            None => self.publisher.unchanged(),
        }
        said
    }
}

/// The outcome of a reload.
#[derive(Debug)]
pub enum Outcome {
    /// New handshakes use the new material.
    Swapped(Vec<Finding>),
    /// The material did not change.
    Unchanged,
    /// The material was rejected, and the current material stays in use.
    Rejected(LoadError),
}
