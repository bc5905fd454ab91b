//! OTLP 1.x over gRPC: writes exports of OpenTelemetry SDKs and collectors to `otel.metrics`, `otel.logs` and
//! `otel.traces`, with the caller's write permission.

mod logs;
mod metrics;
mod rows;
mod traces;
mod values;

use std::sync::Arc;

use arrow_schema::SchemaRef;
use axum::Router;
use axum::extract::State;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response as AxumResponse;
use futures::{StreamExt, TryStreamExt, stream};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{self, LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    self, MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{self, TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use serde::Serialize;
use spiced_engine::{
    Engine, EngineError, ErrorKind, Execution, IfExists, IfMissing, Ingest, Parameters, Principal, Role, TablePath,
};
use tonic::codec::CompressionEncoding::{Gzip, Zstd};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use self::rows::Rows;
use crate::routes::mergeable;

/// The schema of the telemetry tables.
pub const TELEMETRY_SCHEMA: &str = "otel";

/// The names of the services.
pub(crate) const NAMES: [&str; 3] =
    [logs_service_server::SERVICE_NAME, metrics_service_server::SERVICE_NAME, trace_service_server::SERVICE_NAME];

/// The descriptors of the services.
pub(crate) const DESCRIPTORS: &[u8] = opentelemetry_proto::DESCRIPTORS;

/// The maximum size of an export, in bytes, before and after decompression. It is the default of collectors
/// (`max_recv_msg_size_mib`).
const MAX_EXPORT: usize = 4 << 20;

const LOGS: &str = "logs";
const METRICS: &str = "metrics";
const TRACES: &str = "traces";

/// Returns the names and schemas of the tables in [`TELEMETRY_SCHEMA`] that exports are written to. The engine must
/// provide these tables.
pub fn telemetry_tables() -> [(&'static str, SchemaRef); 3] {
    [(LOGS, logs::SCHEMA.clone()), (METRICS, metrics::SCHEMA.clone()), (TRACES, traces::SCHEMA.clone())]
}

/// Returns the three services as one router.
pub(crate) fn router(engine: Arc<dyn Engine>) -> Router {
    // A macro, because the generated servers share no trait.
    macro_rules! served {
        ($server:ident) => {
            $server::new(Otlp { engine: engine.clone() })
                .accept_compressed(Gzip)
                .accept_compressed(Zstd)
                .max_decoding_message_size(MAX_EXPORT)
        };
    }
    let routes = Routes::new(served!(LogsServiceServer));
    let routes = routes.add_service(served!(MetricsServiceServer)).add_service(served!(TraceServiceServer));
    mergeable(routes).layer(from_fn_with_state(engine, may_write))
}

/// Rejects a caller without write permission before its export is read and decompressed.
async fn may_write(State(engine): State<Arc<dyn Engine>>, request: axum::extract::Request, next: Next) -> AxumResponse {
    let caller = request.extensions().get::<Principal>();
    if let Some(caller) = caller.filter(|caller| caller.role() == Role::ReadOnly).cloned() {
        let path = request.uri().path();
        let table = match path {
            _ if path.contains(logs_service_server::SERVICE_NAME) => Some((LOGS, &logs::SCHEMA)),
            _ if path.contains(metrics_service_server::SERVICE_NAME) => Some((METRICS, &metrics::SCHEMA)),
            _ if path.contains(trace_service_server::SERVICE_NAME) => Some((TRACES, &traces::SCHEMA)),
            _ => None,
        };
        if let Some((table, schema)) = table {
            // The engine checks the permission and records the refusal, as for every statement.
            let nothing = Execution { schema: SchemaRef::clone(schema), batches: stream::empty().boxed() };
            let otlp = Otlp { engine };
            if let Err(error) = otlp.ingest(&caller, ingest(table, nothing)).await {
                return refused(error).into_http();
            }
        }
    }
    next.run(request).await
}

/// Returns an ingest of rows into a telemetry table.
fn ingest(table: &str, rows: Execution) -> Ingest {
    let table = TablePath { catalog: None, schema: Some(TELEMETRY_SCHEMA.to_owned()), name: table.to_owned() };
    Ingest { table, if_missing: IfMissing::Fail, if_exists: IfExists::Append, rows, routine: true }
}

#[derive(Clone)]
struct Otlp {
    engine: Arc<dyn Engine>,
}

#[tonic::async_trait]
impl LogsService for Otlp {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.keep(request, LOGS, &logs::SCHEMA, |sent| logs::rows(sent.resource_logs)).await
    }
}

#[tonic::async_trait]
impl MetricsService for Otlp {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.keep(request, METRICS, &metrics::SCHEMA, |sent| metrics::rows(sent.resource_metrics)).await
    }
}

#[tonic::async_trait]
impl TraceService for Otlp {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.keep(request, TRACES, &traces::SCHEMA, |sent| traces::rows(sent.resource_spans)).await
    }
}

impl Otlp {
    /// Writes an export to a table. The empty response confirms that every row is stored.
    async fn keep<Sent, Row: Serialize, Answer: Default>(
        &self,
        request: Request<Sent>,
        table: &str,
        schema: &SchemaRef,
        rows: impl FnOnce(Sent) -> Result<Rows<Row>, Status>,
    ) -> Result<Response<Answer>, Status> {
        let caller = request.extensions().get::<Principal>().cloned();
        let caller = caller.ok_or_else(|| Status::unauthenticated("the caller is not authenticated"))?;
        let rows = rows(request.into_inner())?;
        if !rows.is_empty() {
            let rows = rows.batches(schema.clone()).map_err(|error| Status::internal(error.to_string()))?;
            self.ingest(&caller, ingest(table, rows)).await.map_err(refused)?;
        }
        Ok(Response::new(Answer::default()))
    }

    async fn ingest(&self, caller: &Principal, ingest: Ingest) -> Result<(), EngineError> {
        let planned = self.engine.session(caller).await?.ingest(ingest).await?;
        planned.execute(Parameters::none()).await?.batches.try_for_each(|_| async { Ok(()) }).await
    }
}

/// Converts the engine's error to a status for exporters, which retry on UNAVAILABLE (OTLP, "Failures").
fn refused(error: EngineError) -> Status {
    let why = error.to_string();
    match error.kind() {
        ErrorKind::Exhausted | ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Cancelled => {
            Status::unavailable(why)
        }
        ErrorKind::Denied => Status::permission_denied(why),
        ErrorKind::InvalidStatement => Status::invalid_argument(why),
        _ => Status::internal(why),
    }
}
