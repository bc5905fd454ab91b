//! Loads CA certificates and revocation lists into a [`ClientAuthPolicy`](tls_core::ClientAuthPolicy), with the
//! findings about them.

use std::time::SystemTime;

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use tls_core::{CertificateSummary, ClientAuth, ClientAuthError, ClientAuthPolicy, Sourced};
use x509_parser::oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use crate::diagnostics::compatibility::Clients;
use crate::diagnostics::facts::{Facts, Signed};
use crate::diagnostics::{Finding, Severity, Whose, span};
use crate::load::{LoadError, Unusable};
use crate::pem::{self, Expected};
use crate::source::{Input, read};

/// Where the material for verifying client certificates is read from.
#[derive(Debug, Clone)]
pub struct ClientMaterial {
    /// Whether client certificates are requested.
    pub mode: ClientAuth,
    /// The CA certificates that client certificates are verified with.
    pub authority: Sourced<Input>,
    /// The revocation lists, PEM or DER; without one, no certificate is revoked.
    pub lists: Vec<Sourced<Input>>,
}

/// A client policy, and what an operator should know about it.
#[derive(Debug)]
pub struct LoadedClients {
    /// The policy.
    pub trust: ClientAuthPolicy,
    /// Findings that do not prevent the policy from being used.
    pub findings: Vec<Finding>,
    /// The revocation lists in use.
    pub(crate) lists: Vec<ListIssue>,
}

/// Which revocation list is in use, and when its CA issued it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListIssue {
    issuer: String,
    part: Option<Vec<u8>>,
    since: i64,
    origin: String,
}

/// Returns the finding that a list of `new` is older than the list of the same CA in `before`: clients revoked between
/// the two would be accepted again.
pub(crate) fn older_list(new: &[ListIssue], before: &[ListIssue]) -> Option<Finding> {
    let is_older = |new: &&ListIssue| {
        let same = |old: &&ListIssue| (&old.issuer, &old.part) == (&new.issuer, &new.part);
        before.iter().find(same).is_some_and(|old| new.since < old.since)
    };
    let list = new.iter().find(is_older)?;
    Some(Finding {
        code: "TLS-CRL-OLDER",
        severity: Severity::Error,
        origin: list.origin.clone(),
        subject: list.issuer.clone(),
        message: "the revocation list is older than the one in force: clients revoked since then would be accepted"
            .to_owned(),
        fix: "fetch the CA's current list".to_owned(),
        refused_by: Clients::NONE,
    })
}

/// Reads the CA certificates and the revocation lists. A FIFO can be read only once, so its content replaces it as
/// text.
///
/// # Errors
/// Fails if an input cannot be read, or is not what it should be.
pub fn load_clients(material: &mut ClientMaterial) -> Result<LoadedClients, LoadError> {
    let now = SystemTime::now();
    let refused = |authority: &Sourced<Input>, reason: String| {
        let fix = "give the certificate of the CA that signs client certificates, as its CA publishes it".to_owned();
        Unusable::of(authority, Expected::ClientCa, "TLS-CLIENT-CA", reason, fix)
    };
    let authorities = pem::certificates(&read::read(&mut material.authority)?)
        .map_err(|reason| Unusable::pem(&material.authority, Expected::ClientCa, &reason))?;
    let mut findings = Vec::new();
    let mut issuers = Vec::new();
    for authority in &authorities {
        let summary = CertificateSummary::read(authority).map_err(|e| refused(&material.authority, e.to_string()))?;
        findings.extend(Whose::ClientCa.ending(&summary, &material.authority.origin.to_string(), now));
        if let Ok((_, parsed)) = X509Certificate::from_der(authority) {
            if !parsed.is_ca() {
                findings.push(Finding {
                    code: "TLS-CLIENT-CA-NOT-CA",
                    severity: Severity::Warning,
                    origin: material.authority.origin.to_string(),
                    subject: summary.subject,
                    message: "the client CA is not marked as a CA: it can verify only itself".to_owned(),
                    fix: "give the certificate of the CA that signs client certificates (basicConstraints=CA:TRUE)"
                        .to_owned(),
                    refused_by: Clients::NONE,
                });
            }
            issuers.push(parsed.subject().to_string());
        }
    }
    let mut lists: Vec<Listed> = Vec::new();
    for list in &mut material.lists {
        let found = pem::revocation_lists(&read::read(list)?)
            .map_err(|reason| Unusable::pem(list, Expected::RevocationList, &reason))?;
        for der in found {
            let mut listed = {
                let bytes = der.clone();
                let (_, parsed) = CertificateRevocationList::from_der(&bytes)
                    .map_err(|_| unusable_list(list, "it is not one in DER (RFC 5280 §5)".to_owned()))?;
                Listed::of(der, &parsed, list, &authorities)
            };
            match lists.iter_mut().find(|other| other.is_about_the_same(&listed)) {
                // A CA's older list adds nothing to its newer one.
                Some(other) if other.since >= listed.since => continue,
                Some(other) => std::mem::swap(other, &mut listed),
                None => lists.push(listed),
            }
        }
    }
    findings.extend(lists.iter().filter_map(|list| list.finding(now)));
    findings.extend(lists.iter().filter(|list| list.is_forged).map(|list| Finding {
        code: "TLS-CRL-SIGNATURE",
        severity: Severity::Error,
        origin: list.origin.clone(),
        subject: list.issuer.clone(),
        message: format!(
            "the revocation list has the name of the CA {}, which did not sign it: every client of that CA is refused",
            list.issuer
        ),
        fix: "fetch the CA's current list; it is loaded automatically".to_owned(),
        refused_by: Clients::NONE,
    }));
    if !lists.is_empty() {
        for issuer in issuers.iter().filter(|issuer| !lists.iter().any(|list| list.issuer == **issuer)) {
            findings.push(Finding {
                code: "TLS-CRL-MISSING",
                severity: Severity::Warning,
                origin: material.authority.origin.to_string(),
                subject: issuer.clone(),
                message:
                    "there are revocation lists, but none of this CA: every client with a certificate of this CA is \
                     refused"
                        .to_owned(),
                fix: "add the CA's own list to client_crl_files".to_owned(),
                refused_by: Clients::NONE,
            });
        }
    }
    let issues = lists.iter().map(Listed::issue).collect();
    let lists = lists.into_iter().map(|list| list.der).collect();
    let trust = ClientAuthPolicy::new(material.mode, &authorities, lists).map_err(|error| match error {
        ClientAuthError::Authority(_) => refused(&material.authority, error.to_string()),
        _ => match material.lists.first() {
            Some(list) => unusable_list(list, error.to_string()),
            None => refused(&material.authority, error.to_string()),
        },
    })?;
    let trust = trust.sourced(material.authority.origin.clone());
    Ok(LoadedClients { trust, findings, lists: issues })
}

