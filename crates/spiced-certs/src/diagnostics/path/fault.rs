//! A fault in a chain, and the result of a verification.

use rustls_pki_types::CertificateDer;

use crate::diagnostics::compatibility::Clients;

/// A fault in a chain.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) code: &'static str,
    pub(crate) refused_by: Clients,
    pub(crate) message: String,
    pub(crate) fix: String,
}

/// The result of a verification.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    pub(crate) faults: Vec<Fault>,
    /// What could not be checked, one sentence each.
    pub(crate) unchecked: Vec<String>,
    /// The subject of the root that the chain leads to, if it is part of the chain.
    pub(crate) root_sent: Option<String>,
    /// The topmost certificate, if its issuer's certificate is not available.
    pub(crate) open_end: Option<CertificateDer<'static>>,
    /// A sentence stating the assumption that its issuer is a root that clients have, if nothing contradicts it.
    pub(crate) taken_for_root: Option<String>,
}
