//! A caller's session.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::connectors;
use crate::connectors::Keys;
use crate::engine::plan_cache::CachedPlan;
use crate::engine::planner::{self, SessionOwn};
use crate::engine::shared::EngineShared;
use crate::error::{engine_error, invalid};
use crate::execution::Planned;
use crate::planning::output_schema;
use crate::proven::Proven;
use async_trait::async_trait;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{ResetVariable, SetVariable, Statement as PlanStatement, TableType};
use futures::FutureExt;
use futures::future::BoxFuture;
use spiced_engine::{
    Catalog, EngineError, ErrorKind, ForeignKey, Ingest, Prepared, Principal, Session, Statement, TableInfo,
};

/// A session. Cheap to create: it shares the engine's state until something is set.
pub(crate) struct DataFusionSession {
    shared: Arc<EngineShared>,
    own: Arc<SessionOwn>,
}

impl DataFusionSession {
    pub(crate) fn new(shared: Arc<EngineShared>, principal: Principal) -> Self {
        let (state, principal) = (Mutex::new(shared.state.clone()), Arc::new(principal));
        let (changing, prepared) = (tokio::sync::Mutex::new(()), Mutex::default());
        Self { shared, own: Arc::new(SessionOwn { state, principal, changing, prepared }) }
    }

    fn planned(&self, known: Proven<CachedPlan>, spent: Duration) -> Planned {
        Planned { shared: self.shared.clone(), own: self.own.clone(), known, spent }
    }

    /// Returns the cached plan of `sql`, if one was made for an equivalent session.
    fn known(&self, sql: &str) -> Option<Proven<CachedPlan>> {
        if self.shared.is_unset(&self.own.state()) { self.shared.plans.get(sql) } else { None }
    }
}

#[async_trait]
impl Session for DataFusionSession {
    async fn prepare(&self, statement: Statement) -> Result<Box<dyn Prepared>, EngineError> {
        let sql = match statement {
            Statement::Sql(sql) => sql,
            Statement::Substrait(_) => {
                let why = "this engine takes SQL and no Substrait plans; send the statement as SQL";
                return Err(EngineError::new(ErrorKind::Unsupported, why));
            }
            _ => return Err(EngineError::new(ErrorKind::Unsupported, "this engine takes SQL")),
        };
        if let Some(known) = self.known(&sql) {
            return Ok(Box::new(self.planned(known, Duration::ZERO)));
        }
        let work = planner::plan(self.shared.clone(), self.own.clone(), sql);
        let (known, spent) = self.shared.within_limit(self.own.principal.role(), work).await??;
        Ok(Box::new(self.planned(known, spent)))
    }

    async fn ingest(&self, ingest: Ingest) -> Result<Box<dyn Prepared>, EngineError> {
        let work = planner::plan_ingest(self.shared.clone(), self.own.clone(), ingest);
        let (known, spent) = self.shared.within_limit(self.own.principal.role(), work).await??;
        Ok(Box::new(self.planned(known, spent)))
    }

    async fn set(&self, name: &str, value: Option<&str>) -> Result<(), EngineError> {
        let state = self.own.state();
        let catalogs = state.catalog_list();
        let defaults = &state.config_options().catalog;
        let (variable, known) = match name {
            "catalog" => ("datafusion.catalog.default_catalog", catalogs.catalog_names()),
            "schema" => {
                let catalog = catalogs.catalog(&defaults.default_catalog);
                ("datafusion.catalog.default_schema", catalog.map(|catalog| catalog.schema_names()).unwrap_or_default())
            }
            name => (name, Vec::new()),
        };
        if let Some(value) = value
            && variable != name
            && !known.iter().any(|known| known == value)
        {
            return Err(invalid(format!("there is no {name} `{value}`")));
        }
        crate::engine::settings::check(variable, value)?;
        let variable = variable.to_owned();
        let change = match value {
            Some(value) => PlanStatement::SetVariable(SetVariable { variable, value: value.to_owned() }),
            None => PlanStatement::ResetVariable(ResetVariable { variable }),
        };
        self.own.change(change, None).await.map_err(engine_error)
    }

    async fn catalog(&self) -> Result<Catalog, EngineError> {
        self.shared.within_limit(self.own.principal.role(), list(self.own.state())).await
    }
}

/// Lists everything that can be queried now, by name.
fn list(state: Proven<SessionState>) -> BoxFuture<'static, Catalog> {
    async move { list_now(&state).await }.boxed()
}

async fn list_now(state: &SessionState) -> Catalog {
    let catalogs = state.catalog_list();
    let (mut seen, mut found) = (Catalog::default(), Vec::new());
    for catalog_name in sorted(catalogs.catalog_names()) {
        let Some(catalog) = catalogs.catalog(&catalog_name) else { continue };
        for schema_name in sorted(catalog.schema_names()) {
            let Some(schema) = catalog.schema(&schema_name) else { continue };
            seen.schemas.push((catalog_name.clone(), schema_name.clone()));
            for name in sorted(schema.table_names()) {
                // A table dropped between the two calls is left out.
                let Ok(Some(table)) = schema.table(&name).await else { continue };
                seen.tables.push(TableInfo {
                    catalog: catalog_name.clone(),
                    schema: schema_name.clone(),
                    name,
                    kind: if table.table_type() == TableType::View { "VIEW" } else { "BASE TABLE" },
                    columns: output_schema::plain_schema(&table.schema()),
                    primary_key: None,
                    foreign_keys: Vec::new(),
                });
                found.push(table);
            }
        }
    }
    let place = |TableInfo { catalog, schema, name, .. }: &TableInfo| [catalog.clone(), schema.clone(), name.clone()];
    for (at, Keys { primary, foreign }) in connectors::keys(&found).into_iter().enumerate() {
        let foreign = foreign.into_iter().map(|connectors::ForeignKey { to, key, referred, on_update, on_delete }| {
            ForeignKey { key, table: place(&seen.tables[to]), referred, on_update, on_delete }
        });
        (seen.tables[at].foreign_keys, seen.tables[at].primary_key) = (foreign.collect(), primary);
    }
    seen
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}
