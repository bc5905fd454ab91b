//! The layer that counts requests: `spiced_requests_total` and `spiced_request_seconds`.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, Request};
use http_body::{Body as _, Frame, SizeHint};
use metrics::{counter, histogram};
use tower_layer::Layer;
use tower_service::Service;

/// Counts the requests of a door. A request ends when its answer has been sent, or given up.
pub fn measured(endpoint: &'static str) -> MeasuredLayer {
    MeasuredLayer { endpoint }
}

/// The layer that [`measured`] makes.
#[derive(Debug, Clone, Copy)]
pub struct MeasuredLayer {
    endpoint: &'static str,
}

impl<S> Layer<S> for MeasuredLayer {
    type Service = Measured<S>;

    fn layer(&self, inner: S) -> Measured<S> {
        Measured { inner, endpoint: self.endpoint }
    }
}

/// The service that [`MeasuredLayer`] makes.
#[derive(Debug, Clone)]
pub struct Measured<S> {
    inner: S,
    endpoint: &'static str,
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
            endpoint: self.endpoint,
            method: method_label(&request),
            code: None,
            complete: false,
            started: Instant::now(),
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            record.code = Some(match response.headers().get("grpc-status") {
                Some(code) => code.to_str().unwrap_or("2").to_owned(),
                None => response.status().as_str().to_owned(),
            });
            Ok(response.map(|inner| {
                record.complete = inner.is_end_stream();
                Body::new(Counted { inner, record })
            }))
        })
    }
}

/// What is known of a request; written down when it is dropped.
struct Record {
    endpoint: &'static str,
    method: &'static str,
    /// The HTTP status or the gRPC code; `None` before there is an answer.
    code: Option<String>,
    /// Whether the answer was sent to its end.
    complete: bool,
    started: Instant,
}

impl Drop for Record {
    fn drop(&mut self) {
        let (endpoint, method) = (self.endpoint, self.method);
        let code = self.code.take().filter(|_| self.complete).unwrap_or_else(|| "cancelled".to_owned());
        counter!("spiced_requests_total", "endpoint" => endpoint, "method" => method, "code" => code).increment(1);
        histogram!("spiced_request_seconds", "endpoint" => endpoint, "method" => method)
            .record(self.started.elapsed().as_secs_f64());
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
                    this.record.code = grpc_code(trailers).or(this.record.code.take());
                }
            }
            // The status was sent already: the caller saw the stream break.
            Poll::Ready(Some(Err(_))) => this.record.code = Some("aborted".to_owned()),
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

fn grpc_code(trailers: &HeaderMap) -> Option<String> {
    trailers.get("grpc-status").and_then(|code| code.to_str().ok()).map(str::to_owned)
}

/// A label with few values: the HTTP method, or the gRPC method's last part, whatever a caller sends.
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
