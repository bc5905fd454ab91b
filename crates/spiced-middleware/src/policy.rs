//! The access policy: the same for all endpoints, and replaced as a whole.

use std::sync::Arc;

use spiced_engine::Role;

use crate::identities::Identities;
use crate::keys::ApiKeys;

/// The accepted credentials, and the rights of callers without any.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// API keys; `None` if none are configured: then keys in requests are ignored.
    pub keys: Option<Arc<ApiKeys>>,
    /// The identities of verified client certificates; `None` if clients are not asked for one.
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
}
