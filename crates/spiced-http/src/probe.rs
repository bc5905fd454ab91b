//! Probes for load balancers and kubelets: liveness and readiness.

use axum::Router;
use axum::extract::State;
use http::StatusCode;
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The state that the probes report.
#[derive(Debug, Clone)]
pub struct Probes {
    /// True while `/v1/ready` returns `ready`.
    pub readiness: watch::Receiver<bool>,
    /// False while the process runs but its engine has not responded for a long time. `None`: `/health` never fails.
    pub responsive: Option<watch::Receiver<bool>>,
}

/// Returns a router with `/health` and `/v1/ready` only, without authentication. Responses are plain text.
pub fn probe_router(probed: Probes) -> Router {
    probes().split_for_parts().0.with_state(probed)
}

/// Returns the same routes with their OpenAPI description.
pub(crate) fn probes() -> OpenApiRouter<Probes> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(ready))
}

/// Reports whether the process and its query engine are up.
#[utoipa::path(
    get,
    path = "/health",
    responses(
        (status = 200, description = "ok", body = String, content_type = "text/plain"),
        (status = 503, description = "the query engine does not answer", body = String, content_type = "text/plain"),
    )
)]
async fn health(State(probed): State<Probes>) -> (StatusCode, &'static str) {
    match probed.responsive.is_none_or(|responsive| *responsive.borrow()) {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the query engine does not answer"),
    }
}

/// Reports whether the server is ready: every data set is loaded, the query engine responds, and no shutdown has begun.
#[utoipa::path(
    get,
    path = "/v1/ready",
    responses(
        (status = 200, description = "ready", body = String, content_type = "text/plain"),
        (status = 503, description = "not ready", body = String, content_type = "text/plain"),
    )
)]
async fn ready(State(probed): State<Probes>) -> (StatusCode, &'static str) {
    if *probed.readiness.borrow() { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") }
}
