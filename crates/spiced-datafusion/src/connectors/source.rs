//! What a connector consists of: its table entry, and a source that can be loaded.

use std::error::Error;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SessionState;
use datafusion::optimizer::{AnalyzerRule, OptimizerRule};
use futures::FutureExt;
use futures::future::BoxFuture;
use spiced_engine::{Key, KeyRule};
use tls_core::Secret;
use tls_core::suggest::nearest;

use crate::DatasetSpec;
use crate::engine::start_error::{SpecError, SpecPart};
use crate::error::reason;
use crate::tables::updatable::UpdatableTable;

/// The name and the capabilities of a connector.
pub(crate) struct Connector {
    /// The part of `from` before the colon.
    pub(super) name: &'static str,
    /// Whether its data sets may be writable.
    pub(super) writable: bool,
    /// The params that it accepts, in groups.
    pub(super) params: &'static [&'static [&'static str]],
    /// Whether it accepts `columns`.
    pub(super) columns: bool,
    /// Checks everything that can be checked without contacting the source, and reports every error.
    pub(super) open: fn(Request<'_>) -> Opened,
    /// Returns a table of this connector as one whose rows can be changed.
    pub(super) changeable: fn(&dyn TableProvider) -> Option<&dyn UpdatableTable>,
    /// Enters the keys of this connector's tables, at the index of each table.
    pub(super) keys: fn(&[Arc<dyn TableProvider>], &mut [Keys]),
    /// The rules that must run before the planner's own.
    pub(super) analyzer_rules: fn() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>>,
    /// The rules that push work down to the source.
    pub(super) optimizer_rules: fn() -> Vec<Arc<dyn OptimizerRule + Send + Sync>>,
}

impl Connector {
    /// A connector that reads tables: the defaults of a table entry.
    pub(super) const READER: Self = Self {
        name: "",
        writable: false,
        params: &[],
        columns: false,
        open: |_| Err(Vec::new()),
        changeable: |_| None,
        keys: |_, _| {},
        analyzer_rules: Vec::new,
        optimizer_rules: Vec::new,
    };
}

/// A source that can be loaded, or every error in its description, one sentence each.
pub(crate) type Opened = Result<Arc<dyn Source>, Vec<SpecError>>;

/// A data set that a connector opens.
pub(crate) struct Request<'a> {
    pub(super) spec: &'a DatasetSpec,
    /// The part of `from` after the colon.
    pub(super) rest: &'a str,
    pub(super) state: &'a SessionState,
}

/// A load that is under way.
pub(crate) type Loading<'a> = BoxFuture<'a, Result<Arc<dyn TableProvider>, LoadError>>;

/// Why a data set cannot be loaded now.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct LoadError {
    /// The reason, in one line for the status and the log. It names the cause.
    reason: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl LoadError {
    /// The reason why DataFusion cannot read the data.
    pub(crate) fn engine(source: DataFusionError) -> Self {
        Self::caused(reason(&source), source)
    }

    /// A reason whose text names `source`.
    pub(crate) fn caused(reason: String, source: impl Error + Send + Sync + 'static) -> Self {
        Self { reason, source: Some(Arc::new(source)) }
    }
}

impl From<String> for LoadError {
    fn from(reason: String) -> Self {
        Self { reason, source: None }
    }
}

impl From<&str> for LoadError {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}

/// A data set with a valid description, which can be loaded now or later.
///
/// No `#[async_trait]`: see [`crate::proven`].
pub(crate) trait Source: Send + Sync {
    /// Contacts the source and reads its schema.
    ///
    /// # Errors
    /// Fails with the cause, in one line; the load is retried.
    fn load<'a>(&'a self, state: &'a SessionState) -> Loading<'a>;

    /// Whether the data set is built from other data sets.
    fn reads_others(&self) -> bool {
        false
    }

    /// Waits until the loaded state no longer matches the source. The data set is then loaded again.
    fn outdated(&self) -> BoxFuture<'_, ()> {
        std::future::pending().boxed()
    }
}

/// The keys of a table.
#[derive(Default)]
pub(crate) struct Keys {
    pub(crate) primary: Option<Key>,
    pub(crate) foreign: Vec<ForeignKey>,
}

/// A foreign key to a table of the same list.
pub(crate) struct ForeignKey {
    /// The index of the referenced table.
    pub(crate) to: usize,
    pub(crate) key: Key,
    pub(crate) referred: Key,
    pub(crate) on_update: KeyRule,
    pub(crate) on_delete: KeyRule,
}

/// Returns a suggestion if one of `known` is similar.
pub(super) fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map(|candidate| format!(" (the nearest is `{candidate}`)")).unwrap_or_default()
}

pub(super) fn list(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    names.into_iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// Returns the text of a param. Its value stays out of the message, because it may be a secret.
pub(super) fn text<'a>(name: &str, value: &'a Secret) -> Result<&'a str, SpecError> {
    value.expose_text().map_err(|_| SpecPart::Params.error(format!("`{name}` is not UTF-8")))
}

/// Quotes a name for SQL, whatever characters it contains.
#[cfg(any(feature = "flightsql", feature = "postgres"))]
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
