//! A caller's session: statement planning, and the state that `SET` and `PREPARE` change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::connectors;
use crate::connectors::Keys;
use crate::engine::EngineShared;
use crate::engine::plan_cache::CachedPlan;
use crate::error::{engine_error, invalid};
use crate::execution::Planned;
use crate::planning::dml;
use crate::planning::output_schema;
use crate::proven::Proven;
use crate::sql::complexity;
use crate::sql::effect;
use crate::sql::names::{self, Names};
use crate::sql::parameters;
use crate::sql::statement;
use crate::sql::typed_parameters::Values;
use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::execution::context::SessionState;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    Execute, Expr, LogicalPlan, ResetVariable, SetVariable, Statement as PlanStatement, TableType,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast::Statement as Ast;
use futures::FutureExt;
use futures::future::BoxFuture;
use spiced_engine::{
    Catalog, Effect, EngineError, ErrorKind, ForeignKey, Ingest, Prepared, Principal, Session, Statement, TableInfo,
};

/// A session. Cheap to create: it shares the engine's state until something is set.
pub(crate) struct DataFusionSession {
    shared: Arc<EngineShared>,
    own: Arc<SessionOwn>,
}

/// The state of one session: DataFusion's state, replaced as a whole by `SET` and `PREPARE`.
pub(crate) struct SessionOwn {
    state: Mutex<Proven<SessionState>>,
    /// The owner of the session.
    pub(crate) principal: Arc<Principal>,
    /// Held while a statement changes the state, so that no concurrent change is lost.
    changing: tokio::sync::Mutex<()>,
    /// The statements from `PREPARE`.
    prepared: Mutex<HashMap<String, Proven<PreparedSql>>>,
}

/// A statement from `PREPARE`, planned again by each `EXECUTE` with its values.
struct PreparedSql {
    statement: Parsed,
    /// The declared types of its parameters.
    declared: Vec<DataType>,
    /// Its parameters.
    parameters: Schema,
}

impl SessionOwn {
    /// Returns the current state.
    pub(crate) fn state(&self) -> Proven<SessionState> {
        self.lock().clone()
    }

    /// Runs a statement that changes the session and was planned from `parsed`.
    pub(crate) fn change<'a>(
        &'a self,
        statement: PlanStatement,
        parsed: Option<&'a Parsed>,
    ) -> BoxFuture<'a, datafusion::error::Result<()>> {
        self.change_now(statement, parsed).boxed()
    }

    async fn change_now(&self, statement: PlanStatement, parsed: Option<&Parsed>) -> datafusion::error::Result<()> {
        let _alone = self.changing.lock().await;
        let context = SessionContext::new_with_state(SessionState::clone(&self.state()));
        let prepares = match (&statement, parsed) {
            (PlanStatement::Prepare(prepare), Some(Parsed::Statement(parsed))) => match parsed.as_ref() {
                Ast::Prepare { data_types, statement, .. } => {
                    let declared = prepare.fields.iter().take(data_types.len());
                    let prepared = PreparedSql {
                        statement: Parsed::Statement(statement.clone()),
                        declared: declared.map(|field| field.data_type().clone()).collect(),
                        parameters: parameters::of(&prepare.input)?,
                    };
                    Some((prepare.name.clone(), Some(Proven::new(prepared))))
                }
                _ => None,
            },
            (PlanStatement::Deallocate(gone), _) => Some((gone.name.clone(), None)),
            _ => None,
        };
        context.execute_logical_plan(LogicalPlan::Statement(statement)).await?;
        *self.lock() = Proven::new(context.state());
        let mut all = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        match prepares {
            Some((name, Some(prepared))) => drop(all.insert(name, prepared)),
            Some((name, None)) => drop(all.remove(&name)),
            None => {}
        }
        Ok(())
    }

    fn prepared(&self, name: &str) -> Option<Proven<PreparedSql>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Proven<SessionState>> {
        // The state is replaced as a whole, so it is never partially changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DataFusionSession {
    pub(crate) fn new(shared: Arc<EngineShared>, principal: Principal) -> Self {
        let (state, principal) = (Mutex::new(shared.state.clone()), Arc::new(principal));
        let (changing, prepared) = (tokio::sync::Mutex::new(()), Mutex::default());
        Self { shared, own: Arc::new(SessionOwn { state, principal, changing, prepared }) }
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
            let (shared, own) = (self.shared.clone(), self.own.clone());
            return Ok(Box::new(Planned { shared, own, known, spent: Duration::ZERO }));
        }
        let work = plan(self.shared.clone(), self.own.clone(), sql);
        Ok(Box::new(self.shared.within_limit(self.own.principal.role(), work).await??))
    }

    async fn ingest(&self, ingest: Ingest) -> Result<Box<dyn Prepared>, EngineError> {
        let work = plan_ingest(self.shared.clone(), self.own.clone(), ingest);
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

/// The memory for tokenizing a text, per byte, and for planning, per token, as measured with long lists
/// (`VALUES (1),(1),…`, `make_array(1,1,…)`).
const BYTES_PER_BYTE: usize = 64;
const BYTES_PER_TOKEN: usize = 640;

/// Plans `sql` for the session of `own`. Runs on the queries' runtime.
fn plan(
    shared: Arc<EngineShared>,
    own: Arc<SessionOwn>,
    sql: String,
) -> BoxFuture<'static, Result<Planned, EngineError>> {
    async move {
        let started = Instant::now();
        let (age, state) = (shared.plans.epoch(), own.state());
        let (statement, _planning) = parsed(&shared, &sql, &state)?;
        let known = of_statement(&shared, &own, Proven::new(statement), &Values::default(), &state).await?;
        let known = Proven::new(known);
        if shared.is_unset(&state) && matches!(known.effect, Effect::Read | Effect::Write) {
            shared.plans.keep(&sql, age, &known, |bytes| shared.reserve("a plan that is kept", bytes).ok());
        }
        Ok(Planned { shared, own, known, spent: started.elapsed() })
    }
    .boxed()
}

