//! Decides whether new material may replace the material in use: it must not be worse, and clients that are accepted or
//! that accept must not be lost.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use tls_core::{CertificateSummary, ClientAuthPolicy, Identity, SniCertResolver, Validity};

use crate::client_ca::{ListIssue, LoadedClients, lists_ended, older_list};
use crate::diagnostics::check_config::names_of;
use crate::diagnostics::compatibility::{self, Clients};
use crate::diagnostics::facts::{Facts, Signed};
use crate::diagnostics::path::trust::Roots;
use crate::diagnostics::{self, Finding, Severity, names};
use crate::load::LoadError;

/// What is kept of the current client policy, to judge the next one.
#[derive(Debug, Default)]
pub(super) struct TrustRecord {
    pub(super) findings: Vec<Finding>,
    pub(super) lists: Vec<ListIssue>,
}

pub(super) fn not_taken(new: &Identity, now: SystemTime) -> LoadError {
    let (subject, origin) = (new.leaf().subject.clone(), new.certificate_origin().clone());
    match new.leaf().validity(now) {
        Validity::NotYet { starts_in } => LoadError::NotYet { subject, origin, starts_in },
        _ => LoadError::OutOfDate { subject, origin },
    }
}

/// Refuses a client policy that would refuse clients that are accepted now, or that would accept revoked ones again.
/// Findings whose code is in `accepted` do not count.
pub(super) fn judge(
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
pub(super) fn not_refused(
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
pub(super) fn not_worse(new: &ClientAuthPolicy, serving: &ClientAuthPolicy, now: SystemTime) -> Result<(), LoadError> {
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
pub(super) fn would_regress(new: &CertificateSummary, serving: &CertificateSummary, now: SystemTime) -> bool {
    let in_date = |leaf: &CertificateSummary| leaf.validity(now).is_in_date();
    !in_date(new) && (in_date(serving) || new.not_after <= serving.not_after)
}
