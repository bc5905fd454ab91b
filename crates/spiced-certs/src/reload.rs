//! Reads the material again, checks it as a whole, and publishes it; what fails keeps what serves.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use metrics::counter;
use tls_core::rotation::{self, Identities, Publisher};
use tls_core::{CertificateSummary, ClientAuthPolicy, Identity, SniCertResolver, Validity};
use tokio::sync::watch;

use crate::check_config::names_of;
use crate::client_ca::{LoadedClients, lists_ended, load_clients};
use crate::compatibility::{self, Clients};
use crate::diagnostics::{self, Finding, Severity};
use crate::facts::{Facts, Signed};
use crate::load::LoadError;
use crate::names;
use crate::pairs::{self, IdentityCache, LoadedPair};
#[cfg(feature = "self-signed")]
use crate::source::self_signed::SelfSigned;
use crate::source::{Input, Sources, watched};
use crate::trust::Roots;

/// How often material is looked at again that may be half written.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Reloads the pairs of a server, and whom it trusts among clients.
#[derive(Debug)]
pub struct Reloader {
    sources: Sources,
    kept: IdentityCache,
    publisher: Publisher,
    trust: watch::Sender<Arc<ClientAuthPolicy>>,
    /// What was found of the trust in force.
    of_trust: Vec<Finding>,
}

