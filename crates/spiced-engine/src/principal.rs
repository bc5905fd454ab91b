//! Callers and their permissions.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::Trace;

/// The permissions of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Role {
    /// May run queries and read metadata.
    #[serde(rename = "ro")]
    ReadOnly,
    /// May also change data and definitions.
    #[serde(rename = "rw")]
    ReadWrite,
}

impl Role {
    /// Returns the name that is used in settings, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "ro",
            Self::ReadWrite => "rw",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name of callers without credentials.
const ANONYMOUS: &str = "anonymous";

/// A caller that an endpoint has authenticated or accepted as anonymous.
///
/// Requests with equal principals come from the same caller, whatever endpoint they arrived at: signed Flight tickets
/// and prepared handles are bound to the principal.
#[derive(Debug, Clone)]
pub struct Principal {
    name: Arc<str>,
    role: Role,
    way: RequestContext,
}

/// How a request arrived. It is recorded in the audit log and is not part of the caller's identity.
#[derive(Debug, Clone, Default)]
pub struct RequestContext {
    /// The endpoint: `http`, `flight` or `grpc`; empty if an application called the engine directly.
    pub endpoint: &'static str,
    /// The caller's address.
    pub address: Option<IpAddr>,
    /// The SHA-256 fingerprint of the client certificate, in lower-case hex.
    pub certificate: Option<Arc<str>>,
    /// The trace that the caller assigns to the request.
    pub trace: Option<Trace>,
}

impl Principal {
    /// Creates a caller by name.
    pub fn new(name: impl Into<Arc<str>>, role: Role) -> Self {
        Self { name: name.into(), role, way: RequestContext::default() }
    }

    /// Creates a caller without credentials, for endpoints that accept anonymous requests.
    pub fn anonymous(role: Role) -> Self {
        Self::new(ANONYMOUS, role)
    }

    /// Returns the key by which quotas are divided among callers: the name or, for a caller without credentials, the
    /// address.
    pub fn share_key(&self) -> Arc<str> {
        match self.way.address {
            Some(address) if &*self.name == ANONYMOUS => format!("{ANONYMOUS} {address}").into(),
            _ => self.name.clone(),
        }
    }

    /// Returns the same caller with the context `way`.
    #[must_use]
    pub fn with_context(self, way: RequestContext) -> Self {
        Self { way, ..self }
    }

    /// Returns a stable name that is fit for an audit log and is not a credential.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the caller's permissions.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Returns how the request arrived.
    pub fn way(&self) -> &RequestContext {
        &self.way
    }
}

impl PartialEq for Principal {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.role) == (&other.name, other.role)
    }
}

impl Eq for Principal {}

impl Hash for Principal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.name, self.role).hash(state);
    }
}
