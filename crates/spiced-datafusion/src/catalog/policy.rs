//! What is denied to every caller, whatever its role: writing a read-only data set, redefining a data set, and access
//! to the host that the operator has not configured. The decision is made from the plan.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::common::TableReference;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{DdlStatement, LogicalPlan, Statement};
use spiced_engine::ErrorKind;

use crate::catalog::host_paths::HostPaths;
use crate::catalog::name::{CATALOG, SYSTEM_SCHEMA, TableName};
use crate::error::refusal;

/// The pod's rules.
#[derive(Debug)]
pub(crate) struct CatalogPolicy {
    /// For each data set, whether it may be written.
    writable: BTreeMap<TableName, bool>,
    schemas: BTreeSet<String>,
    host_paths: HostPaths,
}

impl CatalogPolicy {
    /// Creates the rules from the data sets' names, with whether each may be written, in the pod's `schemas`.
    pub(crate) fn new(writable: BTreeMap<TableName, bool>, schemas: BTreeSet<String>, host_paths: HostPaths) -> Self {
        Self { writable, schemas, host_paths }
    }

    /// Checks every node of `plan`, including nodes that are only explained or prepared. Returns the plan with each
    /// host location replaced by the checked location.
    ///
    /// # Errors
    /// Fails if any node is not allowed.
    pub(crate) fn apply(&self, plan: LogicalPlan, state: &SessionState) -> Result<LogicalPlan> {
        let mut reaches_host = false;
        plan.apply_with_subqueries(|node| {
            reaches_host |=
                matches!(node, LogicalPlan::Copy(_) | LogicalPlan::Ddl(DdlStatement::CreateExternalTable(_)));
            self.check(node, state)?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !reaches_host {
            return Ok(plan);
        }
        Ok(plan.transform_down_with_subqueries(|node| self.pin(node))?.data)
    }

    fn check(&self, node: &LogicalPlan, state: &SessionState) -> Result<()> {
        match node {
            LogicalPlan::Dml(dml) => self.check_write(&dml.table_name, state),
            LogicalPlan::Ddl(ddl) => match ddl {
                DdlStatement::CreateExternalTable(create) => self.check_definition(&create.name, state),
                DdlStatement::CreateMemoryTable(create) => self.check_definition(&create.name, state),
                DdlStatement::CreateView(create) => self.check_definition(&create.name, state),
                DdlStatement::DropTable(drop) => self.check_definition(&drop.name, state),
                DdlStatement::DropView(drop) => self.check_definition(&drop.name, state),
                DdlStatement::CreateIndex(create) => self.check_definition(&create.table, state),
                DdlStatement::DropCatalogSchema(drop) => {
                    let catalog = match &drop.name {
                        datafusion::common::SchemaReference::Bare { .. } => {
                            state.config_options().catalog.default_catalog.as_str()
                        }
                        datafusion::common::SchemaReference::Full { catalog, .. } => catalog,
                    };
                    let schema = drop.name.schema_name();
                    if catalog == CATALOG && self.schemas.contains(schema) {
                        return Err(by_the_pod(schema, "drop"));
                    }
                    Ok(())
                }
                DdlStatement::CreateCatalogSchema(_)
                | DdlStatement::CreateCatalog(_)
                | DdlStatement::CreateFunction(_)
                | DdlStatement::DropFunction(_) => Ok(()),
            },
            LogicalPlan::Statement(Statement::SetVariable(set)) => {
                crate::engine::settings::check(&set.variable, Some(&set.value)).map_err(own)
            }
            LogicalPlan::Statement(Statement::ResetVariable(reset)) => {
                crate::engine::settings::check(&reset.variable, None).map_err(own)
            }
            _ => Ok(()),
        }
    }

    fn check_write(&self, table: &TableReference, state: &SessionState) -> Result<()> {
        let Some(name) = TableName::of(table, state) else { return Ok(()) };
        match self.writable.get(&name) {
            Some(false) if name.schema == SYSTEM_SCHEMA => {
                Err(refusal(ErrorKind::Denied, format!("`{name}` is what the program says of itself; it is only read")))
            }
            Some(false) => Err(refusal(
                ErrorKind::Denied,
                format!("the data set `{name}` is read only; its entry in the pod needs `access: read_write`"),
            )),
            Some(true) | None => Ok(()),
        }
    }

    fn check_definition(&self, table: &TableReference, state: &SessionState) -> Result<()> {
        match TableName::of(table, state) {
            Some(name) if self.writable.contains_key(&name) => Err(by_the_pod(&name.to_string(), "redefine")),
            Some(name) if name.schema == SYSTEM_SCHEMA => Err(refusal(
                ErrorKind::Denied,
                format!("`{name}` lies in `{SYSTEM_SCHEMA}`, where the program speaks of itself; name another schema"),
            )),
            _ => Ok(()),
        }
    }

    /// Replaces each host location with the checked location.
    fn pin(&self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        Ok(match node {
            LogicalPlan::Copy(mut copy) => {
                copy.output_url = self.host_paths.rooted(self.host_paths.admit(&copy.output_url, "COPY")?);
                Transformed::yes(LogicalPlan::Copy(copy))
            }
            LogicalPlan::Ddl(DdlStatement::CreateExternalTable(mut create)) => {
                if create.file_type.eq_ignore_ascii_case("arrow") {
                    // For a file in another format, DataFusion's reader would take the first bytes as a length.
                    let why = "Arrow files are not read here; write them as Parquet, and say STORED AS PARQUET";
                    return Err(refusal(ErrorKind::Unsupported, why));
                }
                let mut definition = create.definition.take();
                for location in &mut create.locations {
                    let admitted = self.host_paths.admit(location, "CREATE EXTERNAL TABLE")?;
                    // The definition is visible to callers, so it must not reveal where the directory is on the host.
                    let within = self.host_paths.within(&admitted);
                    definition = definition
                        .filter(|definition| definition.contains(location.as_str()))
                        .zip(within)
                        .map(|(definition, within)| definition.replace(location.as_str(), &within));
                    *location = self.host_paths.rooted(admitted);
                }
                create.definition = definition;
                Transformed::yes(LogicalPlan::Ddl(DdlStatement::CreateExternalTable(create)))
            }
            node => Transformed::no(node),
        })
    }
}

fn by_the_pod(name: &str, verb: &str) -> datafusion::error::DataFusionError {
    refusal(ErrorKind::Denied, format!("`{name}` is defined by the pod; SQL cannot {verb} it"))
}

fn own(error: spiced_engine::EngineError) -> datafusion::error::DataFusionError {
    refusal(error.kind(), error.to_string())
}
