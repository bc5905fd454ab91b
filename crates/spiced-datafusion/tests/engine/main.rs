//! Tests the engine through its traits, on files and tables that the tests create.

#![allow(missing_docs, clippy::unwrap_used)]

mod access;
mod admission;
mod bundled;
mod changes;
mod conditions;
mod datasets;
mod effects;
mod files;
mod functions;
mod ingest;
mod limits;
mod numbers;
mod parameters;
mod plans;
mod sessions;
mod system;
mod times;
mod views;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use spiced_datafusion::{ColumnSpec, DataFusionEngine, DatasetSpec, EngineOptions};
use spiced_engine::{
    DatasetState, Effect, Engine, EngineError, Parameters, Prepared, Principal, Role, Session, Statement,
};
use tempfile::TempDir;
use tokio::runtime::{Handle, Runtime};

/// Returns the runtime on which the engines of all tests run their queries.
fn queries() -> Handle {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| spiced_datafusion::query_runtime().unwrap()).handle().clone()
}

/// The options of an engine, with a separate directory.
struct Pod {
    folder: TempDir,
    options: EngineOptions,
}

impl Pod {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), options: EngineOptions::new(queries()) }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    fn write(&self, name: &str, text: &str) -> &Self {
        write(&self.path().join(name), text);
        self
    }

    fn dataset(&mut self, name: &str, from: &str) -> &mut Self {
        self.options.datasets.push(DatasetSpec::new(name, from, self.path()));
        self
    }

    fn params(&mut self, params: &[(&str, &str)]) -> &mut Self {
        let spec = self.options.datasets.last_mut().unwrap();
        spec.params = params.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
        self
    }

    /// Adds a `memory:` data set with the columns `id BIGINT NOT NULL, name VARCHAR`.
    fn memory(&mut self, name: &str, writable: bool) -> &mut Self {
        self.dataset(name, "memory:");
        let spec = self.options.datasets.last_mut().unwrap();
        spec.writable = writable;
        spec.columns = vec![column("id", "BIGINT", false), column("name", "VARCHAR", true)];
        self
    }

    fn start(&self) -> DataFusionEngine {
        DataFusionEngine::start(self.options.clone()).unwrap()
    }

    async fn session(&self) -> Box<dyn Session> {
        session(&self.start()).await
    }
}

fn column(name: &str, sql_type: &str, nullable: bool) -> ColumnSpec {
    ColumnSpec { name: name.into(), sql_type: sql_type.into(), nullable }
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

async fn session(engine: &DataFusionEngine) -> Box<dyn Session> {
    engine.session(&Principal::anonymous(Role::ReadWrite)).await.unwrap()
}

async fn prepare(session: &dyn Session, sql: &str) -> Result<Box<dyn Prepared>, EngineError> {
    session.prepare(Statement::Sql(sql.to_owned())).await
}

async fn effect(session: &dyn Session, sql: &str) -> Effect {
    prepare(session, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}")).effect()
}

async fn batches(session: &dyn Session, sql: &str) -> Result<Vec<RecordBatch>, EngineError> {
    let prepared = prepare(session, sql).await?;
    let answer = prepared.execute(Parameters::none()).await?;
    let schema = answer.schema.clone();
    let batches: Vec<RecordBatch> = answer.batches.try_collect().await?;
    assert!(batches.iter().all(|batch| batch.schema() == schema), "{sql}: a batch has another schema");
    if prepared.parameters().fields().is_empty() {
        assert_eq!(schema, prepared.schema(), "{sql}: the schema is not the one that was promised");
    }
    Ok(batches)
}

/// Returns the result as lines `a | b`, without the header.
async fn rows(session: &dyn Session, sql: &str) -> Result<Vec<String>, EngineError> {
    Ok(lines(&batches(session, sql).await?))
}

fn lines(batches: &[RecordBatch]) -> Vec<String> {
    if batches.is_empty() {
        return Vec::new();
    }
    let table = pretty_format_batches(batches).unwrap().to_string();
    let rows = table.lines().skip(3).filter(|line| !line.starts_with('+'));
    rows.map(|line| {
        line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" | ").trim_end().to_owned()
    })
    .collect()
}

/// Runs `sql` and panics if it fails.
async fn run(session: &dyn Session, sql: &str) -> Vec<String> {
    rows(session, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// Returns the error of `sql`, from planning or from execution.
async fn fails(session: &dyn Session, sql: &str) -> EngineError {
    rows(session, sql).await.map(|rows| panic!("{sql} answered {rows:?}")).unwrap_err()
}

/// Waits until the state of the data set at `index` satisfies `wanted`.
async fn until(engine: &DataFusionEngine, index: usize, wanted: impl Fn(&DatasetState) -> bool) -> DatasetState {
    let mut statuses = engine.datasets();
    let seen = tokio::time::timeout(
        std::time::Duration::from_secs(60),
        statuses.wait_for(|statuses| wanted(&statuses[index].state)),
    );
    seen.await.expect("the state comes within a minute").unwrap()[index].state.clone()
}