/// Plans the insertion of rows that a caller sends. Runs on the queries' runtime.
fn plan_ingest(
    shared: Arc<EngineShared>,
    own: Arc<SessionOwn>,
    ingest: Ingest,
) -> BoxFuture<'static, Result<Planned, EngineError>> {
    async move {
        let (started, state) = (Instant::now(), own.state());
        let plan = crate::tables::ingest::plan(ingest, &state).await?;
        let known = Proven::new(known(&shared, (plan, Names::default()), &state)?);
        Ok(Planned { shared, own, known, spent: started.elapsed() })
    }
    .boxed()
}

/// Returns the schema of the result of `known` with `values` for its parameters. Runs on the queries' runtime.
pub(crate) fn bound_schema(
    shared: Arc<EngineShared>,
    own: Arc<SessionOwn>,
    known: Proven<CachedPlan>,
    values: Values,
) -> BoxFuture<'static, Result<SchemaRef, EngineError>> {
    async move { Ok(bind(&shared, &own, &known, &values).await?.schema) }.boxed()
}

/// Parses the statement, and reserves the memory for planning it.
fn parsed(shared: &EngineShared, sql: &str, state: &SessionState) -> Result<(Parsed, MemoryReservation), EngineError> {
    let planning = shared.reserve("the text of a statement", sql.len().min(shared.max_statement) * BYTES_PER_BYTE)?;
    let tokens = statement::tokenize(sql, state, shared.max_statement)?;
    planning.try_grow(tokens.count().saturating_mul(BYTES_PER_TOKEN)).map_err(engine_error)?;
    Ok((tokens.parse()?, planning))
}

/// Plans with values for the parameters. Runs on the queries' runtime.
///
/// # Errors
/// Fails if the statement cannot be planned with these values.
pub(crate) async fn bind(
    shared: &EngineShared,
    own: &SessionOwn,
    known: &CachedPlan,
    values: &Values,
) -> Result<CachedPlan, EngineError> {
    let Some(statement) = known.statement.clone() else {
        return Err(EngineError::new(ErrorKind::Internal, "a statement with parameters that is no SQL"));
    };
    let bound = of_statement(shared, own, statement, values, &own.state()).await?;
    match bound.effect == known.effect {
        true => Ok(bound),
        // A table may have become a view meanwhile; permission was checked for the original plan.
        false => Err(invalid("what the statement does has changed since it was prepared; prepare it again")),
    }
}

