//! Reads the material again, checks it as a whole, and publishes it; what fails keeps what serves.

use std::sync::Arc;
use std::time::SystemTime;

use metrics::counter;
use tls_core::rotation::Publisher;
use tls_core::{CertificateSummary, ClientTrust};
use tokio::sync::watch;

use crate::Finding;
use crate::clients::{ClientMaterial, LoadedClients, load_clients};
use crate::load::{LoadError, Loaded, load};
use crate::source::{Pair, watched};

/// Reloads a pair, and whom its server trusts among clients.
#[derive(Debug)]
pub struct Reloader {
    pair: Pair,
    publisher: Publisher,
    clients: Option<(ClientMaterial, watch::Sender<Arc<ClientTrust>>)>,
}

impl Reloader {
    /// Reloads `pair` into `publisher`.
    pub fn new(pair: Pair, publisher: Publisher) -> Self {
        Self { pair, publisher, clients: None }
    }

    /// Reloads `material` into `trust` too: both change at once, or neither does.
    #[must_use]
    pub fn with_clients(self, material: ClientMaterial, trust: watch::Sender<Arc<ClientTrust>>) -> Self {
        Self { clients: Some((material, trust)), ..self }
    }

    /// Waits until a secret of the material has changed since the last reading; for ever where it
    /// holds none that could.
    pub async fn changed(&mut self) {
        let clients = self.clients.iter_mut().map(|(material, _)| &mut material.authority.value);
        watched::changed(self.pair.inputs().into_iter().chain(clients)).await;
    }

    /// True where a change of a secret may change the pair.
    pub fn is_watched(&self) -> bool {
        self.pair.is_watched()
    }

    /// Reads the material now. Blocks for as long as the file system does.
    pub fn reload(&mut self) -> Outcome {
        let (outcome, label) = match self.candidate() {
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

    /// Reads the material and says what a reload would do, without doing it.
    pub fn check(&mut self) -> Outcome {
        match self.candidate() {
            Ok(Candidate { pair: None, clients: None }) => Outcome::Unchanged,
            Ok(Candidate { pair, clients }) => {
                let clients = clients.map(|loaded| loaded.findings).unwrap_or_default();
                Outcome::Swapped(clients.into_iter().chain(pair.map(|l| l.findings).unwrap_or_default()).collect())
            }
            Err(error) => Outcome::Rejected(error),
        }
    }

    /// What may be served instead of what is; nothing of what is the same.
    fn candidate(&mut self) -> Result<Candidate, LoadError> {
        let loaded = load(&mut self.pair)?;
        let clients = match &mut self.clients {
            Some((material, trust)) => {
                let loaded = load_clients(material)?;
                (!loaded.trust.same(&trust.borrow())).then_some(loaded)
            }
            None => None,
        };
        let serving = self.publisher.served().identity;
        if loaded.identity.same_chain(&serving) {
            return Ok(Candidate { pair: None, clients });
        }
        let leaf = loaded.identity.leaf();
        if worse(leaf, serving.leaf(), SystemTime::now()) {
            let (subject, origin) = (leaf.subject.clone(), loaded.identity.certificate_origin().clone());
            return Err(LoadError::OutOfDate { subject, origin });
        }
        Ok(Candidate { pair: Some(loaded), clients })
    }

    /// Puts a candidate before every handshake from now on; gives what is to be said of it.
    fn take(&self, Candidate { pair, clients }: Candidate) -> Vec<Finding> {
        let mut said = Vec::new();
        if let Some((LoadedClients { trust, findings }, (_, sender))) = clients.zip(self.clients.as_ref()) {
            sender.send_replace(Arc::new(trust));
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
