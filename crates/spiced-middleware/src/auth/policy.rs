//! The access policy: the same for all endpoints, and replaced as a whole.

use std::sync::Arc;
use std::time::SystemTime;

use spiced_engine::{Principal, Role};
use tls_core::{ClientCertificate, TlsInfo};

use crate::auth::identities::Identities;
use crate::auth::keys::ApiKeys;
use crate::auth::refusal::Refusal;

/// The accepted credentials, and the rights of callers without any.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// API keys; `None` if none are configured: then keys in requests are ignored.
    pub keys: Option<Arc<ApiKeys>>,
    /// The identities of verified client certificates; `None` if none are requested.
    pub certificates: Option<Identities>,
    /// Whether a caller needs both a key and a certificate, if both are configured.
    pub require_all: bool,
    /// The rights of callers without credentials.
    pub anonymous: Anonymous,
}

/// The rights of callers without credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Anonymous {
    /// Full rights on an endpoint that only this machine reaches, if no credentials are configured; no access
    /// otherwise.
    #[default]
    Unsaid,
    /// No access, or the rights of a role.
    Said(Option<Role>),
}

impl Policy {
    /// Returns true if `other` accepts the same callers with the same rights.
    pub fn same(&self, other: &Self) -> bool {
        let keys = match (&self.keys, &other.keys) {
            (Some(mine), Some(theirs)) => mine.same(theirs),
            (None, None) => true,
            _ => false,
        };
        keys && self.certificates == other.certificates
            && (self.require_all, self.anonymous) == (other.require_all, other.anonymous)
    }

    /// Returns whether any credentials are configured.
    pub fn has_credentials(&self) -> bool {
        self.keys.is_some() || self.certificates.is_some()
    }

    /// Returns the role of a caller without credentials. `is_local` means that only this machine reaches the endpoint.
    pub fn anonymous(&self, is_local: bool) -> Option<Role> {
        match self.anonymous {
            Anonymous::Said(role) => role,
            Anonymous::Unsaid if is_local && !self.has_credentials() => Some(Role::ReadWrite),
            Anonymous::Unsaid => None,
        }
    }

    /// Returns whether a caller needs both a key and a certificate.
    pub(crate) fn wants_both(&self) -> bool {
        self.require_all && self.keys.is_some() && self.certificates.is_some()
    }

    /// Returns the name and the role of a certificate's identity; `None` if no certificate was presented.
    pub(crate) fn client_identity(
        &self,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Option<(String, Role)>, Refusal> {
        let (Some(identities), Some(certificate)) = (&self.certificates, certificate) else { return Ok(None) };
        if !certificate.is_in_date(SystemTime::now()) {
            return Err(Refusal::CertificateEnded);
        }
        if certificate.is_distrusted() {
            return Err(Refusal::CertificateDistrusted);
        }
        identities.find(certificate).map(Some).ok_or(Refusal::Unmapped)
    }

    /// Returns whether a caller accepted as `principal` would be accepted now, with at least the same rights.
    pub(crate) fn still_admits(&self, principal: &Principal, tls: Option<&TlsInfo>, is_local: bool) -> bool {
        let certificate = tls.and_then(|tls| tls.client.as_ref());
        let holder = self.client_identity(certificate);
        if let Err(Refusal::CertificateEnded | Refusal::CertificateDistrusted) = holder {
            return false;
        }
        let suffices = |role: Role| role >= principal.role();
        let holder = holder.ok().flatten();
        if *principal == Principal::anonymous(principal.role()) {
            return holder.is_none() && self.anonymous(is_local).is_some_and(suffices);
        }
        let mut bearers = self.keys.iter().flat_map(|keys| keys.bearers());
        if self.wants_both() {
            return holder.is_some_and(|(name, role)| {
                bearers.any(|key| principal.name() == format!("{} {name}", key.name) && suffices(role.min(key.role)))
            });
        }
        bearers.any(|key| *key.name == *principal.name() && suffices(key.role))
            || holder.is_some_and(|(name, role)| name == principal.name() && suffices(role))
    }
}