fn unusable_list(list: &Sourced<Input>, reason: String) -> LoadError {
    let fix = "fetch the CA's current list again; `openssl crl -text -noout -in FILE` shows its content".to_owned();
    Unusable::of(list, Expected::RevocationList, "TLS-CRL", reason, fix)
}

/// Returns the findings about the expiry of the policy's CAs and revocation lists.
pub fn clients_ending(trust: &ClientAuthPolicy, now: SystemTime) -> Vec<Finding> {
    let origin = trust.origin().to_string();
    let authorities = trust.authorities().iter().filter_map(|ca| Whose::ClientCa.ending(ca, &origin, now));
    let lists = trust.crl_next_update().filter(|_| lists_ended(trust, now));
    authorities.chain(lists.map(|until| list_ended(Some(until), &origin, String::new(), now))).collect()
}

/// Returns true if a revocation list of `trust` is out of date.
pub(crate) fn lists_ended(trust: &ClientAuthPolicy, now: SystemTime) -> bool {
    trust.crl_next_update().is_some_and(|until| until <= seconds(now))
}

fn list_ended(until: Option<i64>, origin: &str, subject: String, now: SystemTime) -> Finding {
    let message = match until {
        Some(until) => format!("the revocation list is out of date since {}", span(seconds(now) - until, "")),
        None => "the revocation list does not say when the next one is due (nextUpdate)".to_owned(),
    };
    Finding {
        code: "TLS-CRL-OUT-OF-DATE",
        severity: Severity::Error,
        origin: origin.to_owned(),
        subject,
        message: format!("{message}: every client of its CA is refused"),
        fix: "fetch the CA's current list; it is loaded automatically".to_owned(),
        refused_by: Clients::NONE,
    }
}

fn seconds(now: SystemTime) -> i64 {
    now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}

/// A revocation list and its properties.
struct Listed {
    der: CertificateRevocationListDer<'static>,
    issuer: String,
    /// The part of the CA's certificates that the list covers (RFC 5280 §5.2.5); `None` for all.
    part: Option<Vec<u8>>,
    since: i64,
    until: Option<i64>,
    origin: String,
    /// Whether the list bears the name of a CA that did not sign it.
    is_forged: bool,
}

impl Listed {
    fn of(
        der: CertificateRevocationListDer<'static>,
        list: &CertificateRevocationList<'_>,
        from: &Sourced<Input>,
        authorities: &[CertificateDer<'_>],
    ) -> Self {
        let authorities = authorities.iter().filter_map(Facts::of);
        let mut of_issuer = authorities.filter(|ca| ca.x509.subject().as_raw() == list.issuer().as_raw()).peekable();
        let is_forged = of_issuer.peek().is_some() && of_issuer.all(|ca| ca.signed_list(list) == Signed::No);
        let part = list.extensions().iter().find(|e| e.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT);
        Self {
            issuer: list.issuer().to_string(),
            part: part.map(|part| part.value.to_vec()),
            since: list.last_update().timestamp(),
            until: list.next_update().map(|next| next.timestamp()),
            origin: from.origin.to_string(),
            is_forged,
            der,
        }
    }

    fn issue(&self) -> ListIssue {
        let Self { issuer, part, since, origin, .. } = self;
        ListIssue { issuer: issuer.clone(), part: part.clone(), since: *since, origin: origin.clone() }
    }

    fn is_about_the_same(&self, other: &Self) -> bool {
        (&self.issuer, &self.part) == (&other.issuer, &other.part)
    }

    fn finding(&self, now: SystemTime) -> Option<Finding> {
        let ended = self.until.is_none_or(|until| until <= seconds(now));
        ended.then(|| list_ended(self.until, &self.origin, self.issuer.clone(), now))
    }
}
