//! The API over a toy engine, and functions that call it.
#![allow(dead_code, clippy::unwrap_used, unreachable_pub)]

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use spiced_engine::Role;
use spiced_http::{HttpOptions, HttpState, Status, router};
use spiced_middleware::Access;
pub use testkit::Toy;
use tokio::sync::watch;
use tower::ServiceExt;

/// The API over an engine.
pub trait Api {
    fn state(&self, access: Access, options: HttpOptions) -> HttpState;

    fn api_with(&self, access: Access, options: HttpOptions) -> Router {
        router(self.state(access, options))
    }

    /// Returns the API for callers with write access.
    fn api(&self) -> Router {
        self.api_with(Access::anonymous(Some(Role::ReadWrite)), HttpOptions::default())
    }
}

impl Api for Toy {
    fn state(&self, access: Access, options: HttpOptions) -> HttpState {
        HttpState {
            engine: Arc::new(self.clone()),
            readiness: watch::channel(true).1,
            status: Arc::new(Status::default),
            access,
            options,
        }
    }
}

/// Returns a batch with the numbers below `rows`.
pub fn numbers(rows: i64) -> RecordBatch {
    RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(0..rows)) as ArrayRef)]).unwrap()
}

/// Returns a request for the result of `sql` in the format `accept`.
pub fn query(sql: &str, accept: &str) -> Request<Body> {
    Request::post("/v1/sql").header("accept", accept).body(Body::from(sql.to_owned())).unwrap()
}

pub struct Reply {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Returns the `detail` of a problem.
    pub fn detail(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text());
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], self.status.as_u16());
        problem["detail"].as_str().unwrap().to_owned()
    }
}

pub async fn call(api: Router, request: Request<Body>) -> Reply {
    let (parts, body) = api.oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    Reply { status: parts.status, headers: parts.headers, body }
}
