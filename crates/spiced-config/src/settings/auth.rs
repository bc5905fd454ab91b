//! Resolved `runtime.auth`.

use serde::Deserialize;
use spiced_secrets::SecretValue;
use tls_core::Sourced;

/// Who may do what.
#[derive(Debug)]
pub struct Auth {
    /// API keys; `None` where they are not set up.
    pub keys: Option<Vec<ApiKey>>,
    /// The identities of client certificates; the first that fits decides.
    pub identities: Vec<ClientIdentityRule>,
    /// Whether a caller needs a key and a certificate. Default: either.
    pub require_all: bool,
    /// What callers without credentials may do: `Some(None)` nothing; `None` is the default, which depends
    /// on where an endpoint listens.
    pub allow_anonymous: Option<Option<Role>>,
    /// Whether the metrics endpoint asks for credentials. Default: it does not.
    pub metrics: bool,
}

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Role {
    /// Query.
    #[serde(rename = "ro")]
    ReadOnly,
    /// Change data and definitions, too.
    #[serde(rename = "rw")]
    ReadWrite,
}

/// A key, or its hash.
#[derive(Debug)]
pub struct ApiKey {
    /// The key, or its hash.
    pub key: Sourced<SecretValue>,
    /// What its bearer may do; `None` where nothing was said, which is to read.
    pub role: Option<Role>,
}

/// Who the bearer of a client certificate is.
#[derive(Debug)]
pub struct ClientIdentityRule {
    /// Which of the certificate's names it is about.
    pub name: IdentityName,
    /// The name; `*` matches any text within one segment.
    pub pattern: String,
    /// What its bearer may do.
    pub role: Role,
}

/// The kinds of names in a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityName {
    /// A URI among the subject alternative names.
    SanUri,
    /// A DNS name among them.
    SanDns,
    /// A common name of the subject.
    SubjectCn,
}
