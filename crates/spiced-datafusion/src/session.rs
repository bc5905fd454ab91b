//! A caller's session: planning statements, and what `SET` and `PREPARE` leave behind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    Execute, Expr, LogicalPlan, ResetVariable, SetVariable, Statement as PlanStatement, TableType,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast::Statement as Ast;
use spiced_engine::{
    Catalog, Effect, EngineError, ErrorKind, ForeignKey, Ingest, Prepared, Principal, Session, Statement, TableInfo,
};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use crate::answer;
use crate::bound::Values;
use crate::clock::Alarm;
use crate::connectors::{Keys, Reference};
use crate::engine::Shared;
use crate::error::{engine_error, invalid};
use crate::execution::{Planned, timed_out};
use crate::names::{self, Names};
use crate::plans::Known;
use crate::{changes, connectors, effect, parameters, size, statement};

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
    /// What `PREPARE` has prepared.
    prepared: Mutex<HashMap<String, Arc<PreparedSql>>>,
}

/// A statement that `PREPARE` has prepared: planned again by each `EXECUTE`, with its values.
struct PreparedSql {
    statement: Arc<Parsed>,
    /// The types that are declared for its parameters.
    declared: Vec<DataType>,
    /// The parameters that it has.
    parameters: Schema,
}

impl Own {
    /// The state as it is now.
    pub(crate) fn state(&self) -> Arc<SessionState> {
        self.lock().clone()
    }

    /// Runs a statement that changes the session, and that was planned from `parsed`.
    pub(crate) async fn change(
        &self,
        statement: PlanStatement,
        parsed: Option<&Parsed>,
    ) -> datafusion::error::Result<()> {
        let _alone = self.changing.lock().await;
        let context = SessionContext::new_with_state(SessionState::clone(&self.state()));
        let prepares = match (&statement, parsed) {
            (PlanStatement::Prepare(prepare), Some(Parsed::Statement(parsed))) => match parsed.as_ref() {
                Ast::Prepare { data_types, statement, .. } => {
                    let declared = prepare.fields.iter().take(data_types.len());
                    let prepared = PreparedSql {
                        statement: Arc::new(Parsed::Statement(statement.clone())),
                        declared: declared.map(|field| field.data_type().clone()).collect(),
                        parameters: parameters::of(&prepare.input)?,
                    };
                    Some((prepare.name.clone(), Some(Arc::new(prepared))))
                }
                _ => None,
            },
            (PlanStatement::Deallocate(gone), _) => Some((gone.name.clone(), None)),
            _ => None,
        };
        context.execute_logical_plan(LogicalPlan::Statement(statement)).await?;
        *self.lock() = Arc::new(context.state());
        let mut all = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        match prepares {
            Some((name, Some(prepared))) => drop(all.insert(name, prepared)),
            Some((name, None)) => drop(all.remove(&name)),
            None => {}
        }
        Ok(())
    }

