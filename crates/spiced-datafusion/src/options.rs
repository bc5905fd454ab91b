//! What an embedder tells the engine. Nothing here is checked; see `StartError` for what is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tls_core::Secret;
use tokio::runtime::Handle;

use crate::{RetainedSpec, SystemTable};

/// How long a query may take, planning and fetching included, where nobody says otherwise.
pub const DEFAULT_QUERY_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// How much memory all queries and memory tables together may take where nobody says otherwise: 2 GiB.
pub const DEFAULT_MEMORY_LIMIT: usize = 2 << 30;

/// How much may be spilled where nobody says otherwise: 10 GiB.
pub const DEFAULT_SPILL_LIMIT: u64 = 10 << 30;

/// How long a statement may be where nobody says otherwise: 1 MiB.
pub const DEFAULT_MAX_STATEMENT_SIZE: usize = 1 << 20;

/// What a [`DataFusionEngine`](crate::DataFusionEngine) is started with.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The data sets of the pod.
    pub datasets: Vec<DatasetSpec>,
    /// The views of the pod.
    pub views: Vec<ViewSpec>,
    /// The tables of the schema `runtime`.
    pub system: Vec<SystemTable>,
    /// Tables of what came last.
    pub retained: Vec<RetainedSpec>,
    /// The directories that `COPY` and `CREATE EXTERNAL TABLE` may reach; empty: nowhere.
    pub host_paths: Vec<PathBuf>,
    /// How long a query may take from the start of its planning until its last batch is fetched.
    pub query_timeout: Duration,
    /// Bytes that all queries and memory tables may hold together. What can spill then spills to
    /// `spill_directory`; what cannot fails.
    pub memory_limit: usize,
    /// Bytes that the whole process may have; above them, the statements during which it grew most are ended. `None`:
    /// no bound. Counts where the system tells a process its size (Linux).
    pub process_memory_limit: Option<usize>,
    /// Where a directory is made to spill to, which nobody else may read; it is removed at the end, or by the next
    /// start. `None`: in the system's temporary directory, where that can be written.
    pub spill_directory: Option<PathBuf>,
    /// Bytes that all queries may have spilled at a time; beyond them, what would spill fails.
    pub spill_limit: u64,
    /// The longest statement, in bytes.
    pub max_statement_size: usize,
    /// Where the statements of callers that may only read are planned and run; `None`: where all others are.
    pub readers: Option<Handle>,
    /// Where queries are planned and run: a multi-threaded runtime with its timer enabled, and
    /// with stacks for deep plans; [`query_runtime`](crate::query_runtime) makes one.
    pub runtime: Handle,
}

impl EngineOptions {
    /// No data sets, no host paths, and the default limits.
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
    /// True where SQL may change it.
    pub writable: bool,
    /// The directory at which relative paths of `from` start.
    pub folder: PathBuf,
    /// What the connector needs to know besides.
    pub params: BTreeMap<String, Secret>,
    /// The columns, for a connector that cannot find them out itself.
    pub columns: Vec<ColumnSpec>,
}

impl DatasetSpec {
    /// A data set that is read only and has neither params nor columns.
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
    /// Its type as SQL writes it: `BIGINT`, `DECIMAL(10, 2)`, `TIMESTAMP`.
    pub sql_type: String,
    /// False where every row has a value.
    pub nullable: bool,
}
