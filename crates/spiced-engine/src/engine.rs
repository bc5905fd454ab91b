//! The traits that an engine implements, and the plain types that they exchange.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde::Serialize;
use tokio::sync::watch;

use crate::{EngineError, ErrorKind, ForeignKey, Ingest, Key, Principal};

/// A query engine. All endpoints share it; calls on it are cheap.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Opens a session for one caller. Its settings and prepared statements are not visible to other callers.
    ///
    /// # Errors
    /// Fails if the engine cannot open a session now.
    async fn session(&self, principal: &Principal) -> Result<Box<dyn Session>, EngineError>;

    /// Returns the data sets and their states. The watch channel is notified when a state changes.
    fn datasets(&self) -> watch::Receiver<Vec<DatasetStatus>>;

    /// Describes the engine's SQL to drivers that ask for it; `None` if it is not known.
    fn dialect(&self) -> Option<Dialect> {
        None
    }
}

/// The properties of an engine's SQL that drivers ask for. Unquoted names are folded to lower case; names quoted with
/// `"` keep their case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dialect {
    /// Whether nulls sort high if the order does not specify it.
    pub nulls_are_high: bool,
    /// Words that are names only if they are quoted.
    pub keywords: Vec<String>,
    /// The numeric functions, by name.
    pub numeric_functions: Vec<String>,
    /// The string functions.
    pub string_functions: Vec<String>,
    /// The date and time functions.
    pub datetime_functions: Vec<String>,
    /// All other functions.
    pub system_functions: Vec<String>,
}

/// The session of one caller.
#[async_trait]
pub trait Session: Send + Sync {
    /// Plans a statement without running it.
    ///
    /// # Errors
    /// Fails if the statement is invalid, or names something that does not exist.
    async fn prepare(&self, statement: Statement) -> Result<Box<dyn Prepared>, EngineError>;

    /// Plans a bulk insert into a table. The result is executed once, and returns a count.
    ///
    /// # Errors
    /// Fails if the table does not exist or is not in the required state, or if the rows do not fit it. The default
    /// implementation always fails: the engine does not accept rows.
    async fn ingest(&self, ingest: Ingest) -> Result<Box<dyn Prepared>, EngineError> {
        Err(EngineError::new(
            ErrorKind::Unsupported,
            format!("this engine does not support bulk ingestion, and so not into {}", ingest.table),
        ))
    }

    /// Sets an option for later statements of this session; `None` resets it to its default. `catalog` and `schema` are
    /// where unqualified names are resolved; other options are specific to the engine.
    ///
    /// # Errors
    /// Fails if there is no such option (`Denied`, `NotFound` or, in the default implementation, `Unsupported`), or if
    /// the value is invalid for it (`InvalidStatement`).
    async fn set(&self, name: &str, _value: Option<&str>) -> Result<(), EngineError> {
        Err(EngineError::new(ErrorKind::Unsupported, format!("this engine has no options, so `{name}` cannot be set")))
    }

    /// Returns the catalogs, schemas and tables that are visible to the caller.
    ///
    /// # Errors
    /// Fails if the catalog cannot be read.
    async fn catalog(&self) -> Result<Catalog, EngineError>;
}

/// A planned statement that can run any number of times.
#[async_trait]
pub trait Prepared: Send + Sync {
    /// Returns the result schema. For a statement that changes data: one column, `count`, `UInt64`.
    fn schema(&self) -> SchemaRef;

    /// Returns the result schema for these parameters: the schema of every batch that [`Self::execute`] produces with
    /// them. Without values, a parameter of unknown type leaves the types that depend on it unknown.
    ///
    /// # Errors
    /// Fails if a parameter is missing or does not fit.
    async fn schema_with(&self, _parameters: &Parameters) -> Result<SchemaRef, EngineError> {
        Ok(self.schema())
    }

    /// Returns one field for each parameter, in order. Names are as written (`$1`, `$name`). The type is
    /// `DataType::Null` if it could not be inferred.
    fn parameters(&self) -> &Schema;

    /// Returns what running the statement does.
    fn effect(&self) -> Effect;

