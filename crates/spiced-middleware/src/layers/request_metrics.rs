//! The layer that counts requests: `spiced_requests_total` and `spiced_request_seconds`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, Request};
use http_body::{Body as _, Frame, SizeHint};
use metrics::{Counter, Histogram, counter, histogram};
use tower_layer::Layer;
use tower_service::Service;

/// Creates a layer that counts the requests of an endpoint. A request ends when its response has been sent or
/// abandoned.
///
/// A recorder that is installed after the first request of a kind does not see requests of that kind.
pub fn request_metrics(endpoint: &'static str) -> MeasuredLayer {
    MeasuredLayer { meters: Arc::new(Meters { endpoint, known: RwLock::default() }) }
}

/// The layer created by [`request_metrics`].
#[derive(Debug, Clone)]
pub struct MeasuredLayer {
    meters: Arc<Meters>,
}

impl<S> Layer<S> for MeasuredLayer {
    type Service = Measured<S>;

    fn layer(&self, inner: S) -> Measured<S> {
        Measured { inner, meters: self.meters.clone() }
    }
}

/// The service created by [`MeasuredLayer`].
#[derive(Debug, Clone)]
pub struct Measured<S> {
    inner: S,
    meters: Arc<Meters>,
}

/// The metrics of an endpoint, cached because a lookup in the recorder costs more than everything else here.
#[derive(Debug)]
struct Meters {
    endpoint: &'static str,
    /// By method and code; there are few of either.
    known: RwLock<HashMap<(&'static str, Code), Meter>>,
}

#[derive(Debug)]
struct Meter {
    requests: Counter,
    seconds: Histogram,
}

impl Meters {
    fn count(&self, method: &'static str, code: Code, took: Duration) {
        // No code that holds the lock can panic, except the insertion.
        if let Some(meter) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&(method, code)) {
            return meter.count(took);
        }
        let endpoint = self.endpoint;
        let meter = Meter {
            requests: counter!("spiced_requests_total", "endpoint" => endpoint, "method" => method, "code" => code.label()),
            seconds: histogram!("spiced_request_seconds", "endpoint" => endpoint, "method" => method),
        };
        meter.count(took);
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert((method, code), meter);
    }
}

impl Meter {
    fn count(&self, took: Duration) {
        self.requests.increment(1);
        self.seconds.record(took.as_secs_f64());
    }
}

/// How a request ended: an HTTP status, a gRPC code (always below any status), or neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Code {
    Number(u16),
    /// The caller disconnected, or the server stopped.
    Cancelled,
    /// The response broke off after its status was sent.
    Aborted,
}

impl Code {
    /// Returns the gRPC code in headers or trailers; a malformed code counts as UNKNOWN.
    fn grpc(headers: &HeaderMap) -> Option<Self> {
        let code = headers.get("grpc-status")?.to_str().ok().and_then(|code| code.parse().ok());
        Some(Self::Number(code.unwrap_or(2)))
    }

    fn label(self) -> Cow<'static, str> {
        match self {
            Self::Number(code) => code.to_string().into(),
            Self::Cancelled => "cancelled".into(),
            Self::Aborted => "aborted".into(),
        }
    }
}

impl<S> Service<Request<Body>> for Measured<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut record = Record {
            meters: self.meters.clone(),
            method: method_label(&request),
            code: None,
            complete: false,
            started: Instant::now(),
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            let status = Code::Number(response.status().as_u16());
            record.code = Some(Code::grpc(response.headers()).unwrap_or(status));
            Ok(response.map(|inner| {
                record.complete = inner.is_end_stream();
                Body::new(Counted { inner, record })
            }))
        })
    }
}

/// The measurements of a request, recorded on drop.
struct Record {
    meters: Arc<Meters>,
    method: &'static str,
    /// `None` until there is a response.
    code: Option<Code>,
    /// Whether the response was sent completely.
    complete: bool,
    started: Instant,
}

impl Drop for Record {
    fn drop(&mut self) {
        let code = self.code.filter(|_| self.complete).unwrap_or(Code::Cancelled);
        self.meters.count(self.method, code, self.started.elapsed());
    }
}

pin_project_lite::pin_project! {
    struct Counted {
        #[pin]
        inner: Body,
        record: Record,
    }
}

impl http_body::Body for Counted {
    type Data = <Body as http_body::Body>::Data;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        let polled = this.inner.as_mut().poll_frame(cx);
        this.record.complete |=
            !matches!(polled, Poll::Pending | Poll::Ready(Some(Ok(_)))) || this.inner.is_end_stream();
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.record.complete = true;
                    this.record.code = Code::grpc(trailers).or(this.record.code);
                }
            }
            Poll::Ready(Some(Err(_))) => this.record.code = Some(Code::Aborted),
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Returns a label with few possible values: the HTTP method, or the last part of the gRPC method's path, or `other`.
fn method_label(request: &Request<Body>) -> &'static str {
    const HTTP: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];
    const GRPC: &[&str] = &[
        "GetFlightInfo",
        "PollFlightInfo",
        "GetSchema",
        "DoGet",
        "DoPut",
        "DoExchange",
        "DoAction",
        "ListActions",
        "ListFlights",
        "Handshake",
        "Check",
        "Watch",
        "List",
        "ServerReflectionInfo",
        "Export",
    ];
    let is_grpc = request
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let (known, name) = if is_grpc {
        (GRPC, request.uri().path().rsplit('/').next().unwrap_or_default())
    } else {
        (HTTP, request.method().as_str())
    };
    known.iter().find(|k| **k == name).copied().unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_few() {
        let label = |path: &str, kind: &str, method: &str| {
            let request = Request::builder().method(method).uri(path).header("content-type", kind);
            method_label(&request.body(Body::empty()).unwrap())
        };
        assert_eq!(label("/arrow.flight.protocol.FlightService/DoGet", "application/grpc", "POST"), "DoGet");
        assert_eq!(label("/x/Whatever", "application/grpc+proto", "POST"), "other");
        assert_eq!(label("/v1/sql", "text/plain", "POST"), "POST");
        assert_eq!(label("/v1/sql", "text/plain", "BREW"), "other");
    }
}