/// Material that is read, and whoever reads it again.
#[derive(Debug)]
pub struct Started {
    /// What endpoints present.
    pub identities: Identities,
    /// Whom they trust among clients.
    pub clients: watch::Receiver<Arc<ClientAuthPolicy>>,
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
        let of_trust = clients.findings.clone();
        let findings = findings.chain(clients.findings).collect();
        let (publisher, identities) = rotation::channel(set);
        let (trust, clients) = watch::channel(Arc::new(clients.trust));
        Ok(Started { identities, clients, findings, reloader: Self { sources, kept, publisher, trust, of_trust } })
    }

    /// Reloads `sources` into `publisher`, and asks no client for a certificate.
    pub fn new(sources: impl Into<Sources>, publisher: Publisher) -> Self {
        let (trust, _) = watch::channel(Arc::new(ClientAuthPolicy::nobody()));
        Self { sources: sources.into(), kept: IdentityCache::default(), publisher, trust, of_trust: Vec::new() }
    }

    /// Waits until a secret of the material has changed since the last reading; forever where it
    /// holds none that could.
    pub async fn changed(&mut self) {
        watched::changed(self.inputs()).await;
    }

    /// What has changed so far is no reason to read the material again: it is about to be read.
    pub fn mark_seen(&mut self) {
        watched::mark_seen(self.inputs());
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
        let candidate = self.candidate(false);
        self.settle_again(candidate)
    }

    /// Reads the material, which has just changed. What looks half written, or is not there, is looked at again for as
    /// long as `patience`, and only then rejected. Blocks for that time.
    pub fn reload_patiently(&mut self, patience: Duration) -> Outcome {
        let end = Instant::now() + patience;
        loop {
            match self.candidate(false) {
                Err(error) if error.maybe_partial_write() && Instant::now() < end => std::thread::sleep(POLL_INTERVAL),
                candidate => return self.settle_again(candidate),
            }
        }
    }

    /// Reads the material from where it was before.
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
            && not_worse(&clients.trust, &self.trust.borrow(), SystemTime::now()).is_ok()
            && locks_out(&clients, &self.trust.borrow(), &self.of_trust, &self.sources.accept_findings).is_none()
        {
            self.of_trust = clients.findings;
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
    /// `force`: also where clients would refuse it.
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

    /// Reads the material from `sources` and says what a reload would do, without doing it.
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

    /// Puts a candidate before every handshake from now on; gives what is to be said of it.
    fn swap(&mut self, Candidate { set, clients, kept }: Candidate) -> Vec<Finding> {
        self.kept = kept;
        let mut said = Vec::new();
        if let Some(LoadedClients { trust, findings }) = clients {
            self.trust.send_replace(Arc::new(trust));
            self.of_trust = findings.clone();
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

/// What serves.
struct InForce<'a> {
    kept: &'a IdentityCache,
    publisher: &'a Publisher,
    trust: &'a watch::Sender<Arc<ClientAuthPolicy>>,
    of_trust: &'a [Finding],
}

/// What is new.
struct Candidate {
    set: Option<(SniCertResolver, Vec<Finding>)>,
    clients: Option<LoadedClients>,
    kept: IdentityCache,
}

impl Candidate {
    /// What may be served instead of what is; nothing of what is the same.
    fn of(sources: &mut Sources, in_force: &InForce<'_>, force: bool) -> Result<Self, LoadError> {
        let InForce { kept, publisher, trust, of_trust } = *in_force;
        let mut overridden = Vec::new();
        let now = SystemTime::now();
        let roots = Roots::default();
        let read = all(pairs::read_all(sources, kept, &roots))?;
        let clients = load(sources)?;
        let clients = (!clients.trust.same(&trust.borrow())).then_some(clients);
        if let Some(new) = &clients {
            not_worse(&new.trust, &trust.borrow(), now)?;
            if let Some(finding) = locks_out(new, &trust.borrow(), of_trust, &sources.accept_findings)
                && !force
            {
                return Err(LoadError::LocksOut { finding: Box::new(finding) });
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
            // What clients of each of its names get now, and everybody else where it is to be the default.
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
            // What it takes the place of, where the names say nothing of it.
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

/// All of them, or everything that failed.
fn all(read: Vec<Result<LoadedPair, Vec<LoadError>>>) -> Result<Vec<LoadedPair>, LoadError> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for one in read {
        one.map_or_else(|errors| bad.extend(errors), |one| good.push(one));
    }
    if bad.is_empty() { Ok(good) } else { Err(LoadError::all(bad)) }
}

/// Whose client certificates `sources` take.
fn load(sources: &mut Sources) -> Result<LoadedClients, LoadError> {
    match &mut sources.clients {
        Some(material) => load_clients(material),
        None => Ok(LoadedClients { trust: ClientAuthPolicy::nobody(), findings: Vec::new() }),
    }
}

fn not_taken(new: &Identity, now: SystemTime) -> LoadError {
    let (subject, origin) = (new.leaf().subject.clone(), new.certificate_origin().clone());
    match new.leaf().validity(now) {
        Validity::NotYet { starts_in } => LoadError::NotYet { subject, origin, starts_in },
        _ => LoadError::OutOfDate { subject, origin },
    }
}

/// The finding for which clients that are accepted now would be refused from then on, if there is one: of a CA that is in
/// force or, where there is no other, of a new one. `accepted` are the codes of findings that keep nothing from being
/// taken.
fn locks_out(
    new: &LoadedClients,
    serving: &ClientAuthPolicy,
    known: &[Finding],
    accepted: &[String],
) -> Option<Finding> {
    const CODES: [&str; 3] = ["TLS-CRL-SIGNATURE", "TLS-CRL-MISSING", "TLS-CLIENT-CA-NOT-CA"];
    let authorities = new.trust.authorities();
    let counts = |finding: &&Finding| {
        CODES.contains(&finding.code)
            && !accepted.iter().any(|code| code == finding.code)
            && !known.iter().any(|other| (other.code, &other.subject) == (finding.code, &finding.subject))
    };
    let serves = |subject: &str| serving.authorities().iter().any(|ca| ca.subject == subject);
    let is_lost = |subject: &str| new.findings.iter().filter(counts).any(|finding| finding.subject == subject);
    let all_lost = authorities.iter().all(|ca| is_lost(&ca.subject));
    let mut found = new.findings.iter().filter(counts);
    if serving.authorities().is_empty() {
        return None;
    }
    found.find(|finding| all_lost || finding.code != "TLS-CLIENT-CA-NOT-CA" && serves(&finding.subject)).cloned()
}

/// What speaks against a new certificate by who issued the one before: clients trust that CA.
fn other_ca(new: &Identity, before: &Identity, roots: &Roots, now: SystemTime) -> Option<Finding> {
    let chains = [new, before].map(|identity| &identity.certified_key().cert);
    let [facts, facts_before] = chains.map(|chain| chain.iter().filter_map(Facts::of).collect::<Vec<_>>());
    let (leaf, leaf_before) = (facts.first()?, facts_before.first()?);
    let (der, intermediates) = chains[0].split_first()?;
    if leaf_before.is_self_issued() || roots.verify(der, intermediates, now).is_ok() {
        return None;
    }
    let (path, path_before) = (climb(&facts), climb(&facts_before));
    let (top, top_before) = (path.last()?, path_before.last()?);
    let finding = |code, severity, message: String, fix: &str| {
        let refused_by = if severity == Severity::Error { Clients::ALL } else { Clients::NONE };
        let (origin, subject) = (new.certificate_origin().to_string(), new.leaf().subject.clone());
        Some(Finding { code, severity, origin, subject, message, fix: fix.to_owned(), refused_by })
    };
    const GIVE: &str = "give the certificate that the CA of the present one issued, with its intermediates";
    if leaf.is_self_issued() {
        let message = format!("the new certificate vouches for itself, and clients trust {}", leaf_before.issuer());
        return finding("TLS-OTHER-CA", Severity::Error, message, GIVE);
    }
    // What the certificate before was issued by, from the leaf up to a root.
    let is_known = path_before.iter().any(|one| one.x509.issuer().as_raw() == top.x509.issuer().as_raw());
    let is_intermediate = path_before.iter().skip(1).any(|one| top.names_as_issuer(one) && !one.is_self_issued());
    let stray = facts.iter().find(|one| !one.is_self_issued() && !path.iter().any(|other| other.der == one.der));
    if is_intermediate && !top.is_self_issued() {
        let message = format!(
            "the certificate of the issuer ({}) is missing: the present chain has it as an intermediate; clients cannot build              the chain",
            top.issuer()
        );
        return finding("TLS-INTERMEDIATE-MISSING", Severity::Error, message, GIVE);
    }
    if let (Some(stray), false, false) = (stray, is_known, top.is_self_issued()) {
        let message = format!(
            "the certificate of the issuer ({}) is missing, and {}, which is in the file, did not sign any of its chain",
            top.issuer(),
            stray.subject()
        );
        return finding("TLS-INTERMEDIATE-MISSING", Severity::Error, message, GIVE);
    }
    let key_id = |one: &Facts<'_>| one.authority_key().and_then(|id| id.key_identifier).map(|id| id.0.to_vec());
    let same_name = top.x509.issuer().as_raw() == top_before.x509.issuer().as_raw();
    let ids = key_id(top).zip(key_id(top_before));
    let is_another = !same_name || ids.is_some_and(|(new, before)| new != before);
    let may_be_root = !top.is_self_issued() && !top_before.is_self_issued();
    if is_another && (may_be_root || !same_name) {
        let what = if same_name { "another key of " } else { "" };
        let message = format!(
            "the new certificate is issued by {what}{}, and the present one by {}: clients that do not trust the new CA              refuse it",
            top.issuer(),
            top_before.issuer()
        );
        return finding("TLS-OTHER-CA", Severity::Warning, message, "have clients trust the new CA, too");
    }
    None
}

/// The leaf and those that signed it, one after the other.
fn climb<'f>(facts: &'f [Facts<'f>]) -> Vec<&'f Facts<'f>> {
    let mut path: Vec<&Facts<'_>> = facts.first().into_iter().collect();
    while let Some(last) = path.last().filter(|last| !last.is_self_issued()) {
        let is_issuer = |one: &&Facts<'_>| last.names_as_issuer(one) && last.signed_by(one) == Signed::Yes;
        match facts.iter().filter(|one| !path.iter().any(|other| other.der == one.der)).find(is_issuer) {
            Some(issuer) => path.push(issuer),
            None => break,
        }
    }
    path
}

/// Refuses a certificate that clients would refuse where they take `before`, which it replaces in part or as a whole:
/// for its chain, and for the names that `set` answers for with another one from then on. `accepted` are the codes of
/// findings that keep nothing from being taken.
fn not_refused(
    new: &Arc<Identity>,
    before: &Identity,
    set: &SniCertResolver,
    accepted: &[String],
    roots: &Roots,
    now: SystemTime,
) -> Result<Option<Finding>, LoadError> {
    let chain = |identity: &Identity, hints: &[_]| {
        let origin = identity.certificate_origin().to_string();
        diagnostics::chain(&identity.certified_key().cert, identity.leaf(), &origin, roots, hints, now).findings
    };
    let counts =
        |finding: &&Finding| finding.severity > Severity::Info && !accepted.iter().any(|code| code == finding.code);
    let refused_before = chain(before, &[]).iter().map(|finding| finding.refused_by).fold(Clients::NONE, Clients::or);
    let refuse = |finding: &Finding, before: Clients| {
        let clients = finding.refused_by.without(before);
        if clients.is_empty() {
            Ok(())
        } else {
            Err(LoadError::Refused { finding: Box::new(finding.clone()), clients })
        }
    };
    chain(new, &before.certified_key().cert)
        .iter()
        .filter(counts)
        .try_for_each(|finding| refuse(finding, refused_before))?;
    let other_ca = other_ca(new, before, roots, now).filter(|finding| counts(&finding));
    if let Some(finding) = &other_ca {
        refuse(finding, refused_before)?;
    }
    let Some(leaf) = before.certified_key().cert.first().and_then(Facts::of) else { return Ok(other_ca) };
    for name in names::own(&leaf) {
        // An address is asked for by nobody (RFC 6066 §3).
        let asked = Some(name.as_str()).filter(|name| name.parse::<IpAddr>().is_err());
        // Without an answer, whoever asked was refused on purpose (strict_sni), and is so by the pod.
        let Some(answer) = set.answer(asked) else { continue };
        let before = refused_before.or(compatibility::refusing(&leaf, &name));
        names_of(answer, &[name]).iter().filter(counts).try_for_each(|finding| refuse(finding, before))?;
    }
    Ok(other_ca)
}

/// Refuses CAs and revocation lists that are out of date in place of ones that are not: all clients would be refused.
fn not_worse(new: &ClientAuthPolicy, serving: &ClientAuthPolicy, now: SystemTime) -> Result<(), LoadError> {
    let in_date = |trust: &ClientAuthPolicy| trust.authorities().iter().any(|ca| ca.validity(now).is_in_date());
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
fn would_regress(new: &CertificateSummary, serving: &CertificateSummary, now: SystemTime) -> bool {
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
