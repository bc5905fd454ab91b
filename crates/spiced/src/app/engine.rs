//! Starts the query engine of the pod, behind the limits and observers that apply to every statement.

use std::sync::Arc;

use spiced_config::Settings;
use spiced_datafusion::{
    ColumnSpec, DataFusionEngine, DatasetSpec, EngineOptions, History, RetainedSpec, Retention, ViewSpec, tls_table,
};
use spiced_engine::{AdmissionControl, Engine, Guarded, ResultLimits, RoleLimits};
use spiced_middleware::{AuditLog, StatementMetrics};
use tls_core::rotation::Identities;
use tokio::runtime::Runtime;

use crate::failure::Failure;

/// The runtimes for statements: read-only callers never take a thread from callers that write.
pub(super) struct QueryRuntimes {
    pub(super) readers: Runtime,
    pub(super) writers: Runtime,
}

impl QueryRuntimes {
    /// Starts both.
    pub(super) fn start() -> Result<Self, Failure> {
        let runtime = || spiced_datafusion::query_runtime().map_err(|e| Failure::Other(e.to_string()));
        Ok(Self { readers: runtime()?, writers: runtime()? })
    }
}

/// Starts the engine. Every statement is subject to the caller's role and the limits, and is observed.
pub(super) fn start(
    settings: &Settings,
    identities: Option<Identities>,
    runtimes: &QueryRuntimes,
) -> Result<Arc<dyn Engine>, Failure> {
    let history = History::of(settings.runtime.sql.history);
    let options = options(settings, identities, &history, runtimes);
    let engine = DataFusionEngine::start(options).map_err(|e| Failure::Configuration {
        causes: e.causes().iter().map(ToString::to_string).collect(),
        hints: vec!["change the data sets in spicepod.yaml".to_owned()],
    })?;
    let sql = &settings.runtime.sql;
    let readers = RoleLimits { running: sql.concurrency.ro, waiting: sql.queue.ro };
    let writers = RoleLimits { running: sql.concurrency.rw, waiting: sql.queue.rw };
    let admission = AdmissionControl::new(readers, writers, sql.queue_timeout);
    let bound = |bound: Option<usize>| bound.map(|bound| bound as u64);
    let bounds = ResultLimits { rows: bound(sql.max_result_rows), bytes: bound(sql.max_result_bytes) };
    let guarded = Guarded::new(engine).admitted_by(admission).limited(bounds);
    Ok(Arc::new(guarded.observed(Arc::new(AuditLog)).observed(Arc::new(StatementMetrics)).observed(history)))
}

fn options(
    settings: &Settings,
    identities: Option<Identities>,
    history: &Arc<History>,
    runtimes: &QueryRuntimes,
) -> EngineOptions {
    let QueryRuntimes { readers, writers } = runtimes;
    let sql = &settings.runtime.sql;
    let mut options = EngineOptions::new(writers.handle().clone());
    let metrics = settings.runtime.listen.metrics.as_ref().map(|_| "metrics");
    let endpoints = ["http", "flight", "grpc"].into_iter().chain(metrics).collect();
    options.views =
        settings.views.iter().map(|view| ViewSpec { name: view.name.clone(), sql: view.sql.clone() }).collect();
    options.system = vec![tls_table(endpoints, identities), history.table()];
    let retention = Retention { age: settings.runtime.otel.retention, bytes: settings.runtime.otel.memory_limit };
    let kept = |(table, columns): (&str, _)| RetainedSpec {
        schema: spiced_grpc::TELEMETRY_SCHEMA.to_owned(),
        table: table.to_owned(),
        columns,
        retention,
    };
    options.retained = spiced_grpc::telemetry_tables().into_iter().map(kept).collect();
    options.host_paths = sql.host_paths.clone();
    options.query_timeout = sql.timeout;
    options.memory_limit = sql.memory_limit;
    options.process_memory_limit = Some(sql.process_memory_limit);
    options.max_statement_size = sql.max_statement_size;
    options.spill_directory = sql.spill_directory.clone();
    options.spill_limit = sql.spill_limit as u64;
    options.readers = Some(readers.handle().clone());
    options.datasets = settings
        .datasets
        .iter()
        .map(|set| DatasetSpec {
            name: set.name.clone(),
            from: set.from.clone(),
            writable: set.writable,
            folder: settings.folder.clone(),
            params: set.params.clone(),
            columns: set
                .columns
                .iter()
                .map(|c| ColumnSpec { name: c.name.clone(), sql_type: c.data_type.clone(), nullable: c.nullable })
                .collect(),
        })
        .collect();
    options
}
