//! Resolved `runtime.auth`.

use serde::Deserialize;
use spiced_secrets::SecretValue;
use tls_core::Sourced;

/// The access settings.
#[derive(Debug)]
pub struct Auth {
    /// API keys; `None` if none are configured.
    pub keys: Option<Vec<ApiKey>>,
    /// The identities of client certificates; the first match decides.
    pub identities: Vec<ClientIdentityRule>,
    /// Whether a caller needs both a key and a certificate. Default: either.
    pub require_all: bool,
    /// The rights of callers without credentials: `Some(None)` for none; `None` for the default, which depends on the
    /// address of an endpoint.
    pub allow_anonymous: Option<Option<Role>>,
    /// Whether the metrics endpoint requires credentials. Default: false.
    pub metrics: bool,
}

/// The rights of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Role {
    /// Query.
    #[serde(rename = "ro")]
    ReadOnly,
    /// Change data and definitions as well.
    #[serde(rename = "rw")]
    ReadWrite,
}

/// A key, or its hash.
#[derive(Debug)]
pub struct ApiKey {
    /// The key, or its hash.
    pub key: Sourced<SecretValue>,
    /// The role of its bearer; `None` if it is not set, which means read-only.
    pub role: Option<Role>,
}

/// A rule that assigns a role to client certificates.
#[derive(Debug)]
pub struct ClientIdentityRule {
    /// The kind of name that the rule matches.
    pub name: IdentityName,
    /// The name; `*` matches any text within one segment.
    pub pattern: String,
    /// The role of its bearer.
    pub role: Role,
}

/// The kinds of names in a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityName {
    /// A URI among the subject alternative names.
    SanUri,
    /// A DNS name among the subject alternative names.
    SanDns,
    /// A common name of the subject.
    SubjectCn,
}
