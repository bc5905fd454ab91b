//! `GET /v1/status` and `GET /v1/datasets`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use crate::openapi::Problems;
use crate::state::HttpState;
use crate::status::{Dataset, Status};

/// Reports the status of endpoints, certificates, secret stores and data sets.
#[utoipa::path(
    get,
    path = "/v1/status",
    responses((status = 200, body = Status), Problems),
    security(("api_key" = []), ("bearer" = []))
)]
pub(crate) async fn status(State(state): State<Arc<HttpState>>) -> Response {
    Json((state.status)()).into_response()
}

/// Lists the data sets and their status.
#[utoipa::path(
    get,
    path = "/v1/datasets",
    responses((status = 200, body = Vec<Dataset>), Problems),
    security(("api_key" = []), ("bearer" = []))
)]
pub(crate) async fn datasets(State(state): State<Arc<HttpState>>) -> Response {
    let datasets: Vec<Dataset> = state.engine.datasets().borrow().iter().map(Dataset::from).collect();
    Json(datasets).into_response()
}