/// Plans `statement` with `values` in place of its parameters.
async fn of_statement(
    shared: &EngineShared,
    own: &SessionOwn,
    statement: Proven<Parsed>,
    values: &Values,
    state: &SessionState,
) -> Result<CachedPlan, EngineError> {
    let mut made = make(&statement, values, state).await.map_err(engine_error)?;
    if let LogicalPlan::Statement(PlanStatement::Execute(execute)) = &made.0 {
        // EXECUTE runs the statement prepared under its name.
        made = run_prepared(own, execute, state).await?;
    }
    Ok(known(shared, made, state)?.of_statement(statement))
}

/// Plans the statement that an EXECUTE runs.
async fn run_prepared(
    own: &SessionOwn,
    execute: &Execute,
    state: &SessionState,
) -> Result<(LogicalPlan, Names), EngineError> {
    let name = &execute.name;
    let prepared = own.prepared(name).ok_or_else(|| invalid(format!("prepared statement '{name}' does not exist")))?;
    let (given, wanted) = (execute.parameters.len(), prepared.parameters.fields().len());
    if given != wanted.max(prepared.declared.len()) {
        let wanted = wanted.max(prepared.declared.len());
        return Err(invalid(format!(
            "the prepared statement `{name}` has {wanted} parameters, and {given} came with it"
        )));
    }
    let context = SimplifyContext::builder().with_config_options(state.config_options().clone()).build();
    let simplifier = ExprSimplifier::new(context);
    let value = |(at, given): (usize, &Expr)| {
        let value = match simplifier.simplify(given.clone()).map_err(engine_error)? {
            Expr::Literal(value, _) => value,
            other => return Err(invalid(format!("`{other}` is no constant, as EXECUTE takes"))),
        };
        let value = match prepared.declared.get(at) {
            Some(declared) => value.cast_to(declared).map_err(engine_error)?,
            None => value,
        };
        Ok((format!("${}", at + 1), value))
    };
    let values = execute.parameters.iter().enumerate().map(value).collect::<Result<Values, _>>()?;
    make(&prepared.statement, &values, state).await.map_err(engine_error)
}

/// Plans `statement` with DataFusion, with `values` in place of its parameters.
async fn make(
    statement: &Parsed,
    values: &Values,
    state: &SessionState,
) -> datafusion::error::Result<(LogicalPlan, Names)> {
    if values.is_empty() {
        return names::plan(statement, state).await;
    }
    let (mut statement, mut state) = (statement.clone(), state.clone());
    values.prepare(&mut statement, &mut state)?;
    let (plan, names) = names::plan(&statement, &state).await?;
    Ok((values.put_in(plan)?, names))
}

/// Collects the properties of a plan that are needed before it runs.
fn known(
    shared: &EngineShared,
    (plan, names): (LogicalPlan, Names),
    state: &SessionState,
) -> Result<CachedPlan, EngineError> {
    complexity::plan::check(&plan).map_err(engine_error)?;
    if let LogicalPlan::Statement(PlanStatement::TransactionStart(_) | PlanStatement::TransactionEnd(_)) = &plan {
        return Err(EngineError::new(ErrorKind::Unsupported, "this engine has no transactions"));
    }
    let plan = shared.rules.apply(plan, state).and_then(dml::plan).map_err(engine_error)?;
    let effect = effect::of(&plan).map_err(engine_error)?;
    let parameters = parameters::of(&plan).map_err(engine_error)?;
    let schema = output_schema::schema(&plan, &parameters, state).map_err(engine_error)?;
    complexity::plan::check_types(&schema).map_err(engine_error)?;
    Ok(CachedPlan::new(plan, names.restore(schema), parameters, effect))
}

impl EngineShared {
    /// Counts `bytes` against the shared memory until the returned reservation is dropped.
    ///
    /// # Errors
    /// Fails if not enough memory is left.
    pub(crate) fn reserve(&self, who: &str, bytes: usize) -> Result<MemoryReservation, EngineError> {
        let reservation = MemoryConsumer::new(who).register(&self.state.runtime_env().memory_pool);
        reservation.try_grow(bytes).map_err(engine_error)?;
        Ok(reservation)
    }

    /// Returns whether `state` is the initial state of every session, with no setting changed.
    pub(crate) fn is_unset(&self, state: &Proven<SessionState>) -> bool {
        state.is_same(&self.state)
    }
}

/// Returns the error for a task that ended without a result.
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
