//! The findings about a chain that a server on the network presents.

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use tls_core::{CertificateSummary, IdentityError};

use crate::diagnostics::checks;
use crate::diagnostics::compatibility::Clients;
use crate::diagnostics::facts::Facts;
use crate::diagnostics::names;
use crate::diagnostics::path::trust::Roots;
use crate::diagnostics::report::{Finding, Severity};

/// Why a chain does not lead to a root of this system's store.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Untrusted(webpki::Error);

/// A chain as presented, and the findings about it.
#[derive(Debug)]
pub struct Presented {
    /// The certificates, leaf first.
    pub chain: Vec<CertificateSummary>,
    /// Whether a root in this system's store issued it.
    pub trusted: Result<(), Untrusted>,
    /// The findings.
    pub findings: Vec<Finding>,
    /// For each client, whether it would accept the chain, provided that it trusts the CA.
    pub accepted_by: Vec<(&'static str, bool)>,
}

impl Presented {
    /// Checks `chain`, which `origin` presents to clients that connect to each of `names`.
    ///
    /// # Errors
    /// Fails if a certificate is not X.509.
    pub fn of(
        chain: &[CertificateDer<'_>],
        origin: &str,
        names: &[String],
        now: SystemTime,
    ) -> Result<Self, IdentityError> {
        let summaries = chain.iter().map(CertificateSummary::read).collect::<Result<Vec<_>, _>>()?;
        let (Some(leaf), Some((first, intermediates))) = (summaries.first(), chain.split_first()) else {
            return Err(IdentityError::Empty);
        };
        let roots = Roots::default();
        let trusted = roots.verify(first, intermediates, now);
        let diagnosis = checks::chain(chain, leaf, origin, &roots, &[], now);
        let mut findings = diagnosis.findings;
        if let Some(facts) = Facts::of(first) {
            findings.extend(names::findings(&facts, origin, names));
        }
        if let Some(root) = diagnosis.root_sent {
            findings.push(Finding {
                code: "TLS-ROOT-SENT",
                severity: Severity::Info,
                origin: origin.to_owned(),
                subject: leaf.subject.clone(),
                message: format!(
                    "the chain ends with the root {root}: clients that trust it have it already, so it need not be sent"
                ),
                fix: format!("remove the certificate of {root} from the file"),
                refused_by: Clients::NONE,
            });
        }
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let refused = findings.iter().map(|finding| finding.refused_by).fold(Clients::NONE, Clients::or);
        let accepted_by = refused.accepted_by();
        Ok(Self { trusted: trusted.map_err(Untrusted), findings, accepted_by, chain: summaries })
    }
}
