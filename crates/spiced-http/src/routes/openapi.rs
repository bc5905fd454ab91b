//! `GET /openapi.json`: the OpenAPI 3.1 document, generated from the routes.

use axum::Extension;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;

use crate::openapi::Problems;
use crate::state::AsIs;

/// The document, as JSON text. All responses share it, so slow clients do not multiply it.
#[derive(Debug, Clone)]
pub(crate) struct Document(pub(crate) Bytes);

/// The OpenAPI document of this API.
#[utoipa::path(
    get,
    path = "/openapi.json",
    responses((status = 200, body = Object), Problems),
    security(("api_key" = []), ("bearer" = []))
)]
pub(crate) async fn openapi(Extension(Document(text)): Extension<Document>) -> Response {
    let mut response = ([(CONTENT_TYPE, "application/json")], text).into_response();
    response.extensions_mut().insert(AsIs);
    response
}
