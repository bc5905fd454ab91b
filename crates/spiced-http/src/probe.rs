//! What a load balancer or a kubelet asks: is the process up, and does it want traffic.

use axum::Router;
use axum::extract::State;
use http::StatusCode;
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What the probes answer from.
#[derive(Debug, Clone)]
pub struct Probes {
    /// True while `/v1/ready` says `ready`.
    pub readiness: watch::Receiver<bool>,
    /// False while the process is up and useless: its engine has not answered for long. `None`: never.
    pub responsive: Option<watch::Receiver<bool>>,
}

/// `/health` and `/v1/ready` alone, open to all that reach them, in plain words.
pub fn probe_router(probed: Probes) -> Router {
    probes().split_for_parts().0.with_state(probed)
}

/// The same with what describes them.
pub(crate) fn probes() -> OpenApiRouter<Probes> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(ready))
}

/// Whether the process is up, and its query engine with it.
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

/// Whether it wants traffic: every data set is loaded, the query engine answers, and nobody has called a stop.
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
