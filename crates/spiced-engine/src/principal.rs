//! Who calls, and what the caller may do.

use serde::Serialize;

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

/// A caller that a door has let in.
///
/// Two requests with equal principals are the same caller: signed Flight tickets and prepared
/// handles are bound to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    name: String,
    role: Role,
}

impl Principal {
    /// A caller by name.
    pub fn new(name: impl Into<String>, role: Role) -> Self {
        Self { name: name.into(), role }
    }

    /// The caller that gave no credentials, where such callers are let in.
    pub fn anonymous(role: Role) -> Self {
        Self::new("anonymous", role)
    }

    /// A stable name: fit for an audit log, and no credential.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the caller may do.
    pub fn role(&self) -> Role {
        self.role
    }
}
