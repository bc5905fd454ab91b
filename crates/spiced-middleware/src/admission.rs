//! The layer that puts the caller's [`Principal`](spiced_engine::Principal) into a request, or
//! answers in the door's own protocol that it is not let in.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use futures::future::{BoxFuture, Either};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Request, StatusCode};
use spiced_engine::Principal;
use tls_core::ConnInfo;
use tls_core::listener::RequestCharge;
use tower_layer::Layer;
use tower_service::Service;

use crate::access::{Access, Admitted, Kind, Refusal};
use crate::problem::Problem;

/// The name of callers without credentials ([`Principal::anonymous`]).
const ANONYMOUS: &str = "anonymous";

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
    AdmissionLayer { access, dialect, open: Vec::new() }
}

/// The layer that [`admission`] makes.
#[derive(Debug, Clone)]
pub struct AdmissionLayer {
    access: Access,
    dialect: Dialect,
    open: Vec<&'static str>,
}

impl AdmissionLayer {
    /// Paths that begin with `prefix` are open to all. Their requests carry no principal but the
    /// [`Access`], so that what is there may decide by itself.
    #[must_use]
    pub fn except(mut self, prefix: &'static str) -> Self {
        self.open.push(prefix);
        self
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
    S: Service<Request<Body>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<
        S::Future,
        Either<Ready<Result<Response, Infallible>>, BoxFuture<'static, Result<Response, Infallible>>>,
    >;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let AdmissionLayer { access, dialect, open } = &self.layer;
        if open.iter().any(|prefix| request.uri().path().starts_with(prefix)) {
            request.extensions_mut().insert(access.clone());
            if let Some(connection) = request.extensions().get::<ConnInfo>() {
                connection.standing.refuse();
            }
            return Either::Left(self.inner.call(request));
        }
        let dialect = *dialect;
        let (mut parts, body) = request.into_parts();
        match access.admit(&parts, dialect) {
            Admitted::Now(Ok(principal)) => {
                let_in(&mut parts, principal);
                Either::Left(self.inner.call(Request::from_parts(parts, body)))
            }
            Admitted::Now(Err(refusal)) => {
                Either::Right(Either::Left(ready(Ok(dialect.refuse(refusal, parts.headers.get(ACCEPT))))))
            }
            Admitted::Later(decision) => {
                // The one that was polled ready goes along; its clone takes its place.
                let clone = self.inner.clone();
                let mut inner = std::mem::replace(&mut self.inner, clone);
                Either::Right(Either::Right(Box::pin(async move {
                    match decision.await {
                        Ok(principal) => {
                            let_in(&mut parts, principal);
                            inner.call(Request::from_parts(parts, body)).await
                        }
                        Err(refusal) => Ok(dialect.refuse(refusal, parts.headers.get(ACCEPT))),
                    }
                })))
            }
        }
    }
}

/// Puts the caller into the request, and has it pay for the memory that the body will take.
fn let_in(parts: &mut Parts, principal: Principal) {
    if let Some(charge) = parts.extensions.get::<RequestCharge>() {
        match principal.way().address {
            // Callers without credentials are told apart by their addresses.
            Some(address) if principal.name() == ANONYMOUS => charge.on_behalf_of(&address.to_string()),
            _ => charge.on_behalf_of(principal.name()),
        }
    }
    parts.extensions.insert(principal);
}

impl Dialect {
    fn refuse(self, refusal: Refusal, accept: Option<&HeaderValue>) -> Response {
        match self {
            Self::Http => {
                let problem = |status| Problem::new(status, refusal.message());
                match refusal.kind() {
                    Kind::Unauthenticated => problem(StatusCode::UNAUTHORIZED),
                    Kind::Denied => problem(StatusCode::FORBIDDEN),
                    Kind::Exhausted(after) => {
                        let seconds = u32::try_from(after.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
                        problem(StatusCode::TOO_MANY_REQUESTS).retry_after(seconds)
                    }
                }
                .respond(accept)
            }
            Self::Grpc => {
                let mut response = Response::new(Body::empty());
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                headers.insert("grpc-status", HeaderValue::from(refusal.grpc_code()));
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
