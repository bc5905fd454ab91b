//! Answers clients that use the wrong HTTP version or protocol for an endpoint.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;
use http::{StatusCode, Version};
use tower::ServiceExt;

/// Refuses HTTP/1 on an endpoint that only serves gRPC. A browser or curl gets a message, and no web page can reach
/// gRPC, because browsers cannot send gRPC over HTTP/2 on their own.
pub fn grpc_only(router: Router, sentence: &'static str) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| async move {
        if request.version() < Version::HTTP_2 {
            return (StatusCode::HTTP_VERSION_NOT_SUPPORTED, sentence).into_response();
        }
        next.run(request).await
    }))
}

/// Serves two protocols on one endpoint: gRPC by its content type, everything else by `http`.
pub fn either(grpc: Router, http: Router) -> Router {
    Router::new().fallback(move |request: Request<Body>| {
        let is_grpc =
            request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let chosen = if is_grpc { grpc.clone() } else { http.clone() };
        async move {
            match chosen.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
    })
}
