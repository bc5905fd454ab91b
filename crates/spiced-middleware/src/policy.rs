//! Who may do what, as it is set up: the same for all endpoints, and replaced as a whole.

use std::sync::Arc;

use spiced_engine::Role;

use crate::identities::Identities;
use crate::keys::ApiKeys;

/// What credentials there are, and what callers without any may do.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// API keys; `None` where none are set up: then keys are not looked at.
    pub keys: Option<Arc<ApiKeys>>,
    /// Who the bearers of verified client certificates are; `None` where clients are not asked for one.
    pub certificates: Option<Identities>,
    /// Whether a caller needs a key and a certificate, where both are set up.
    pub require_all: bool,
    /// Callers without credentials.
    pub anonymous: Anonymous,
}

/// What callers without credentials may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Anonymous {
    /// Everything on an endpoint that only this machine reaches, where no credentials are set up; elsewhere
    /// nothing.
    #[default]
    Unsaid,
    /// Nothing, or what a role may.
    Said(Option<Role>),
}

impl Policy {
    /// True where `other` lets in the same callers with the same rights.
    pub fn same(&self, other: &Self) -> bool {
        let keys = match (&self.keys, &other.keys) {
            (Some(mine), Some(theirs)) => mine.same(theirs),
            (None, None) => true,
            _ => false,
        };
        keys && self.certificates == other.certificates
            && (self.require_all, self.anonymous) == (other.require_all, other.anonymous)
    }

    /// Whether there are credentials that a caller could give.
    pub fn has_credentials(&self) -> bool {
        self.keys.is_some() || self.certificates.is_some()
    }

    /// The role of a caller without credentials; `is_local`: only this machine reaches the endpoint.
    pub fn anonymous(&self, is_local: bool) -> Option<Role> {
        match self.anonymous {
            Anonymous::Said(role) => role,
            Anonymous::Unsaid if is_local && !self.has_credentials() => Some(Role::ReadWrite),
            Anonymous::Unsaid => None,
        }
    }
}
