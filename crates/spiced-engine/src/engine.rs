//! The traits an engine implements, and the plain types that cross them.

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

/// A query engine. Shared by all endpoints; cheap to call.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// A session of the caller's own. What it sets or prepares is seen by nobody else.
    ///
    /// # Errors
    /// The engine cannot open a session now.
    async fn session(&self, principal: &Principal) -> Result<Box<dyn Session>, EngineError>;

    /// The data sets and how each fares; the watch changes when one of them does.
    fn datasets(&self) -> watch::Receiver<Vec<DatasetStatus>>;

    /// How its SQL reads, for drivers that ask; `None` where it does not say.
    fn dialect(&self) -> Option<Dialect> {
        None
    }
}

/// How the SQL of an engine reads, as far as drivers ask: names that are not quoted are in lower case, names that are
/// quoted are as written, within `"`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dialect {
    /// Where nulls stand in an order that does not say.
    pub nulls_are_high: bool,
    /// Words that are no names unless they are quoted.
    pub keywords: Vec<String>,
    /// The functions of numbers, by name.
    pub numeric_functions: Vec<String>,
    /// The functions of text.
    pub string_functions: Vec<String>,
    /// The functions of dates and times.
    pub datetime_functions: Vec<String>,
    /// All other functions.
    pub system_functions: Vec<String>,
}

/// One caller's session.
#[async_trait]
pub trait Session: Send + Sync {
    /// Plans a statement without running it.
    ///
    /// # Errors
    /// The statement is wrong, or names what is not there.
    async fn prepare(&self, statement: Statement) -> Result<Box<dyn Prepared>, EngineError>;

    /// Plans putting rows into a table. What it gives is executed once, and answers a count.
    ///
    /// # Errors
    /// The table is not there, or not as it is wanted; the rows do not fit it; or, unless it is overridden,
    /// the engine takes no rows.
    async fn ingest(&self, ingest: Ingest) -> Result<Box<dyn Prepared>, EngineError> {
        Err(EngineError::new(
            ErrorKind::Unsupported,
            format!("this engine takes no rows in bulk, and so none for {}", ingest.table),
        ))
    }

    /// Sets an option for what comes in this session, or with `None` gives it back its default: `catalog` and
    /// `schema` are where names without one are looked up, others are the engine's own.
    ///
    /// # Errors
    /// There is no such option (`Denied`, `NotFound` or, unless it is overridden, `Unsupported`), or the value is none
    /// for it (`InvalidStatement`).
    async fn set(&self, name: &str, _value: Option<&str>) -> Result<(), EngineError> {
        Err(EngineError::new(ErrorKind::Unsupported, format!("this engine has no options, and so not `{name}`")))
    }

    /// The catalogs, schemas and tables that the caller may see.
    ///
    /// # Errors
    /// The catalog cannot be read.
    async fn catalog(&self) -> Result<Catalog, EngineError>;
}

/// A statement that is planned and ready to run, any number of times.
#[async_trait]
pub trait Prepared: Send + Sync {
    /// The schema of the answer. For a statement that changes data: one column, `count`, `UInt64`.
    fn schema(&self) -> SchemaRef;

    /// The schema of the answer with these parameters: that of every batch that [`Self::execute`] gives with them. Without
    /// values, a parameter whose type is open leaves open what depends on it.
    ///
    /// # Errors
    /// A parameter is missing or does not fit.
    async fn schema_with(&self, _parameters: &Parameters) -> Result<SchemaRef, EngineError> {
        Ok(self.schema())
    }

    /// One field for each parameter, in order. Names are as written (`$1`, `$name`); a type that
    /// could not be inferred is `DataType::Null`.
    fn parameters(&self) -> &Schema;

    /// What running it does.
    fn effect(&self) -> Effect;

    /// Runs it. Dropping the execution, or its stream, cancels the query.
    ///
    /// # Errors
    /// A parameter is missing or does not fit, or the query cannot start. What fails later is an
    /// item of the stream.
    async fn execute(&self, parameters: Parameters) -> Result<Execution, EngineError>;
}

/// What is asked of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Statement {
    /// SQL text: exactly one statement.
    Sql(String),
    /// A Substrait plan, as protobuf bytes.
    Substrait(Vec<u8>),
}

/// Values for a statement's parameters: nothing, or a batch of exactly one row.
///
/// A column called `$1` or `$name` is for that parameter. Without the `$`, names count where they are
/// the parameters' own; else columns are taken in order (drivers number theirs from 0).
#[derive(Debug, Clone, Default)]
pub struct Parameters(Option<RecordBatch>);

impl Parameters {
    /// No parameters.
    pub fn none() -> Self {
        Self(None)
    }

    /// The parameters in a batch of one row.
    ///
    /// # Errors
    /// The batch does not have exactly one row.
    pub fn from_batch(batch: RecordBatch) -> Result<Self, EngineError> {
        if batch.num_rows() != 1 {
            return Err(EngineError::new(
                crate::ErrorKind::InvalidStatement,
                format!("parameters come as one row, not {}; bind once per execution", batch.num_rows()),
            ));
        }
        Ok(Self(Some(batch)))
    }

    /// The batch, where there is one.
    pub fn batch(&self) -> Option<&RecordBatch> {
        self.0.as_ref()
    }
}

/// What running a statement does, as the engine reads it from its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Reads data or metadata.
    Read,
    /// Changes the caller's own session (`SET`).
    Session,
    /// Changes data.
    Write,
    /// Changes definitions.
    Ddl,
    /// Reaches beyond the engine (`COPY`, external tables).
    Admin,
}

impl Effect {
    /// Its name in logs and tables: one word.
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

/// Batches as they are made. Dropping the stream cancels the query.
pub type Batches = BoxStream<'static, Result<RecordBatch, EngineError>>;

/// A running query.
pub struct Execution {
    /// The schema of every batch.
    pub schema: SchemaRef,
    /// The batches.
    pub batches: Batches,
}

impl Execution {
    /// Batches that are there already; all have the schema of the first. No batches: no columns.
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

/// What a caller may see: tables sorted by catalog, schema and name.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Every catalog and schema, also those without a table.
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
    /// The key that its source says it has.
    pub primary_key: Option<Key>,
    /// The keys of other tables that its columns hold, as far as those tables are to be seen too.
    pub foreign_keys: Vec<ForeignKey>,
}

/// A data set of the pod, and how it fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DatasetStatus {
    /// The name it is queried by.
    pub name: String,
    /// The source, as the pod writes it.
    pub from: String,
    /// True where it may be written.
    pub writable: bool,
    /// Whether it can be queried.
    #[serde(flatten)]
    pub state: DatasetState,
}

/// Whether a data set can be queried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum DatasetState {
    /// The first load is under way.
    Loading,
    /// It can be queried.
    Ready,
    /// The last load failed; it is tried again.
    Failed {
        /// Why, in one sentence.
        error: String,
        /// When the next attempt starts.
        #[serde(serialize_with = "unix_seconds")]
        next_attempt: SystemTime,
    },
}

fn unix_seconds<S: serde::Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs()))
}
