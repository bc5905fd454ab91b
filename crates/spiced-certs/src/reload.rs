//! Reads the material again, checks it as a whole, and publishes it; what fails keeps what serves.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use metrics::counter;
use tls_core::rotation::{self, Identities, Publisher};
use tls_core::{CertificateSummary, ClientTrust, Identity, IdentitySet, Validity};
use tokio::sync::watch;

use crate::Finding;
use crate::clients::{LoadedClients, lists_ended, load_clients};
use crate::load::LoadError;
use crate::pairs::{self, Kept, One};
#[cfg(feature = "self-signed")]
use crate::source::self_signed::SelfSigned;
use crate::source::{Input, Sources, watched};

/// How often material is looked at again that may be half written.
const LOOK: Duration = Duration::from_millis(250);

/// Reloads the pairs of a server, and whom it trusts among clients.
#[derive(Debug)]
pub struct Reloader {
    sources: Sources,
    kept: Kept,
    publisher: Publisher,
    trust: watch::Sender<Arc<ClientTrust>>,
}

/// Material that is read, and whoever reads it again.
#[derive(Debug)]
pub struct Started {
    /// What doors present.
    pub identities: Identities,
    /// Whom they trust among clients.
    pub clients: watch::Receiver<Arc<ClientTrust>>,
    /// What an operator should know.
    pub findings: Vec<Finding>,
    /// Who changes it.
    pub reloader: Reloader,
}

impl Reloader {
    /// Reads `sources` and puts them on channels of their own. A FIFO is read once: it becomes text.
    ///
    /// # Errors
    /// Everything that cannot be read or used.
    pub fn start(mut sources: Sources) -> Result<Started, Vec<LoadError>> {
        let mut errors = Vec::new();
        let mut read = Vec::new();
        for one in pairs::read_all(&mut sources, &Kept::default()) {
            one.map_or_else(|error| errors.push(error), |one| read.push(one));
        }
        let clients = match load(&mut sources) {
            Ok(clients) if errors.is_empty() => clients,
            other => {
                errors.extend(other.err());
                return Err(errors);
            }
        };
        let (set, doubled) = pairs::set(&read, sources.strict_sni);
        let kept = Kept::of(&read);
        let findings = read.into_iter().flat_map(|one| one.findings).chain(doubled).chain(clients.findings).collect();
        let (publisher, identities) = rotation::channel(set);
        let (trust, clients) = watch::channel(Arc::new(clients.trust));
        Ok(Started { identities, clients, findings, reloader: Self { sources, kept, publisher, trust } })
    }

    /// Reloads `sources` into `publisher`, and asks no client for a certificate.
    pub fn new(sources: impl Into<Sources>, publisher: Publisher) -> Self {
        let (trust, _) = watch::channel(Arc::new(ClientTrust::nobody()));
        Self { sources: sources.into(), kept: Kept::default(), publisher, trust }
    }

    /// Waits until a secret of the material has changed since the last reading; for ever where it
    /// holds none that could.
    pub async fn changed(&mut self) {
        watched::changed(self.inputs()).await;
    }

    /// What has changed so far is no reason to read the material again: it is about to be read.
    pub fn seen(&mut self) {
        watched::seen(self.inputs());
    }

    fn inputs(&mut self) -> impl Iterator<Item = &mut Input> {
        let Sources { pair, more, clients, .. } = &mut self.sources;
        let clients = clients.iter_mut().map(|clients| &mut clients.authority.value);
        std::iter::once(pair).chain(more).flat_map(|pair| pair.inputs()).chain(clients)
    }

    /// True where a change of a secret may change a pair.
    pub fn is_watched(&self) -> bool {
        self.sources.is_watched()
    }

    /// Reads the material now. Blocks for as long as the file system does.
    pub fn reload(&mut self) -> Outcome {
        let candidate = Candidate::of(&mut self.sources, &self.kept, &self.publisher, &self.trust);
        self.settle_again(candidate)
    }

    /// Reads the material, which has just changed. What looks half written, or is not there, is looked at again for as
    /// long as `patience`, and only then rejected. Blocks for that time.
    pub fn reload_patiently(&mut self, patience: Duration) -> Outcome {
        let end = Instant::now() + patience;
        loop {
            let candidate = Candidate::of(&mut self.sources, &self.kept, &self.publisher, &self.trust);
            match candidate {
                Err(error) if error.may_be_torn() && Instant::now() < end => std::thread::sleep(LOOK),
                candidate => return self.settle_again(candidate),
            }
        }
    }

    /// Settles material from where it was before. A client that is revoked does not stay because a certificate of ours is
    /// broken: whom to trust is taken by itself where the pairs are rejected.
    fn settle_again(&mut self, candidate: Result<Candidate, LoadError>) -> Outcome {
        if candidate.is_err() {
            self.take_trust();
        }
        self.settle(candidate)
    }

    /// Takes whom to trust from where it was before, as far as that is good.
    fn take_trust(&mut self) {
        if let Ok(clients) = load(&mut self.sources)
            && !clients.trust.same(&self.trust.borrow())
            && as_good(&clients.trust, &self.trust.borrow(), SystemTime::now()).is_ok()
        {
            self.trust.send_replace(Arc::new(clients.trust));
        }
    }

