//! The options that an embedder passes to the engine. They are not checked here; see `StartError` for what is checked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tls_core::Secret;
use tokio::runtime::Handle;

use crate::RetainedSpec;
use crate::SystemTable;

/// The default time limit of a query, including planning and fetching.
pub const DEFAULT_QUERY_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// The default memory limit of all queries and memory tables together: 2 GiB.
pub const DEFAULT_MEMORY_LIMIT: usize = 2 << 30;

/// The default limit of spilled data: 10 GiB.
pub const DEFAULT_SPILL_LIMIT: u64 = 10 << 30;

/// The default maximum length of a statement: 1 MiB.
pub const DEFAULT_MAX_STATEMENT_SIZE: usize = 1 << 20;

/// The options of a [`DataFusionEngine`](crate::DataFusionEngine).
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The data sets of the pod.
    pub datasets: Vec<DatasetSpec>,
    /// The views of the pod.
    pub views: Vec<ViewSpec>,
    /// The tables of the schema `runtime`.
    pub system: Vec<SystemTable>,
    /// Tables that keep the most recent rows.
    pub retained: Vec<RetainedSpec>,
    /// The directories that `COPY` and `CREATE EXTERNAL TABLE` may access; if empty, they may access no path.
    pub host_paths: Vec<PathBuf>,
    /// The time limit of a query, from the start of planning until its last batch is fetched.
    pub query_timeout: Duration,
    /// Bytes that all queries and memory tables may hold together. Beyond them, operators that can spill do so to
    /// `spill_directory`; others fail.
    pub memory_limit: usize,
    /// Bytes that the whole process may use; above them, the statements during which it grew most are ended. `None`
    /// means no limit. It applies where the system reports a process's size (Linux).
    pub process_memory_limit: Option<usize>,
    /// The parent of the spill directory, which other users cannot read and which is removed at the end or by the next
    /// start. `None` means the system's temporary directory, if that is writable.
    pub spill_directory: Option<PathBuf>,
    /// Bytes that all queries may have spilled at any moment; beyond them, spilling fails.
    pub spill_limit: u64,
    /// The maximum length of a statement, in bytes.
    pub max_statement_size: usize,
    /// Runs the statements of read-only callers, planning included; `None` means the same runtime as for all others.
    pub readers: Option<Handle>,
    /// Runs queries, planning included: a multi-threaded runtime with its timer enabled, and with stacks large enough
    /// for deep plans; [`query_runtime`](crate::query_runtime) makes one.
    pub runtime: Handle,
}

impl EngineOptions {
    /// Creates options with no data sets, no host paths, and the default limits.
    pub fn new(runtime: Handle) -> Self {
        Self {
            datasets: Vec::new(),
            views: Vec::new(),
            system: Vec::new(),
            retained: Vec::new(),
            host_paths: Vec::new(),
            query_timeout: DEFAULT_QUERY_TIMEOUT,
            memory_limit: DEFAULT_MEMORY_LIMIT,
            process_memory_limit: None,
            spill_directory: None,
            spill_limit: DEFAULT_SPILL_LIMIT,
            max_statement_size: DEFAULT_MAX_STATEMENT_SIZE,
            readers: None,
            runtime,
        }
    }
}

/// A data set, as the pod describes it.
#[derive(Debug, Clone, Default)]
pub struct DatasetSpec {
    /// The name it is queried by: `table` or `schema.table`.
    pub name: String,
    /// The source: `connector:rest`.
    pub from: String,
    /// Whether SQL may change the data set.
    pub writable: bool,
    /// The base directory of relative paths in `from`.
    pub folder: PathBuf,
    /// Further parameters of the connector.
    pub params: BTreeMap<String, Secret>,
    /// The columns, for a connector that cannot infer them.
    pub columns: Vec<ColumnSpec>,
}

impl DatasetSpec {
    /// Creates a read-only data set without params and columns.
    pub fn new(name: impl Into<String>, from: impl Into<String>, folder: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), from: from.into(), folder: folder.into(), ..Self::default() }
    }
}

/// A view, as the pod describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewSpec {
    /// The name it is queried by: `view` or `schema.view`.
    pub name: String,
    /// The query.
    pub sql: String,
}

/// A column, as the pod describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnSpec {
    /// The column's name.
    pub name: String,
    /// Its SQL type: `BIGINT`, `DECIMAL(10, 2)`, `TIMESTAMP`.
    pub sql_type: String,
    /// Whether the column may be NULL.
    pub nullable: bool,
}
