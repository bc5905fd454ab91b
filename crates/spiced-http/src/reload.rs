//! A reload, as `POST /v1/tls/reload` requests it, and its result.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::Serialize;
use utoipa::ToSchema;

/// The function that performs a reload.
#[derive(Clone)]
pub struct ReloadHandle(Arc<dyn Fn(ReloadOptions) -> BoxFuture<'static, ReloadReply> + Send + Sync>);

impl ReloadHandle {
    /// Creates a handle from `reload`, which reads everything again, or only checks it, and returns the result.
    pub fn new(reload: impl Fn(ReloadOptions) -> BoxFuture<'static, ReloadReply> + Send + Sync + 'static) -> Self {
        Self(Arc::new(reload))
    }

    /// Runs a reload.
    pub(crate) async fn run(&self, options: ReloadOptions) -> ReloadReply {
        (self.0)(options).await
    }
}

impl fmt::Debug for ReloadHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReloadHandle")
    }
}

/// The options of a reload.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReloadOptions {
    /// Only checks what a reload would do.
    pub dry_run: bool,
    /// Also accepts a certificate that clients would reject although they accept the current one.
    pub force: bool,
}

/// The result of a request to reload.
#[derive(Debug, Clone)]
pub enum ReloadReply {
    /// The reload, or the dry run, was carried out.
    Done(ReloadResult),
    /// Too many requests are waiting for a reload already.
    Busy,
    /// The server can no longer reload; its log contains the reason.
    Lost,
}

/// The result of a reload, or what the result would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "result", rename_all = "lowercase")]
pub enum ReloadResult {
    /// Something new is in use.
    Swapped {
        /// What is new.
        changed: Vec<ReloadedPart>,
        /// What an operator should know about the new certificates.
        findings: Vec<ReloadFinding>,
    },
    /// Nothing has changed.
    Unchanged,
    /// The new material cannot be used. The previous material stays in use.
    Rejected {
        /// Why, in one sentence.
        reason: String,
        /// What to change.
        fix: String,
        /// The reasons for which clients would refuse the new material.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        #[schema(required = false)]
        findings: Vec<ReloadFinding>,
    },
}

/// A part of the configuration that a reload changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReloadedPart {
    /// Certificates, keys, client CAs and revocation lists.
    Tls,
    /// API keys and roles.
    Auth,
}

/// What an operator should know about a certificate or key. `docs/doctor.md` lists the codes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ReloadFinding {
    /// A stable code, such as `TLS-EXPIRED`.
    pub code: &'static str,
    /// How serious it is.
    pub severity: Severity,
    /// Where the material comes from.
    pub origin: String,
    /// The certificate's subject, or the key's file.
    pub subject: String,
    /// What was found, in one sentence.
    pub message: String,
    /// What to change.
    pub fix: String,
    /// The clients that refuse the certificate because of it, such as `curl` or `java`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub refused_by: Vec<&'static str>,
}

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing needs to be done.
    Info,
    /// It should be corrected.
    Warning,
    /// Clients are affected, or soon will be.
    Error,
}
