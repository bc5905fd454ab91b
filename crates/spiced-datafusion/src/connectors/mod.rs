//! The connectors: one module and one entry in [`CONNECTORS`] each.

mod checked;
mod csv_files;
mod damaged;
mod file;
mod flightsql;
mod format;
mod inferred;
mod json_files;
mod listing;
mod literal;
mod memory;
mod object;
mod outbound;
mod outdated;
mod params;
mod parquet_files;
mod postgres;
mod remote;
mod wrapped_format;

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::Constraint;
use datafusion::datasource::file_format::FileFormatFactory;
use datafusion::execution::context::SessionState;
use datafusion::optimizer::{AnalyzerRule, OptimizerRule};
use futures::FutureExt;
use futures::future::BoxFuture;
use spiced_engine::Key;
use tls_core::Secret;
use tls_core::suggest::nearest;

pub(crate) use self::damaged::NameDamagedFiles;
pub(crate) use self::postgres::Reference;
use crate::DatasetSpec;
use crate::planning::dml::UpdatableTable;
use crate::tables::memory_table::MemoryTable;

/// All connectors.
const CONNECTORS: &[Connector] = &[
    file::CONNECTOR,
    memory::CONNECTOR,
    postgres::CONNECTOR,
    object::S3,
    object::HTTP,
    object::HTTPS,
    flightsql::CONNECTOR,
];

/// The name and the capabilities of a connector.
pub(crate) struct Connector {
    /// The part of `from` before the colon.
    name: &'static str,
    /// Whether its data sets may be writable.
    writable: bool,
    /// The params that it accepts, in groups.
    params: &'static [&'static [&'static str]],
    /// Whether it accepts `columns`.
    columns: bool,
    /// Checks everything that can be checked without contacting the source, and reports every error.
    open: fn(Request<'_>) -> Opened,
}

/// A source that can be loaded, or every error in its description, one sentence each.
pub(crate) type Opened = Result<Arc<dyn Source>, Vec<String>>;

/// A data set that a connector opens.
pub(crate) struct Request<'a> {
    spec: &'a DatasetSpec,
    /// The part of `from` after the colon.
    rest: &'a str,
    state: &'a SessionState,
}

/// A load that is under way.
pub(crate) type Loading<'a> = BoxFuture<'a, Result<Arc<dyn TableProvider>, String>>;

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

/// Finds the connector of `spec`, which then checks the rest.
///
/// # Errors
/// Fails with every permanent error, one sentence each.
pub(crate) fn open(spec: &DatasetSpec, state: &SessionState) -> Opened {
    // `memory:` needs quotes in YAML; `memory` is the same without them.
    let bare = (spec.from == "memory").then_some(("memory", ""));
    let Some((name, rest)) = spec.from.split_once(':').or(bare) else {
        return Err(vec![format!(
            "from: `{}` names no connector; it begins with one of {}",
            spec.from,
            list(CONNECTORS.iter().map(|c| format!("{}:", c.name)))
        )]);
    };
    let Some(connector) = CONNECTORS.iter().find(|c| c.name == name) else {
        let nearest = suggestion(name, CONNECTORS.iter().map(|c| c.name));
        return Err(vec![format!(
            "from: there is no connector `{name}`{nearest}; there are {}",
            list(CONNECTORS.iter().map(|c| c.name))
        )]);
    };
    let mut wrong = Vec::new();
    if spec.writable && !connector.writable {
        wrong.push(format!("access: the connector `{name}` cannot write; say `access: read`"));
    }
    let known: Vec<&str> = connector.params.concat();
    for param in spec.params.keys().filter(|param| !known.contains(&param.as_str())) {
        wrong.push(if known.is_empty() {
            format!("params: the connector `{name}` has none, and `{param}` is given")
        } else {
            format!(
                "params: the connector `{name}` does not know `{param}`{}; it knows {}",
                suggestion(param, known.iter().copied()),
                list(&known)
            )
        });
    }
    if !spec.columns.is_empty() && !connector.columns {
        wrong.push(format!("columns: the connector `{name}` finds them out itself; leave them out"));
    }
    match (connector.open)(Request { spec, rest, state }) {
        Ok(source) if wrong.is_empty() => Ok(source),
        Ok(_) => Err(wrong),
        Err(more) => {
            wrong.extend(more);
            Err(wrong)
        }
    }
}

/// Returns the table as one whose rows can be changed, if it supports that.
pub(crate) fn changeable(table: &dyn TableProvider) -> Option<&dyn UpdatableTable> {
    let in_memory = table.downcast_ref::<MemoryTable>().map(|table| table as &dyn UpdatableTable);
    in_memory.or_else(|| postgres::changeable(table))
}

/// A table's primary key and its foreign keys, with the index of the referenced table in the same list of tables.
pub(crate) struct Keys {
    pub(crate) own: Option<Key>,
    pub(crate) held: Vec<(usize, Reference)>,
}

/// Returns the keys that the sources report for `tables`, in the same order.
pub(crate) fn keys(tables: &[Arc<dyn TableProvider>]) -> Vec<Keys> {
    let keyed: Vec<_> = tables.iter().map(|table| postgres::Keyed::of(table.as_ref())).collect();
    let of = |(at, table): (usize, &Arc<dyn TableProvider>)| {
        let Some(own) = &keyed[at] else { return Keys { own: declared(table.as_ref()), held: Vec::new() } };
        let held = own.keys.foreign.iter().filter_map(|reference| {
            let is_meant = |other: &Option<postgres::Keyed<'_>>| {
                other.as_ref().is_some_and(|other| own.refers_to(&reference.to, other))
            };
            // A self-referencing table that is listed under several names references itself under its own name.
            let to = if is_meant(&keyed[at]) { at } else { keyed.iter().position(is_meant)? };
            Some((to, reference.clone()))
        });
        Keys { own: own.keys.primary.clone(), held: held.collect() }
    };
    tables.iter().enumerate().map(of).collect()
}