    /// The development CA and leaf that are served, where they are that and the leaf ends soon. Reads files.
    #[cfg(feature = "self-signed")]
    pub fn development_due(&self) -> Option<SelfSigned> {
        let served = self.publisher.served();
        if SelfSigned::is_due(served.identity().leaf()) { SelfSigned::keeping(&self.sources.pair) } else { None }
    }

    /// Reads the material from `sources`, which are those from then on, unless it is rejected. What is where it was
    /// before is then read all the same: it is not to end, nor a revoked client to stay, because of what takes its place.
    pub fn reload_from(&mut self, mut sources: Sources) -> Outcome {
        let candidate = Candidate::of(&mut sources, &self.kept, &self.publisher, &self.trust);
        if candidate.is_ok() {
            self.sources = sources;
        } else if let Ok(before) = Candidate::of(&mut self.sources, &self.kept, &self.publisher, &self.trust) {
            self.take(before);
        } else {
            self.take_trust();
        }
        self.settle(candidate)
    }

    /// Reads the material from `sources` and says what a reload would do, without doing it.
    pub fn check(&self, mut sources: Sources) -> Outcome {
        match Candidate::of(&mut sources, &self.kept, &self.publisher, &self.trust) {
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
    fn take(&mut self, Candidate { set, clients, kept }: Candidate) -> Vec<Finding> {
        self.kept = kept;
        let mut said = Vec::new();
        if let Some(LoadedClients { trust, findings }) = clients {
            self.trust.send_replace(Arc::new(trust));
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

/// What is new.
struct Candidate {
    set: Option<(IdentitySet, Vec<Finding>)>,
    clients: Option<LoadedClients>,
    kept: Kept,
}

impl Candidate {
    /// What may be served instead of what is; nothing of what is the same.
    fn of(
        sources: &mut Sources,
        kept: &Kept,
        publisher: &Publisher,
        trust: &watch::Sender<Arc<ClientTrust>>,
    ) -> Result<Self, LoadError> {
        let now = SystemTime::now();
        let read = all(pairs::read_all(sources, kept))?;
        let clients = load(sources)?;
        let clients = (!clients.trust.same(&trust.borrow())).then_some(clients);
        if let Some(new) = &clients {
            as_good(&new.trust, &trust.borrow(), now)?;
        }
        let serving = publisher.served().identities;
        let (set, doubled) = pairs::set(&read, sources.strict_sni);
        let kept = Kept::of(&read);
        if set.same(&serving) {
            return Ok(Self { set: None, clients, kept });
        }
        for (at, One { identity, .. }) in read.iter().enumerate() {
            let is_default = at == 0 && !identity.same_chain(serving.default());
            if !is_default && serving.iter().any(|one| one.same_chain(identity)) {
                continue;
            }
            // What clients of each of its names get now, and everybody else where it is to be the default.
            let named = identity
                .leaf()
                .dns_names()
                .filter_map(|name| serving.for_name(name).find(|one| pairs::kind(one) == pairs::kind(identity)));
            let mut before = named.chain(is_default.then(|| serving.default()));
            if before.any(|before| worse(identity.leaf(), before.leaf(), now)) {
                return Err(not_taken(identity, now));
            }
        }
        let findings = read.into_iter().flat_map(|one| one.findings).chain(doubled).collect();
        Ok(Self { set: Some((set, findings)), clients, kept })
    }
}

/// All of them, or the first that failed and how many more did.
fn all(read: Vec<Result<One, LoadError>>) -> Result<Vec<One>, LoadError> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for one in read {
        one.map_or_else(|error| bad.push(error), |one| good.push(one));
    }
    let more = bad.len().saturating_sub(1);
    match bad.into_iter().next() {
        None => Ok(good),
        Some(first) if more == 0 => Err(first),
        Some(first) => Err(LoadError::Several { first: Box::new(first), more }),
    }
}

/// Whose client certificates `sources` take.
fn load(sources: &mut Sources) -> Result<LoadedClients, LoadError> {
    match &mut sources.clients {
        Some(material) => load_clients(material),
        None => Ok(LoadedClients { trust: ClientTrust::nobody(), findings: Vec::new() }),
    }
}

fn not_taken(new: &Identity, now: SystemTime) -> LoadError {
    let (subject, origin) = (new.leaf().subject.clone(), new.certificate_origin().clone());
    match new.leaf().validity(now) {
        Validity::NotYet { starts_in } => LoadError::NotYet { subject, origin, starts_in },
        _ => LoadError::OutOfDate { subject, origin },
    }
}

/// Refuses CAs and revocation lists that are out of date in place of ones that are not: all clients would be refused.
fn as_good(new: &ClientTrust, serving: &ClientTrust, now: SystemTime) -> Result<(), LoadError> {
    let in_date = |trust: &ClientTrust| trust.authorities().iter().any(|ca| ca.validity(now).is_in_date());
    let origin = || new.origin().clone();
    match new.authorities().first() {
        Some(ca) if !in_date(new) && in_date(serving) => {
            Err(LoadError::OutOfDate { subject: ca.subject.clone(), origin: origin() })
        }
        Some(_) if lists_ended(new, now) && !lists_ended(serving, now) => {
            Err(LoadError::ListOutOfDate { origin: origin() })
        }
        _ => Ok(()),
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