    /// Runs the statement. Dropping the execution or its stream cancels the query.
    ///
    /// # Errors
    /// Fails if a parameter is missing or does not fit, or if the query cannot start. Later failures are items of the
    /// stream.
    async fn execute(&self, parameters: Parameters) -> Result<Execution, EngineError>;
}

/// A statement as the client sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Statement {
    /// SQL text: exactly one statement.
    Sql(String),
    /// A Substrait plan, as protobuf bytes.
    Substrait(Vec<u8>),
}

/// Values for the parameters of a statement: nothing, or a batch of exactly one row.
///
/// A column named `$1` or `$name` binds that parameter. Without the `$`, columns are matched by name if their names are
/// those of the parameters, and otherwise by position (drivers number theirs from 0).
#[derive(Debug, Clone, Default)]
pub struct Parameters(Option<RecordBatch>);

impl Parameters {
    /// No parameters.
    pub fn none() -> Self {
        Self(None)
    }

    /// Takes the parameters from a batch of one row.
    ///
    /// # Errors
    /// Fails if the batch does not have exactly one row.
    pub fn from_batch(batch: RecordBatch) -> Result<Self, EngineError> {
        if batch.num_rows() != 1 {
            return Err(EngineError::new(
                crate::ErrorKind::InvalidStatement,
                format!("parameters must be one row, not {}; bind once per execution", batch.num_rows()),
            ));
        }
        Ok(Self(Some(batch)))
    }

    /// Returns the batch, if there is one.
    pub fn batch(&self) -> Option<&RecordBatch> {
        self.0.as_ref()
    }
}

/// What running a statement does, as the engine derives it from the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Reads data or metadata.
    Read,
    /// Changes the caller's session (`SET`).
    Session,
    /// Changes data.
    Write,
    /// Changes definitions.
    Ddl,
    /// Reaches beyond the engine (`COPY`, external tables).
    Admin,
}

impl Effect {
    /// Returns the one-word name that is used in logs and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Session => "session",
            Self::Write => "write",
            Self::Ddl => "ddl",
            Self::Admin => "admin",
        }
    }
}

/// Batches as they are produced. Dropping the stream cancels the query.
pub type Batches = BoxStream<'static, Result<RecordBatch, EngineError>>;

/// A running query.
pub struct Execution {
    /// The schema of every batch.
    pub schema: SchemaRef,
    /// The batches.
    pub batches: Batches,
}

impl Execution {
    /// Wraps batches that are already in memory. All have the schema of the first; without a batch, the schema is
    /// empty.
    pub fn of(batches: Vec<RecordBatch>) -> Self {
        let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
        Self { schema, batches: stream::iter(batches).map(Ok).boxed() }
    }
}

impl fmt::Debug for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Execution").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// The objects that are visible to a caller; tables are sorted by catalog, schema and name.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Every catalog and schema, including those without a table.
    pub schemas: Vec<(String, String)>,
    /// The tables and views.
    pub tables: Vec<TableInfo>,
}

/// One table or view.
#[derive(Debug, Clone)]
pub struct TableInfo {
    /// The catalog's name.
    pub catalog: String,
    /// The schema's name.
    pub schema: String,
    /// The table's name.
    pub name: String,
    /// `BASE TABLE` or `VIEW`.
    pub kind: &'static str,
    /// The columns.
    pub columns: Arc<Schema>,
    /// The primary key that the source reports.
    pub primary_key: Option<Key>,
    /// The foreign keys of the table, if the tables that they reference are visible too.
    pub foreign_keys: Vec<ForeignKey>,
}

/// A data set of the pod, and its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetStatus {
    /// The name it is queried by.
    pub name: String,
    /// The source, as written in the pod.
    pub from: String,
    /// Whether it is writable.
    pub writable: bool,
    /// Whether it can be queried.
    pub state: DatasetState,
}

/// Whether a data set can be queried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatasetState {
    /// The first load is in progress.
    Loading,
    /// It can be queried.
    Ready,
    /// The last load failed and will be retried.
    Failed {
        /// The cause, in one sentence.
        error: String,
        /// When the next attempt starts.
        next_attempt: SystemTime,
    },
}