/// Returns the key from `CREATE TABLE`.
fn declared(table: &dyn TableProvider) -> Option<Key> {
    let in_memory = table.downcast_ref::<MemoryTable>()?;
    let columns = in_memory.declared().iter().find_map(|constraint| match constraint {
        Constraint::PrimaryKey(columns) => Some(columns),
        Constraint::Unique(_) => None,
    })?;
    let schema = table.schema();
    Some(Key { name: None, columns: columns.iter().map(|at| schema.field(*at).name().clone()).collect() })
}

/// Returns the file formats that replace those of DataFusion.
pub(crate) fn file_formats() -> [Arc<dyn FileFormatFactory>; 3] {
    [Arc::new(csv_files::CsvFilesFactory::new()), Arc::new(json_files::factory()), Arc::new(parquet_files::factory())]
}

/// Returns the optimizer rule that pushes work down to a connector's server.
pub(crate) fn optimizer_rule() -> Arc<dyn OptimizerRule + Send + Sync> {
    Arc::new(postgres::WholeQueries)
}

/// Returns the analyzer rule that must run before the planner's own rules.
pub(crate) fn analyzer_rule() -> Arc<dyn AnalyzerRule + Send + Sync> {
    Arc::new(postgres::TextOf)
}

/// Returns a suggestion if one of `known` is similar.
fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map(|candidate| format!(" (the nearest is `{candidate}`)")).unwrap_or_default()
}

fn list(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    names.into_iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// Returns the text of a param. Its value stays out of the message, because it may be a secret.
fn text<'a>(name: &str, value: &'a Secret) -> Result<&'a str, String> {
    value.expose_text().map_err(|_| format!("params: `{name}` is not UTF-8"))
}

/// Quotes a name for SQL, whatever characters it contains.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
