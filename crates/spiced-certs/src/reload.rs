//! Reads the material again, checks it as a whole, and publishes it; what fails keeps what serves.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use metrics::counter;
use tls_core::rotation::Publisher;
use tls_core::{CertificateSummary, ClientTrust, Validity};
use tokio::sync::watch;

use crate::Finding;
use crate::clients::{ClientMaterial, LoadedClients, load_clients};
use crate::load::{LoadError, Loaded, load};
use crate::source::{Pair, watched};

/// Where the material of a server is: its own, and that of its clients where they are asked for any.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Certificate and key.
    pub pair: Pair,
    /// Whose client certificates are taken; `None` where no client is asked.
    pub clients: Option<ClientMaterial>,
}

impl Sources {
    /// The files that the material is in.
    pub fn files(&self) -> Vec<PathBuf> {
        let clients = self.clients.iter().flat_map(|clients| std::iter::once(&clients.authority).chain(&clients.lists));
        let inputs = [&self.pair.certificate, &self.pair.key].into_iter().chain(clients);
        inputs.filter_map(|input| input.value.file().map(Path::to_owned)).collect()
    }
}

/// Reloads a pair, and whom its server trusts among clients.
#[derive(Debug)]
pub struct Reloader {
    sources: Sources,
    publisher: Publisher,
    trust: watch::Sender<Arc<ClientTrust>>,
}

impl Reloader {
    /// Reloads `pair` into `publisher`, and asks no client for a certificate.
    pub fn new(pair: Pair, publisher: Publisher) -> Self {
        let (trust, _) = watch::channel(Arc::new(ClientTrust::nobody()));
        Self { sources: Sources { pair, clients: None }, publisher, trust }
    }

    /// Reloads `sources` into `publisher` and `trust`: both change at once, or neither does.
    pub fn with_clients(sources: Sources, publisher: Publisher, trust: watch::Sender<Arc<ClientTrust>>) -> Self {
        Self { sources, publisher, trust }
    }

    /// Waits until a secret of the material has changed since the last reading; for ever where it
    /// holds none that could.
    pub async fn changed(&mut self) {
        let Sources { pair, clients } = &mut self.sources;
        let clients = clients.iter_mut().map(|clients| &mut clients.authority.value);
        watched::changed(pair.inputs().into_iter().chain(clients)).await;
    }

    /// True where a change of a secret may change the pair.
    pub fn is_watched(&self) -> bool {
        self.sources.pair.is_watched()
    }

    /// Reads the material now. Blocks for as long as the file system does.
    pub fn reload(&mut self) -> Outcome {
        let candidate = Candidate::of(&mut self.sources, &self.publisher, &self.trust);
        self.settle(candidate)
    }

    /// Reads the material from `sources`, which are those from then on, unless it is rejected.
    pub fn reload_from(&mut self, mut sources: Sources) -> Outcome {
        let candidate = Candidate::of(&mut sources, &self.publisher, &self.trust);
        if candidate.is_ok() {
            self.sources = sources;
        }
        self.settle(candidate)
    }

    /// Reads the material from `sources` and says what a reload would do, without doing it.
    pub fn check(&self, mut sources: Sources) -> Outcome {
        match Candidate::of(&mut sources, &self.publisher, &self.trust) {
            Ok(Candidate { pair: None, clients: None }) => Outcome::Unchanged,
            Ok(Candidate { pair, clients }) => {
                let clients = clients.map(|loaded| loaded.findings).unwrap_or_default();
                Outcome::Swapped(clients.into_iter().chain(pair.map(|l| l.findings).unwrap_or_default()).collect())
            }
            Err(error) => Outcome::Rejected(error),
        }
    }

    fn settle(&self, candidate: Result<Candidate, LoadError>) -> Outcome {
        let (outcome, label) = match candidate {
            Ok(Candidate { pair: None, clients: None }) => {
                self.publisher.unchanged();
                (Outcome::Unchanged, "unchanged")
            }
            Ok(candidate) => (Outcome::Swapped(self.take(candidate)), "swapped"),
            Err(error) => {
                self.publisher.reject(error.to_string());
                (Outcome::Rejected(error), "rejected")
            }
        };
        counter!("spiced_tls_reload_total", "result" => label).increment(1);
        outcome
    }

    /// Puts a candidate before every handshake from now on; gives what is to be said of it.
    fn take(&self, Candidate { pair, clients }: Candidate) -> Vec<Finding> {
        let mut said = Vec::new();
        if let Some(LoadedClients { trust, findings }) = clients {
            self.trust.send_replace(Arc::new(trust));
            said.extend(findings);
        }
        match pair {
            Some(Loaded { identity, findings }) => {
                self.publisher.publish(identity);
                said.extend(findings);
            }
            None => self.publisher.unchanged(),
        }
        said
    }
}

/// What is new.
struct Candidate {
    pair: Option<Loaded>,
    clients: Option<LoadedClients>,
}

impl Candidate {
    /// What may be served instead of what is; nothing of what is the same.
    fn of(
        sources: &mut Sources,
        publisher: &Publisher,
        trust: &watch::Sender<Arc<ClientTrust>>,
    ) -> Result<Self, LoadError> {
        let loaded = load(&mut sources.pair)?;
        let clients = match &mut sources.clients {
            Some(material) => load_clients(material)?,
            None => LoadedClients { trust: ClientTrust::nobody(), findings: Vec::new() },
        };
        let clients = (!clients.trust.same(&trust.borrow())).then_some(clients);
        let serving = publisher.served().identity;
        if loaded.identity.same_chain(&serving) {
            return Ok(Self { pair: None, clients });
        }
        let leaf = loaded.identity.leaf();
        if worse(leaf, serving.leaf(), SystemTime::now()) {
            let (subject, origin) = (leaf.subject.clone(), loaded.identity.certificate_origin().clone());
            return Err(match leaf.validity(SystemTime::now()) {
                Validity::NotYet { starts_in } => LoadError::NotYet { subject, origin, starts_in },
                _ => LoadError::OutOfDate { subject, origin },
            });
        }
        Ok(Self { pair: Some(loaded), clients })
    }
}

/// True where `new` is out of date and taking it would be no gain: what serves is in date, or ends
/// later all the same.
fn worse(new: &CertificateSummary, serving: &CertificateSummary, now: SystemTime) -> bool {
    let in_date = |leaf: &CertificateSummary| leaf.validity(now).is_in_date();
    !in_date(new) && (in_date(serving) || new.not_after <= serving.not_after)
}

/// How a reload ended.
#[derive(Debug)]
pub enum Outcome {
    /// The next handshake uses the new material.
    Swapped(Vec<Finding>),
    /// It is the same as before.
    Unchanged,
    /// It was refused, and what served goes on serving.
    Rejected(LoadError),
}
