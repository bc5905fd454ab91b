//! What a load balancer or a kubelet asks: is the process up, and does it want traffic.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http::StatusCode;
use tokio::sync::watch;

/// `/health` and `/v1/ready` alone, open to all that reach them, in plain words.
pub fn probe_router(readiness: watch::Receiver<bool>) -> Router {
    Router::new().route("/health", get(async || "ok")).route("/v1/ready", get(ready)).with_state(readiness)
}

async fn ready(State(readiness): State<watch::Receiver<bool>>) -> (StatusCode, &'static str) {
    if *readiness.borrow() { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") }
}
