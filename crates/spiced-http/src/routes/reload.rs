//! `POST /v1/tls/reload`: reads secrets and TLS material again, for a caller that may write.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use spiced_engine::{Principal, Role};
use spiced_middleware::Problem;
use utoipa::{IntoParams, ToSchema};

use crate::openapi::Problems;
use crate::reload::{ReloadOptions, ReloadReply, ReloadResult};
use crate::state::HttpState;

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
    let Some(reload) = &state.options.reload else {
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
    match reload.run(ReloadOptions { dry_run, force }).await {
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
