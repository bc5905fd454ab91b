//! The layer that puts the caller's [`Principal`](spiced_engine::Principal) into a request, or refuses the request in
//! the endpoint's own protocol.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::response::Response;
use futures::future::{BoxFuture, Either};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use spiced_engine::Principal;
use tls_core::ConnInfo;
use tls_core::server::RequestCharge;
use tower_layer::Layer;
use tower_service::Service;

use crate::auth::{Access, Decision, Dialect, Kind, Refusal};
use crate::problem::Problem;

/// Creates a layer that authenticates requests by `access` and refuses them in `dialect`.
pub fn admission(access: Access, dialect: Dialect) -> AdmissionLayer {
    AdmissionLayer { access, dialect, open: Vec::new() }
}

/// The layer created by [`admission`].
#[derive(Debug, Clone)]
pub struct AdmissionLayer {
    access: Access,
    dialect: Dialect,
    open: Vec<&'static str>,
}

impl AdmissionLayer {
    /// Exempts paths that begin with `prefix`. Their requests carry the [`Access`] instead of a principal, so that
    /// their handlers can decide themselves.
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

/// The service created by [`AdmissionLayer`].
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
        let (access, dialect) = (access.clone(), *dialect);
        let (parts, body) = request.into_parts();
        let decision = match access.admit(&parts, dialect) {
            Decision::Ready(Err(refusal)) => {
                return Either::Right(Either::Left(ready(Ok(refuse(dialect, refusal, parts.headers.get(ACCEPT))))));
            }
            decision => decision,
        };
        // The service that was polled ready is used; a clone takes its place.
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        Either::Right(Either::Right(Box::pin(async move {
            match decision.decision().await {
                Ok(principal) => Ok(admitted(inner, parts, body, principal, &access, dialect).await),
                Err(refusal) => Ok(refuse(dialect, refusal, parts.headers.get(ACCEPT))),
            }
        })))
    }
}

/// Serves an accepted caller for as long as it would still be accepted.
async fn admitted<S>(
    mut inner: S,
    mut parts: Parts,
    body: Body,
    principal: Principal,
    access: &Access,
    dialect: Dialect,
) -> Response
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    let mut revoked: BoxFuture<'static, ()> =
        Box::pin(access.grant(&principal, parts.extensions.get::<ConnInfo>()).revoked());
    let accept = parts.headers.get(ACCEPT).cloned();
    let_in(&mut parts, principal);
    let answer = tokio::select! {
        biased;
        answer = inner.call(Request::from_parts(parts, body)) => answer,
        // Dropping the inner future ends the caller's work.
        () = &mut revoked => return refuse(dialect, Refusal::Revoked, accept.as_ref()),
    };
    let Ok(response) = answer;
    // A complete response is not held back.
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|inner| Body::new(Revocable { inner, revoked, dialect, is_over: false }))
}

/// A response body that ends when its caller would no longer be accepted.
struct Revocable {
    inner: Body,
    revoked: BoxFuture<'static, ()>,
    dialect: Dialect,
    is_over: bool,
}

