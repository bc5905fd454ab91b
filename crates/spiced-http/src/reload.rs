//! `POST /v1/tls/reload`: reads secrets and TLS material again, for a caller with write access.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::future::BoxFuture;
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use spiced_engine::{Principal, Role};
use spiced_middleware::Problem;
use utoipa::IntoParams;

use crate::openapi::Problems;
use crate::router::HttpState;

/// The function that performs a reload.
#[derive(Clone)]
pub struct ReloadHandle(Arc<dyn Fn(ReloadOptions) -> BoxFuture<'static, Reload> + Send + Sync>);

impl ReloadHandle {
    /// Creates a handle from `reload`, which reads everything again, or only checks it, and returns the result.
    pub fn new(reload: impl Fn(ReloadOptions) -> BoxFuture<'static, Reload> + Send + Sync + 'static) -> Self {
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

/// The result of a reload.
#[derive(Debug, Clone)]
pub enum Reload {
    /// An object with `result`: `swapped`, `unchanged` or `rejected`.
    Ended(Value),
    /// Too many reloads are pending already.
    Busy,
    /// The server can no longer reload; its log contains the reason.
    Lost,
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
        (status = 200, description = "`result` is `swapped` or `unchanged`", body = Object),
        (status = 409, description = "`result` is `rejected`, with `reason` and `fix`, and `findings` if clients would \
                                      refuse it", body = Object),
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
        Reload::Ended(answer) if answer["result"] == "rejected" => (StatusCode::CONFLICT, Json(answer)).into_response(),
        Reload::Ended(answer) => Json(answer).into_response(),
        Reload::Lost => problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "a reload was lost, and this server can no longer reload; its log says why, and a restart fixes it",
        ),
        Reload::Busy => Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many reload requests are waiting already")
            .retry_after(1)
            .respond(headers.get(ACCEPT)),
    }
}
