//! The connectors: one module and one entry in [`CONNECTORS`] each.

mod checked;
mod csv_files;
mod csv_marker;
mod damaged;
mod file;
#[cfg(feature = "flightsql")]
mod flightsql;
mod format;
mod inferred;
mod json_files;
mod listing;
#[cfg(any(feature = "flightsql", feature = "postgres"))]
mod literal;
mod memory;
#[cfg(feature = "object-store")]
mod object;
#[cfg(feature = "outbound")]
mod outbound;
mod outdated;
#[cfg(feature = "outbound")]
mod params;
mod parquet_files;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "flightsql", feature = "postgres"))]
mod remote;
mod source;
mod wrapped_format;

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::datasource::file_format::FileFormatFactory;
use datafusion::execution::context::SessionState;
use datafusion::optimizer::{AnalyzerRule, OptimizerRule};

pub(crate) use self::damaged::NameDamagedFiles;
use self::source::{Connector, Opened, Request, list, suggestion};
pub(crate) use self::source::{ForeignKey, Keys, LoadError, Loading, Source};
use crate::DatasetSpec;
use crate::engine::start_error::SpecPart;
use crate::tables::updatable::UpdatableTable;

/// All connectors.
const CONNECTORS: &[Connector] = &[
    file::CONNECTOR,
    memory::CONNECTOR,
    #[cfg(feature = "postgres")]
    postgres::CONNECTOR,
    #[cfg(feature = "object-store")]
    object::S3,
    #[cfg(feature = "object-store")]
    object::HTTP,
    #[cfg(feature = "object-store")]
    object::HTTPS,
    #[cfg(feature = "flightsql")]
    flightsql::CONNECTOR,
];

/// The connectors that are cargo features.
const OPTIONAL: [&str; 5] = ["flightsql", "http", "https", "postgres", "s3"];

/// Finds the connector of `spec`, which then checks the rest.
///
/// # Errors
/// Fails with every permanent error, one sentence each.
pub(crate) fn open(spec: &DatasetSpec, state: &SessionState) -> Opened {
    // `memory:` needs quotes in YAML; `memory` is the same without them.
    let bare = (spec.from == "memory").then_some(("memory", ""));
    let Some((name, rest)) = spec.from.split_once(':').or(bare) else {
        return Err(vec![SpecPart::From.error(format!(
            "`{}` names no connector; it begins with one of {}",
            spec.from,
            list(CONNECTORS.iter().map(|c| format!("{}:", c.name)))
        ))]);
    };
    let Some(connector) = CONNECTORS.iter().find(|c| c.name == name) else {
        if OPTIONAL.contains(&name) {
            return Err(vec![SpecPart::From.error(format!(
                "the connector `{name}` is not built into this program; there are {}",
                list(CONNECTORS.iter().map(|c| c.name))
            ))]);
        }
        let nearest = suggestion(name, CONNECTORS.iter().map(|c| c.name));
        return Err(vec![SpecPart::From.error(format!(
            "there is no connector `{name}`{nearest}; there are {}",
            list(CONNECTORS.iter().map(|c| c.name))
        ))]);
    };
    let mut wrong = Vec::new();
    if spec.writable && !connector.writable {
        wrong.push(SpecPart::Access.error(format!("the connector `{name}` cannot write; say `access: read`")));
    }
    let known: Vec<&str> = connector.params.concat();
    for param in spec.params.keys().filter(|param| !known.contains(&param.as_str())) {
        wrong.push(if known.is_empty() {
            SpecPart::Params.error(format!("the connector `{name}` has none, and `{param}` is given"))
        } else {
            SpecPart::Params.error(format!(
                "the connector `{name}` does not know `{param}`{}; it knows {}",
                suggestion(param, known.iter().copied()),
                list(&known)
            ))
        });
    }
    if !spec.columns.is_empty() && !connector.columns {
        wrong.push(SpecPart::Columns.error(format!("the connector `{name}` finds them out itself; leave them out")));
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
    CONNECTORS.iter().find_map(|connector| (connector.changeable)(table))
}

/// Returns the keys of `tables`, in the same order.
pub(crate) fn keys(tables: &[Arc<dyn TableProvider>]) -> Vec<Keys> {
    let mut keys: Vec<Keys> = tables.iter().map(|_| Keys::default()).collect();
    for connector in CONNECTORS {
        (connector.keys)(tables, &mut keys);
    }
    keys
}

/// Returns the rules that push work down to the connectors' servers.
pub(crate) fn optimizer_rules() -> impl Iterator<Item = Arc<dyn OptimizerRule + Send + Sync>> {
    CONNECTORS.iter().flat_map(|connector| (connector.optimizer_rules)())
}

/// Returns the analyzer rules that must run before the planner's own rules.
pub(crate) fn analyzer_rules() -> impl Iterator<Item = Arc<dyn AnalyzerRule + Send + Sync>> {
    CONNECTORS.iter().flat_map(|connector| (connector.analyzer_rules)())
}

/// Returns the file formats that replace those of DataFusion.
pub(crate) fn file_formats() -> [Arc<dyn FileFormatFactory>; 3] {
    [Arc::new(csv_files::CsvFilesFactory::new()), Arc::new(json_files::factory()), Arc::new(parquet_files::factory())]
}
