//! What a load balancer or a kubelet asks: is the process up, and does it want traffic.

use axum::Router;
use axum::extract::State;
use http::StatusCode;
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// `/health` and `/v1/ready` alone, open to all that reach them, in plain words.
pub fn probe_router(readiness: watch::Receiver<bool>) -> Router {
    probes().split_for_parts().0.with_state(readiness)
}

/// The same with what describes them.
pub(crate) fn probes() -> OpenApiRouter<watch::Receiver<bool>> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(ready))
}

/// Whether the process is up.
#[utoipa::path(get, path = "/health", responses((status = 200, body = String, content_type = "text/plain")))]
async fn health() -> &'static str {
    "ok"
}

/// Whether it wants traffic: every data set is loaded, and nobody has called a stop.
#[utoipa::path(
    get,
    path = "/v1/ready",
    responses(
        (status = 200, description = "ready", body = String, content_type = "text/plain"),
        (status = 503, description = "not ready", body = String, content_type = "text/plain"),
    )
)]
async fn ready(State(readiness): State<watch::Receiver<bool>>) -> (StatusCode, &'static str) {
    if *readiness.borrow() { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") }
}