impl http_body::Body for Revocable {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if self.revoked.as_mut().poll(cx).is_pending() {
            let frame = Pin::new(&mut self.inner).poll_frame(cx);
            self.is_over = matches!(frame, Poll::Ready(None | Some(Err(_))));
            return frame;
        }
        self.is_over = true;
        // Dropping the inner body ends the work behind it.
        self.inner = Body::empty();
        let refusal = Refusal::Revoked;
        Poll::Ready(Some(match self.dialect {
            // The response breaks off, so that no client mistakes it for a complete one.
            Dialect::Http => Err(axum::Error::new(std::io::Error::other(refusal.message()))),
            Dialect::Grpc => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from(refusal.grpc_code()));
                trailers.insert("grpc-message", HeaderValue::from_static(refusal.message()));
                Ok(Frame::trailers(trailers))
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // The body may end early.
        SizeHint::default()
    }
}

/// Puts the caller into the request, and charges the memory of the body to the caller.
fn let_in(parts: &mut Parts, principal: Principal) {
    if let Some(charge) = parts.extensions.get::<RequestCharge>() {
        charge.on_behalf_of(&principal.share_key());
    }
    parts.extensions.insert(principal);
}

/// Words a refusal in the protocol of the endpoint.
fn refuse(dialect: Dialect, refusal: Refusal, accept: Option<&HeaderValue>) -> Response {
    match dialect {
        Dialect::Http => {
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
        Dialect::Grpc => {
            let mut response = Response::new(Body::empty());
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from(refusal.grpc_code()));
            // The messages are ASCII without `%`, so gRPC's percent-encoding leaves them unchanged.
            headers.insert("grpc-message", HeaderValue::from_static(refusal.message()));
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::routing::get;
    use axum::{Extension, Router};
    use http_body_util::BodyExt;
    use spiced_engine::Role;
    use tower::ServiceExt;

    use super::*;

    fn app(access: Access, dialect: Dialect) -> Router {
        Router::new()
            .route("/", get(|caller: Extension<Principal>| async move { caller.name().to_owned() }))
            .layer(admission(access, dialect))
    }

    /// A change of the policy ends the responses of callers that it excludes, and no others.
    #[tokio::test]
    async fn a_revoked_caller_s_stream_ends() {
        let policy = |keys: &[(&str, Role)]| {
            let key = |(key, role): &(&str, Role)| crate::ApiKey {
                key: tls_core::Sourced::new((*key).into(), tls_core::Origin::Default),
                role: *role,
            };
            let keys = crate::ApiKeys::new(&keys.iter().map(key).collect::<Vec<_>>()).unwrap();
            Arc::new(crate::Policy { keys: Some(Arc::new(keys)), ..crate::Policy::default() })
        };
        let (rw, ro) = (Role::ReadWrite, Role::ReadOnly);
        let all = [("first-key-of-this-test", rw), ("second-key-of-this-test", rw)];
        for (after, is_left) in [
            (vec![all[0], all[1]], true),
            (vec![all[0]], true),
            (vec![(all[0].0, ro), all[1]], false),
            (vec![all[1]], false),
        ] {
            for dialect in [Dialect::Http, Dialect::Grpc] {
                let (policies, followed) = tokio::sync::watch::channel(policy(&all));
                let (send, frames) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
                let frames = Arc::new(std::sync::Mutex::new(Some(frames)));
                let stream = move || async move {
                    let frames = frames.lock().unwrap().take().unwrap();
                    let frames = futures::stream::unfold(frames, |mut frames| async {
                        Some((Ok::<_, Infallible>(frames.recv().await?), frames))
                    });
                    Body::from_stream(frames)
                };
                let app = Router::new().route("/", get(stream)).layer(admission(Access::following(followed), dialect));
                let request = Request::get("/").header("x-api-key", all[0].0).body(Body::empty()).unwrap();
                let mut body = app.oneshot(request).await.unwrap().into_body();
                send.send(Bytes::from_static(b"a")).unwrap();
                assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
                // A waiting reader is woken.
                let next = tokio::spawn(async move { body.frame().await });
                tokio::task::yield_now().await;
                policies.send_replace(policy(&after));
                if is_left {
                    tokio::task::yield_now().await;
                    send.send(Bytes::from_static(b"b")).unwrap();
                    assert_eq!(next.await.unwrap().unwrap().unwrap().into_data().unwrap(), "b");
                    continue;
                }
                match (dialect, next.await.unwrap().unwrap()) {
                    (Dialect::Http, Err(_)) => {}
                    (Dialect::Grpc, Ok(frame)) => assert_eq!(frame.trailers_ref().unwrap()["grpc-status"], "16"),
                    (dialect, other) => panic!("{dialect:?}: {other:?}"),
                }
                assert!(send.is_closed(), "what made the answer is dropped");
            }
        }
    }

    #[tokio::test]
    async fn a_revoked_caller_is_not_answered() {
        let (policies, followed) = tokio::sync::watch::channel(Arc::new(crate::Policy {
            anonymous: crate::Anonymous::Said(Some(Role::ReadOnly)),
            ..crate::Policy::default()
        }));
        let endless = get(std::future::pending::<&'static str>);
        let app = Router::new().route("/", endless).layer(admission(Access::following(followed), Dialect::Http));
        let asked = tokio::spawn(app.oneshot(Request::get("/").body(Body::empty()).unwrap()));
        tokio::task::yield_now().await;
        policies.send_replace(Arc::default());
        assert_eq!(asked.await.unwrap().unwrap().status(), StatusCode::UNAUTHORIZED);
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
