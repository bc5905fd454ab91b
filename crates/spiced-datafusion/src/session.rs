//! A caller's session: planning statements, and what `SET` and `PREPARE` leave behind.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use datafusion::execution::context::SessionState;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::logical_expr::{LogicalPlan, ResetVariable, SetVariable, Statement as PlanStatement, TableType};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as ParsedStatement;
use spiced_engine::{
    Catalog, Effect, EngineError, ErrorKind, ForeignKey, Ingest, Prepared, Principal, Session, Statement, TableInfo,
};
use crate::answer;
use crate::connectors::{Keys, Reference};
use crate::engine::Shared;
use crate::error::{engine_error, invalid};
use crate::execution::Planned;
use crate::plans::Known;
use crate::{changes, complexity, connectors, effect, parameters, statement};

/// The session. Cheap to make: it shares the engine's state until something is set.
pub(crate) struct DataFusionSession {
    shared: Arc<Shared>,
    own: Arc<Own>,
}

/// What belongs to one session alone: DataFusion's state, replaced as a whole by `SET` and `PREPARE`.
pub(crate) struct Own {
    state: Mutex<Arc<SessionState>>,
    /// Whose it is.
    pub(crate) principal: Arc<Principal>,
    /// Held while one statement changes the state, so that of two none is lost.
    changing: tokio::sync::Mutex<()>,
}

impl Own {
    /// The state as it is now.
    pub(crate) fn state(&self) -> Arc<SessionState> {
        self.lock().clone()
    }

