//! The pieces of work that are counted.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_flight::sql::{
    CommandStatementIngest, ProstMessageExt, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use arrow_flight::utils::batches_to_flight_data;
use arrow_flight::{FlightDescriptor, FlightInfo};
use axum::Router;
use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{FutureExt, stream};
use http::Request;
use http_body_util::BodyExt;
use prost::Message;
use spiced_engine::Role;
use spiced_flight::FlightOptions;
use spiced_http::{HttpOptions, HttpState, Status};
use spiced_middleware::{Access, Dialect, admission, request_metrics};
use tokio::sync::watch;
use tower::ServiceExt;

use crate::engine::{Ready, batch};

/// A piece of work.
pub(crate) struct Work {
    pub(crate) name: &'static str,
    /// Creates the endpoint.
    pub(crate) endpoint: fn() -> Router,
    /// Creates the request; it may send another request first.
    pub(crate) request: fn(Router) -> BoxFuture<'static, Result<Request<Body>, String>>,
    /// The minimum size of the response, in bytes.
    pub(crate) least: usize,
}

/// Column data of a row, in bytes.
const ROW: usize = 64;

/// The frame size of request bodies over HTTP/2 (RFC 9113 §4.2).
const HTTP2_FRAME: usize = 16 << 10;

/// All pieces of work.
pub(crate) const ALL: [Work; 6] = [
    Work { name: "doget-8k", endpoint: || flight(16, 8_192), request: ticket, least: 16 * 8_192 * ROW },
    Work { name: "doget-64k", endpoint: || flight(4, 65_536), request: ticket, least: 4 * 65_536 * ROW },
    Work { name: "doput-64k", endpoint: || flight(1, 1), request: ingest, least: 1 },
    Work { name: "sql-json", endpoint: || http(4, 1_024), request: |_| sql("application/json"), least: 4 * 1_024 * 8 },
    Work {
        name: "sql-arrow",
        endpoint: || http(16, 8_192),
        request: |_| sql("application/vnd.apache.arrow.stream"),
        least: 16 * 8_192 * ROW,
    },
    Work { name: "health", endpoint: || http(1, 1), request: |_| health(), least: 2 },
];

fn answers(batches: usize, rows: usize) -> Arc<Ready> {
    Arc::new(Ready(Arc::new(vec![batch(rows); batches])))
}

fn flight(batches: usize, rows: usize) -> Router {
    let access = admission(Access::anonymous(Some(Role::ReadWrite)), Dialect::Grpc);
    spiced_flight::router(answers(batches, rows), FlightOptions::default())
        .layer(access)
        .layer(request_metrics("flight"))
}

fn http(batches: usize, rows: usize) -> Router {
    let state = HttpState {
        engine: answers(batches, rows),
        readiness: watch::channel(true).1,
        status: Arc::new(Status::default),
        access: Access::anonymous(Some(Role::ReadWrite)),
        options: HttpOptions::default(),
    };
    spiced_http::router(state).layer(request_metrics("http"))
}

fn health() -> BoxFuture<'static, Result<Request<Body>, String>> {
    let request = Request::get("/health").body(Body::empty()).map_err(|e| e.to_string());
    std::future::ready(request).boxed()
}

fn sql(accept: &'static str) -> BoxFuture<'static, Result<Request<Body>, String>> {
    let request = Request::post("/v1/sql").header("accept", accept).body(Body::from("SELECT 1"));
    std::future::ready(request.map_err(|e| e.to_string())).boxed()
}

fn call(method: &str, body: Body) -> Result<Request<Body>, String> {
    Request::post(format!("/arrow.flight.protocol.FlightService/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .map_err(|e| e.to_string())
}

/// Frames a gRPC message: the flag for no compression, and the length.
fn framed(message: &impl Message) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.encoded_len() as u32);
    framed.put_slice(&message.encode_to_vec());
    framed.freeze()
}

/// Creates the DoGet of a statement.
fn ticket(endpoint: Router) -> BoxFuture<'static, Result<Request<Body>, String>> {
    async move {
        let asked = call("GetFlightInfo", framed(&FlightDescriptor::new_cmd("SELECT 1")).into())?;
        let answer = endpoint.oneshot(asked).await.map_err(|never: std::convert::Infallible| never.to_string())?;
        let answer = answer.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
        let info = FlightInfo::decode(answer.get(5..).unwrap_or_default()).map_err(|e| e.to_string())?;
        let ticket = info.endpoint.into_iter().next().and_then(|endpoint| endpoint.ticket).ok_or("no ticket")?;
        call("DoGet", framed(&ticket).into())
    }
    .boxed()
}

/// Creates the DoPut of four batches.
fn ingest(_: Router) -> BoxFuture<'static, Result<Request<Body>, String>> {
    let made = || {
        let batch: RecordBatch = batch(65_536);
        let mut messages = batches_to_flight_data(&batch.schema(), vec![batch; 4]).map_err(|e| e.to_string())?;
        let ingest = CommandStatementIngest {
            table_definition_options: Some(TableDefinitionOptions {
                if_not_exist: TableNotExistOption::Create.into(),
                if_exists: TableExistsOption::Append.into(),
            }),
            table: "t".to_owned(),
            ..CommandStatementIngest::default()
        };
        let descriptor = FlightDescriptor::new_cmd(ingest.as_any().encode_to_vec());
        messages.first_mut().ok_or("no schema")?.flight_descriptor = Some(descriptor);
        let mut frames = Vec::new();
        for message in &messages {
            let mut bytes = framed(message);
            while !bytes.is_empty() {
                frames.push(Ok::<_, std::io::Error>(bytes.split_to(bytes.len().min(HTTP2_FRAME))));
            }
        }
        call("DoPut", Body::from_stream(stream::iter(frames)))
    };
    std::future::ready(made()).boxed()
}
