//! Who calls, and what the caller may do.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::Trace;

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Role {
    /// May query and read metadata.
    #[serde(rename = "ro")]
    ReadOnly,
    /// May also change data and definitions.
    #[serde(rename = "rw")]
    ReadWrite,
}

impl Role {
    /// What it is called in settings, logs and metrics.
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

/// A caller that an endpoint has let in.
///
/// Two requests with equal principals are the same caller, by whatever way each came: signed Flight
/// tickets and prepared handles are bound to it.
#[derive(Debug, Clone)]
pub struct Principal {
    name: Arc<str>,
    role: Role,
    way: RequestContext,
}

/// By which way a caller came: for the audit log, and no part of who it is.
#[derive(Debug, Clone, Default)]
pub struct RequestContext {
    /// The endpoint: `http`, `flight` or `grpc`; empty where a program called the engine itself.
    pub endpoint: &'static str,
    /// The caller's address.
    pub address: Option<IpAddr>,
    /// The SHA-256 of the client certificate that it showed, in lower-case hex.
    pub certificate: Option<Arc<str>>,
    /// The trace that the caller says the request belongs to.
    pub trace: Option<Trace>,
}

impl Principal {
    /// A caller by name.
    pub fn new(name: impl Into<Arc<str>>, role: Role) -> Self {
        Self { name: name.into(), role, way: RequestContext::default() }
    }

    /// The caller that gave no credentials, where such callers are let in.
    pub fn anonymous(role: Role) -> Self {
        Self::new(ANONYMOUS, role)
    }

    /// With whom the caller shares what is divided among callers: its name, or, for one without credentials, its address.
    pub fn share_key(&self) -> Arc<str> {
        match self.way.address {
            Some(address) if &*self.name == ANONYMOUS => format!("{ANONYMOUS} {address}").into(),
            _ => self.name.clone(),
        }
    }

    /// The same caller, come by `way`.
    #[must_use]
    pub fn with_context(self, way: RequestContext) -> Self {
        Self { way, ..self }
    }

    /// A stable name: fit for an audit log, and no credential.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the caller may do.
    pub fn role(&self) -> Role {
        self.role
    }

    /// By which way it came.
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