    /// Runs a statement that changes the session.
    pub(crate) async fn change(&self, statement: PlanStatement) -> datafusion::error::Result<()> {
        let _alone = self.changing.lock().await;
        let context = SessionContext::new_with_state(SessionState::clone(&self.state()));
        context.execute_logical_plan(LogicalPlan::Statement(statement)).await?;
        *self.lock() = Arc::new(context.state());
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Arc<SessionState>> {
        // The state is replaced as a whole, so there is none that is half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DataFusionSession {
    pub(crate) fn new(shared: Arc<Shared>, principal: Principal) -> Self {
        let (state, principal) = (Mutex::new(shared.state.clone()), Arc::new(principal));
        Self { shared, own: Arc::new(Own { state, principal, changing: tokio::sync::Mutex::new(()) }) }
    }

    /// The plan of `sql`, where it was made before for a session like this one.
    fn known(&self, sql: &str) -> Option<Arc<Known>> {
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
            let (shared, own) = (self.shared.clone(), self.own.clone());
            return Ok(Box::new(Planned { shared, own, known, spent: Duration::ZERO }));
        }
        let work = plan(self.shared.clone(), self.own.clone(), sql);
        Ok(Box::new(self.shared.within_limit(self.own.principal.role(), work).await??))
    }

    async fn ingest(&self, ingest: Ingest) -> Result<Box<dyn Prepared>, EngineError> {
        let (shared, own) = (self.shared.clone(), self.own.clone());
        let work = async move {
            let (started, state) = (Instant::now(), own.state());
            let plan = crate::ingest::plan(ingest, &state).await?;
            planned(shared, own, plan, &state, started)
        };
        Ok(Box::new(self.shared.within_limit(self.own.principal.role(), work).await??))
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
        crate::settings::check(variable, value)?;
        let variable = variable.to_owned();
        let change = match value {
            Some(value) => PlanStatement::SetVariable(SetVariable { variable, value: value.to_owned() }),
            None => PlanStatement::ResetVariable(ResetVariable { variable }),
        };
        self.own.change(change).await.map_err(engine_error)
    }

    async fn catalog(&self) -> Result<Catalog, EngineError> {
        let state = self.own.state();
        self.shared.within_limit(self.own.principal.role(), async move { list(&state).await }).await
    }
}

/// Everything that can be queried now, by name.
async fn list(state: &SessionState) -> Catalog {
    let catalogs = state.catalog_list();
    let (mut seen, mut found) = (Catalog::default(), Vec::new());
    for catalog_name in sorted(catalogs.catalog_names()) {
        let Some(catalog) = catalogs.catalog(&catalog_name) else { continue };
        for schema_name in sorted(catalog.schema_names()) {
            let Some(schema) = catalog.schema(&schema_name) else { continue };
            seen.schemas.push((catalog_name.clone(), schema_name.clone()));
            for name in sorted(schema.table_names()) {
                // A table can be dropped between the two calls; it is then left out.
                let Ok(Some(table)) = schema.table(&name).await else { continue };
                seen.tables.push(TableInfo {
                    catalog: catalog_name.clone(),
                    schema: schema_name.clone(),
                    name,
                    kind: if table.table_type() == TableType::View { "VIEW" } else { "BASE TABLE" },
                    columns: answer::plain_schema(&table.schema()),
                    primary_key: None,
                    foreign_keys: Vec::new(),
                });
                found.push(table);
            }
        }
    }
    let place = |TableInfo { catalog, schema, name, .. }: &TableInfo| [catalog.clone(), schema.clone(), name.clone()];
    for (at, Keys { own, held }) in connectors::keys(&found).into_iter().enumerate() {
        let foreign = held.into_iter().map(|(to, Reference { key, referred, on_update, on_delete, .. })| ForeignKey {
            key,
            table: place(&seen.tables[to]),
            referred,
            on_update,
            on_delete,
        });
        (seen.tables[at].foreign_keys, seen.tables[at].primary_key) = (foreign.collect(), own);
    }
    seen
}

/// How much memory splitting a text into tokens takes for each of its bytes, and planning for each token, as measured with
/// long lists (`VALUES (1),(1),…`, `make_array(1,1,…)`).
const BYTES_PER_BYTE: usize = 64;
const BYTES_PER_TOKEN: usize = 640;

/// Plans `sql` for the session of `own`. Runs on the queries' runtime.
async fn plan(shared: Arc<Shared>, own: Arc<Own>, sql: String) -> Result<Planned, EngineError> {
    let started = Instant::now();
    let (age, state) = (shared.plans.age(), own.state());
    let (statement, _planning) = parsed(&shared, &sql, &state)?;
    let mut plan = state.statement_to_plan(statement).await.map_err(engine_error)?;
    if let LogicalPlan::Statement(PlanStatement::Execute(execute)) = &plan {
        // What EXECUTE does is what was prepared under its name: the plan tells, so look at that.
        // Running the statement only puts the values in; it does not run the plan.
        let context = SessionContext::new_with_state(SessionState::clone(&state));
        let execute = LogicalPlan::Statement(PlanStatement::Execute(execute.clone()));
        plan = context.execute_logical_plan(execute).await.map_err(engine_error)?.logical_plan().clone();
    }
    let planned = planned(shared, own, plan, &state, started)?;
    if planned.shared.is_unset(&state) && matches!(planned.known.effect, Effect::Read | Effect::Write) {
        planned.shared.plans.keep(&sql, age, &planned.known);
    }
    Ok(planned)
}

/// The statement, and the memory that planning it takes.
fn parsed(
    shared: &Shared,
    sql: &str,
    state: &SessionState,
) -> Result<(ParsedStatement, MemoryReservation), EngineError> {
    let planning = shared.reserve("the text of a statement", sql.len().min(shared.max_statement) * BYTES_PER_BYTE)?;
    let tokens = statement::tokenize(sql, state, shared.max_statement)?;
    planning.try_grow(tokens.count().saturating_mul(BYTES_PER_TOKEN)).map_err(engine_error)?;
    Ok((tokens.parse()?, planning))
}

/// What is to be known of a plan before it runs, for the session of `own`.
fn planned(
    shared: Arc<Shared>,
    own: Arc<Own>,
    plan: LogicalPlan,
    state: &SessionState,
    started: Instant,
) -> Result<Planned, EngineError> {
    complexity::plan::check(&plan).map_err(engine_error)?;
    if let LogicalPlan::Statement(PlanStatement::TransactionStart(_) | PlanStatement::TransactionEnd(_)) = &plan {
        return Err(EngineError::new(ErrorKind::Unsupported, "this engine has no transactions"));
    }
    let plan = shared.rules.apply(plan, state).and_then(changes::plan).map_err(engine_error)?;
    let effect = effect::of(&plan).map_err(engine_error)?;
    let parameters = parameters::of(&plan).map_err(engine_error)?;
    let schema = answer::schema(&plan, &parameters, state).map_err(engine_error)?;
    complexity::plan::check_types(&schema).map_err(engine_error)?;
    let spent = started.elapsed();
    Ok(Planned { shared, own, known: Arc::new(Known::new(plan, schema, parameters, effect)), spent })
}

impl Shared {
    /// Counts `bytes` against the memory that all share, until what is returned is dropped.
    ///
    /// # Errors
    /// There is not so much left.
    pub(crate) fn reserve(&self, who: &str, bytes: usize) -> Result<MemoryReservation, EngineError> {
        let reservation = MemoryConsumer::new(who).register(&self.state.runtime_env().memory_pool);
        reservation.try_grow(bytes).map_err(engine_error)?;
        Ok(reservation)
    }

    /// Whether `state` is the one that each session starts from: nothing has been set in it.
    pub(crate) fn is_unset(&self, state: &Arc<SessionState>) -> bool {
        Arc::ptr_eq(state, &self.state)
    }
}

/// Why a task gave no answer of its own.
pub(crate) fn ended(failure: tokio::task::JoinError) -> EngineError {
    if failure.is_panic() {
        tracing::error!(%failure, "a query panicked");
        return EngineError::new(ErrorKind::Internal, "the engine failed; the server's log says where");
    }
    EngineError::new(ErrorKind::Cancelled, "the query was stopped: the engine is shutting down")
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}
