//! The layer that puts the caller's [`Principal`](spiced_engine::Principal) into a request, or
//! answers in the door's own protocol that it is not let in.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use futures::future::Either;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use metrics::counter;
use tls_core::ConnInfo;
use tower_layer::Layer;
use tower_service::Service;

use crate::access::{Access, Refusal};
use crate::problem::Problem;

/// How a door words a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// A status and problem JSON.
    Http,
    /// `grpc-status` in a response without a body ("Trailers-Only" of the gRPC protocol).
    Grpc,
}

/// Lets requests in by `access`, refusing in `dialect`.
pub fn admission(access: Access, dialect: Dialect) -> AdmissionLayer {
    AdmissionLayer { access, dialect, open: None }
}

/// The layer that [`admission`] makes.
#[derive(Debug, Clone)]
pub struct AdmissionLayer {
    access: Access,
    dialect: Dialect,
    open: Option<&'static str>,
}

impl AdmissionLayer {
    /// Paths that begin with `prefix` are open to all, and carry no principal.
    #[must_use]
    pub fn except(self, prefix: &'static str) -> Self {
        Self { open: Some(prefix), ..self }
    }
}

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admission<S>;

    fn layer(&self, inner: S) -> Admission<S> {
        Admission { inner, layer: self.clone() }
    }
}

/// The service that [`AdmissionLayer`] makes.
#[derive(Debug, Clone)]
pub struct Admission<S> {
    inner: S,
    layer: AdmissionLayer,
}

impl<S> Service<Request<Body>> for Admission<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if self.layer.open.is_some_and(|prefix| request.uri().path().starts_with(prefix)) {
            return Either::Left(self.inner.call(request));
        }
        let (mut parts, body) = request.into_parts();
        let connection = parts.extensions.get::<ConnInfo>();
        match self.layer.access.admit(&parts, connection) {
            Ok(principal) => {
                parts.extensions.insert(principal);
                Either::Left(self.inner.call(Request::from_parts(parts, body)))
            }
            Err(refusal) => {
                let endpoint = connection.map_or("unknown", |c| c.endpoint);
                counter!("spiced_auth_failures_total", "endpoint" => endpoint, "reason" => refusal.reason())
                    .increment(1);
                Either::Right(ready(Ok(self.layer.dialect.refuse(refusal, parts.headers.get(ACCEPT)))))
            }
        }
    }
}

impl Dialect {
    fn refuse(self, refusal: Refusal, accept: Option<&HeaderValue>) -> Response {
        match self {
            Self::Http => {
                let status =
                    if refusal.is_unauthenticated() { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
                Problem::new(status, refusal.message()).respond(accept)
            }
            Self::Grpc => {
                // UNAUTHENTICATED, PERMISSION_DENIED
                let code = if refusal.is_unauthenticated() { 16 } else { 7 };
                let mut response = Response::new(Body::empty());
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                headers.insert("grpc-status", HeaderValue::from(code));
                // The messages are ASCII without `%`, as the percent-encoding of gRPC wants them.
                headers.insert("grpc-message", HeaderValue::from_static(refusal.message()));
                response
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use axum::{Extension, Router};
    use spiced_engine::{Principal, Role};
    use tower::ServiceExt;

    use super::*;

    fn app(access: Access, dialect: Dialect) -> Router {
        Router::new()
            .route("/", get(|caller: Extension<Principal>| async move { caller.name().to_owned() }))
            .layer(admission(access, dialect))
    }

    #[tokio::test]
    async fn each_protocol_gets_its_own_refusal() {
        let request = || Request::get("/").body(Body::empty()).unwrap();
        let http = app(Access::anonymous(None), Dialect::Http).oneshot(request()).await.unwrap();
        assert_eq!(http.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(http.headers()["www-authenticate"], "Bearer");
        let grpc = app(Access::anonymous(None), Dialect::Grpc).oneshot(request()).await.unwrap();
        assert_eq!((grpc.status(), &grpc.headers()["grpc-status"]), (StatusCode::OK, &HeaderValue::from_static("16")));
        let open = app(Access::anonymous(Some(Role::ReadOnly)), Dialect::Http).oneshot(request()).await.unwrap();
        assert_eq!(open.status(), StatusCode::OK);
    }
}
