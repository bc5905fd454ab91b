//! `POST /v1/tls/reload`: reads secrets and TLS material again, for a caller with write access.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::future::BoxFuture;
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use spiced_engine::{Principal, Role};
use spiced_middleware::Problem;
use utoipa::{IntoParams, ToSchema};

use crate::openapi::Problems;
use crate::router::HttpState;

/// The function that performs a reload.
#[derive(Clone)]
pub struct ReloadHandle(Arc<dyn Fn(ReloadOptions) -> BoxFuture<'static, ReloadReply> + Send + Sync>);

impl ReloadHandle {
    /// Creates a handle from `reload`, which reads everything again, or only checks it, and returns the result.
    pub fn new(reload: impl Fn(ReloadOptions) -> BoxFuture<'static, ReloadReply> + Send + Sync + 'static) -> Self {
        Self(Arc::new(reload))
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

/// The body of a response.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReloadAnswer {
    /// Whether this was a dry run, which changes nothing.
    dry_run: bool,
    #[serde(flatten)]
    result: ReloadResult,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReloadQuery {
    /// Only checks what a reload would do.
    #[param(default = false)]
    dry_run: bool,
    /// Also accepts a certificate that clients would reject although they accept the current one.
    #[param(default = false)]
    force: bool,
}

/// Reads secrets and TLS material again, for a caller with write access.
#[utoipa::path(
    post,
    path = "/v1/tls/reload",
    params(ReloadQuery),
    responses(
        (status = 200, description = "`result` is `swapped` or `unchanged`", body = ReloadAnswer),
        (status = 409, description = "`result` is `rejected`", body = ReloadAnswer),
        Problems,
    ),
    security(("api_key" = []), ("bearer" = []))
)]
pub(crate) async fn reload(
    State(state): State<Arc<HttpState>>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    asked: Result<Query<ReloadQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let problem = |status, detail: &str| Problem::new(status, detail).respond(headers.get(ACCEPT));
    let Some(ReloadHandle(reload)) = &state.options.reload else {
        return problem(StatusCode::NOT_FOUND, "this server has nothing to reload");
    };
    if !state.access.has_credentials() {
        return problem(
            StatusCode::FORBIDDEN,
            "a reload over HTTP requires a server with credentials: set up runtime.auth.api_key or client \
             certificates, or send SIGHUP",
        );
    }
    if principal.role() != Role::ReadWrite {
        state.access.denied(&principal);
        return problem(StatusCode::FORBIDDEN, "a reload requires write access, and this caller may only read");
    }
    let Ok(Query(ReloadQuery { dry_run, force })) = asked else {
        return problem(StatusCode::BAD_REQUEST, "the query string accepts only dry_run and force, each true or false");
    };
    match reload(ReloadOptions { dry_run, force }).await {
        ReloadReply::Done(result) => {
            let status = match result {
                ReloadResult::Rejected { .. } => StatusCode::CONFLICT,
                ReloadResult::Swapped { .. } | ReloadResult::Unchanged => StatusCode::OK,
            };
            (status, Json(ReloadAnswer { dry_run, result })).into_response()
        }
        ReloadReply::Lost => problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "a reload was lost, and this server can no longer reload; its log says why, and a restart fixes it",
        ),
        ReloadReply::Busy => {
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many reload requests are waiting already")
                .retry_after(1)
                .respond(headers.get(ACCEPT))
        }
    }
}
