//! A toy engine, and functions that call the API over it.
#![allow(dead_code, clippy::unwrap_used, unreachable_pub)]

use std::sync::Arc;
use std::time::SystemTime;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use futures::{StreamExt, stream};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use spiced_engine::{
    Batches, DatasetState, DatasetStatus, Engine, EngineError, Execution, Parameters, Principal, Role, Session,
    engine_fn,
};
use spiced_http::{HttpOptions, HttpState, Status, router};
use spiced_middleware::Access;
use tokio::sync::watch;
use tower::ServiceExt;

/// An engine that runs every statement with one function. It has two data sets, one of them lost.
#[derive(Clone)]
pub struct Toy(Arc<dyn Engine>);

impl Toy {
    pub fn new(
        answer: impl Fn(&str, &Parameters) -> Result<(SchemaRef, Batches), EngineError> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(engine_fn(move |sql, parameters| {
            let (schema, batches) = answer(sql, parameters)?;
            Ok(Execution { schema, batches })
        })))
    }

    /// Creates an engine that returns these batches.
    pub fn batches(batches: Vec<RecordBatch>) -> Self {
        Self::new(move |_, _| Ok((batches[0].schema(), stream::iter(batches.clone()).map(Ok).boxed())))
    }

    /// Returns the API over this engine, for callers with write access.
    pub fn api(&self) -> Router {
        self.api_with(Access::anonymous(Some(Role::ReadWrite)), HttpOptions::default())
    }

    pub fn api_with(&self, access: Access, options: HttpOptions) -> Router {
        router(self.state(access, options))
    }

    pub fn state(&self, access: Access, options: HttpOptions) -> HttpState {
        HttpState {
            engine: Arc::new(self.clone()),
            readiness: watch::channel(true).1,
            status: Arc::new(Status::default),
            access,
            options,
        }
    }
}

#[async_trait]
impl Engine for Toy {
    async fn session(&self, caller: &Principal) -> Result<Box<dyn Session>, EngineError> {
        self.0.session(caller).await
    }

    fn datasets(&self) -> watch::Receiver<Vec<DatasetStatus>> {
        let failed = DatasetState::Failed { error: "no such file".into(), next_attempt: SystemTime::UNIX_EPOCH };
        let dataset =
            |name: &str, state| DatasetStatus { name: name.into(), from: "memory:".into(), writable: false, state };
        watch::channel(vec![dataset("a", DatasetState::Ready), dataset("b", failed)]).1
    }
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
