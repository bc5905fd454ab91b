//! Reads the material again, checks it as a whole and publishes it. If a check fails, the current material stays in
//! use.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use metrics::counter;
use tls_core::rotation::{self, Identities, Publisher};
use tls_core::{CertificateSummary, ClientAuthPolicy, Identity, SniCertResolver, Validity};
use tokio::sync::watch;

use crate::client_ca::{ListIssue, LoadedClients, lists_ended, load_clients, older_list};
use crate::diagnostics::check_config::names_of;
use crate::diagnostics::compatibility::{self, Clients};
use crate::diagnostics::facts::{Facts, Signed};
use crate::diagnostics::names;
use crate::diagnostics::path::trust::Roots;
use crate::diagnostics::{self, Finding, Severity};
use crate::load::LoadError;
use crate::load::pairs::{self, IdentityCache, LoadedPair};
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

/// What is kept of the current client policy, to judge the next one.
#[derive(Debug, Default)]
struct TrustRecord {
    findings: Vec<Finding>,
    lists: Vec<ListIssue>,
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

/// The material in use.
struct InForce<'a> {
    kept: &'a IdentityCache,
    publisher: &'a Publisher,
    trust: &'a watch::Sender<Arc<ClientAuthPolicy>>,
    of_trust: &'a TrustRecord,
}

/// The parts of the new material that differ from the material in use.
struct Candidate {
    set: Option<(SniCertResolver, Vec<Finding>)>,
    clients: Option<LoadedClients>,
    kept: IdentityCache,
}

impl Candidate {
    /// Reads `sources` and checks that they may replace the material in use. Parts that did not change are `None`.
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
fn load(sources: &mut Sources) -> Result<LoadedClients, LoadError> {
    match &mut sources.clients {
        Some(material) => load_clients(material),
        None => Ok(LoadedClients { trust: ClientAuthPolicy::nobody(), findings: Vec::new(), lists: Vec::new() }),
    }
}

fn not_taken(new: &Identity, now: SystemTime) -> LoadError {
    let (subject, origin) = (new.leaf().subject.clone(), new.certificate_origin().clone());
    match new.leaf().validity(now) {
        Validity::NotYet { starts_in } => LoadError::NotYet { subject, origin, starts_in },
        _ => LoadError::OutOfDate { subject, origin },
    }
}

/// Refuses a client policy that would refuse clients that are accepted now, or that would accept revoked ones again.
/// Findings whose code is in `accepted` do not count.
fn judge(
    new: &LoadedClients,
    serving: &ClientAuthPolicy,
    record: &TrustRecord,
    accepted: &[String],
) -> Result<(), LoadError> {
    if let Some(finding) = locks_out(new, serving, &record.findings, accepted) {
        return Err(LoadError::LocksOut { finding: Box::new(finding) });
    }
    match older_list(&new.lists, &record.lists).filter(|finding| !accepted.iter().any(|code| code == finding.code)) {
        Some(finding) => Err(LoadError::OlderList { finding: Box::new(finding) }),
        None => Ok(()),
    }
}

/// Returns the finding for which clients that are accepted now would be refused, if any. It must concern a CA that is
/// in use, unless every new CA has such a finding. Findings whose code is in `accepted` or that were known before do
/// not count.
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

/// Returns the finding that the new certificate has another issuer than the current one, whose CA clients trust.
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
    const GIVE: &str = "use the certificate that the CA of the current one issued, with its intermediates";
    if leaf.is_self_issued() {
        let message = format!("the new certificate is self-signed, and clients trust {}", leaf_before.issuer());
        return finding("TLS-OTHER-CA", Severity::Error, message, GIVE);
    }
    // True if one of the issuers on the current certificate's path, from the leaf up, issued `top`.
    let is_known = path_before.iter().any(|one| one.x509.issuer().as_raw() == top.x509.issuer().as_raw());
    let is_intermediate = path_before.iter().skip(1).any(|one| top.names_as_issuer(one) && !one.is_self_issued());
    let stray = facts.iter().find(|one| !one.is_self_issued() && !path.iter().any(|other| other.der == one.der));
    if is_intermediate && !top.is_self_issued() {
        let message = format!(
            "the certificate of the issuer ({}) is missing: the current chain has it as an intermediate; clients \
             cannot build the chain",
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
            "the new certificate is issued by {what}{}, and the current one by {}: clients that do not trust the new \
             CA refuse it",
            top.issuer(),
            top_before.issuer()
        );
        return finding("TLS-OTHER-CA", Severity::Warning, message, "have clients trust the new CA, too");
    }
    None
}

/// Returns the leaf and the certificates that signed it, in order.
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

/// Refuses a certificate if clients would refuse it and accept `before`, which it replaces in part or entirely. The
/// checks cover its chain, and the names of `before` that `set` answers with another identity from now on. Findings
/// whose code is in `accepted` do not count.
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
        // No client sends an address as its SNI (RFC 6066 §3).
        let asked = Some(name.as_str()).filter(|name| name.parse::<IpAddr>().is_err());
        // No identity answers: strict_sni refuses these clients, as the pod configures it.
        let Some(answer) = set.answer(asked) else { continue };
        let before = refused_before.or(compatibility::refusing(&leaf, &name));
        names_of(answer, &[name]).iter().filter(counts).try_for_each(|finding| refuse(finding, before))?;
    }
    Ok(other_ca)
}

/// Refuses CAs and revocation lists that are out of date if the current ones are not: every client would be refused.
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

/// Returns true if `new` is out of date and no improvement: the current certificate is in date or expires no earlier.
fn would_regress(new: &CertificateSummary, serving: &CertificateSummary, now: SystemTime) -> bool {
    let in_date = |leaf: &CertificateSummary| leaf.validity(now).is_in_date();
    !in_date(new) && (in_date(serving) || new.not_after <= serving.not_after)
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
