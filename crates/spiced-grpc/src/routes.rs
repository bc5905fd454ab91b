//! The services of tonic as routes of axum, with body errors converted to gRPC statuses.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::map_request;
use http_body_util::BodyExt;
use tls_core::server::{BodyError, RequestCharge};
use tonic::Status;
use tonic::service::Routes;

/// The end of the paths whose requests are streams of messages. All others send one message.
const STREAM: &str = "/ServerReflectionInfo";

/// Removes tonic's fallback from the routes: two routers with a fallback cannot be merged.
pub(crate) fn mergeable(routes: Routes) -> Router {
    routes.into_axum_router().reset_fallback().layer(map_request(prepared))
}

/// Prepares a request for tonic.
async fn prepared(request: Request) -> Request {
    let (parts, body) = request.into_parts();
    if !parts.uri.path().ends_with(STREAM)
        && let Some(charge) = parts.extensions.get::<RequestCharge>()
    {
        charge.expect_one_message();
    }
    Request::from_parts(parts, Body::new(body.map_err(|error| status(&error))))
}

/// Converts an error of a request's body.
fn status(error: &(dyn std::error::Error + 'static)) -> Status {
    match BodyError::find(error) {
        Some(why @ BodyError::Late(_)) => Status::deadline_exceeded(why.to_string()),
        Some(why @ BodyError::Exhausted) => Status::resource_exhausted(why.to_string()),
        Some(why @ BodyError::Stopping) => Status::unavailable(why.to_string()),
        _ => Status::cancelled("the request broke off"),
    }
}