    fn prepared(&self, name: &str) -> Option<Arc<PreparedSql>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Arc<SessionState>> {
        // The state is replaced as a whole, so there is none that is half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DataFusionSession {
    pub(crate) fn new(shared: Arc<Shared>, principal: Principal) -> Self {
        let (state, principal) = (Mutex::new(shared.state.clone()), Arc::new(principal));
        let (changing, prepared) = (tokio::sync::Mutex::new(()), Mutex::default());
        Self { shared, own: Arc::new(Own { state, principal, changing, prepared }) }
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
        Ok(Box::new(self.shared.within_limit(work).await??))
    }

    async fn ingest(&self, ingest: Ingest) -> Result<Box<dyn Prepared>, EngineError> {
        let (shared, own) = (self.shared.clone(), self.own.clone());
        let work = async move {
            let (started, state) = (Instant::now(), own.state());
            let plan = crate::ingest::plan(ingest, &state).await?;
            let known = Arc::new(known(&shared, (plan, Names::default()), &state)?);
            Ok(Planned { shared, own, known, spent: started.elapsed() })
        };
        Ok(Box::new(self.shared.within_limit(work).await??))
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
        self.own.change(change, None).await.map_err(engine_error)
    }

    async fn catalog(&self) -> Result<Catalog, EngineError> {
        let state = self.own.state();
        self.shared.within_limit(async move { list(&state).await }).await
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

/// Plans `sql` for the session of `own`. Runs on the queries' runtime.
async fn plan(shared: Arc<Shared>, own: Arc<Own>, sql: String) -> Result<Planned, EngineError> {
    let started = Instant::now();
    let (age, state) = (shared.plans.age(), own.state());
    let statement = statement::parse(&sql, &state)?;
    let known = Arc::new(of_statement(&shared, &own, Arc::new(statement), &Values::default(), &state).await?);
    if shared.is_unset(&state) && matches!(known.effect, Effect::Read | Effect::Write) {
        shared.plans.keep(&sql, age, &known);
    }
    Ok(Planned { shared, own, known, spent: started.elapsed() })
}

/// A plan with values for its parameters. Runs on the queries' runtime.
///
/// # Errors
/// With them, it cannot be planned.
pub(crate) async fn bind(shared: &Shared, own: &Own, known: &Known, values: &Values) -> Result<Known, EngineError> {
    let Some(statement) = known.statement.clone() else {
        return Err(EngineError::new(ErrorKind::Internal, "a statement with parameters that is no SQL"));
    };
    let bound = of_statement(shared, own, statement, values, &own.state()).await?;
    match bound.effect == known.effect {
        true => Ok(bound),
        // A table may have become a view meanwhile; what was allowed is what was planned.
        false => Err(invalid("what the statement does has changed since it was prepared; prepare it again")),
    }
}

/// The plan of `statement` with `values` in the place of its parameters.
async fn of_statement(
    shared: &Shared,
    own: &Own,
    statement: Arc<Parsed>,
    values: &Values,
    state: &SessionState,
) -> Result<Known, EngineError> {
    let mut made = make(&statement, values, state).await.map_err(engine_error)?;
    if let LogicalPlan::Statement(PlanStatement::Execute(execute)) = &made.0 {
        // What EXECUTE does is what was prepared under its name.
        made = run_prepared(own, execute, state).await?;
    }
    Ok(known(shared, made, state)?.of_statement(statement))
}

/// What an EXECUTE runs.
async fn run_prepared(own: &Own, execute: &Execute, state: &SessionState) -> Result<(LogicalPlan, Names), EngineError> {
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

/// The plan of `statement` as DataFusion makes it, with `values` in the place of its parameters.
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

/// What is to be known of a plan before it runs.
fn known(shared: &Shared, (plan, names): (LogicalPlan, Names), state: &SessionState) -> Result<Known, EngineError> {
    size::check_plan(&plan).map_err(engine_error)?;
    if let LogicalPlan::Statement(PlanStatement::TransactionStart(_) | PlanStatement::TransactionEnd(_)) = &plan {
        return Err(EngineError::new(ErrorKind::Unsupported, "this engine has no transactions"));
    }
    let plan = shared.rules.apply(plan, state).and_then(changes::plan).map_err(engine_error)?;
    let effect = effect::of(&plan).map_err(engine_error)?;
    let parameters = parameters::of(&plan).map_err(engine_error)?;
    let schema = answer::schema(&plan, &parameters, state).map_err(engine_error)?;
    Ok(Known::new(plan, names.restore(schema), parameters, effect))
}

impl Shared {
    /// Whether `state` is the one that each session starts from: nothing has been set in it.
    pub(crate) fn is_unset(&self, state: &Arc<SessionState>) -> bool {
        Arc::ptr_eq(state, &self.state)
    }

    /// Calls `end`, which ends some work and must not block, at `when`, unless what is returned is dropped before.
    pub(crate) fn strike(&self, when: Instant, end: impl FnOnce() + Send + 'static) -> Strike {
        let (strike, struck) = oneshot::channel();
        let alarm = self.clock.at(when, move || {
            end();
            // Nobody waits for it where the work has just been done.
            let _ = strike.send(());
        });
        Strike { struck, has_come: false, _alarm: alarm }
    }

    /// Runs `work` on the queries' runtime, within the limit.
    pub(crate) async fn within_limit<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, EngineError> {
        let limit = self.query_timeout;
        let mut work = AbortOnDropHandle::new(self.runtime.spawn(work));
        let end = work.abort_handle();
        let mut strike = self.strike(Instant::now() + limit, move || end.abort());
        tokio::select! {
            biased;
            done = &mut work => done.map_err(|failure| if strike.has_come() { timed_out(limit) } else { ended(failure) }),
            () = strike.comes() => Err(timed_out(limit)),
        }
    }
}

/// The end of the time that some work has. The work may compute on for a while before it sees it; who waits for it need
/// not.
pub(crate) struct Strike {
    struck: oneshot::Receiver<()>,
    has_come: bool,
    _alarm: Alarm,
}

impl Strike {
    /// Waits for it.
    pub(crate) async fn comes(&mut self) {
        if !self.has_come && !self.struck.is_terminated() {
            self.has_come = (&mut self.struck).await.is_ok();
        }
        if !self.has_come {
            // It cannot any more: the engine has gone, and its clock with it.
            std::future::pending().await
        }
    }

    /// Whether it was.
    pub(crate) fn has_come(&mut self) -> bool {
        self.has_come |= self.struck.try_recv().is_ok();
        self.has_come
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
