//! Plans that were made, for statements that come again: sessions in which nothing was set share them.
//!
//! A plan holds on to the tables that it reads. Whatever changes the catalog therefore forgets all plans, so that a
//! table that is dropped is gone, and the statement is planned again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::context::SessionState;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::sql::parser::Statement;
use spiced_engine::Effect;

/// Plans that are kept: as many again may be about to be evicted.
const MAX_PLANS: usize = 256;

/// The longest statement whose plan is kept, in bytes.
const MAX_SQL: usize = 4 * 1024;

/// The most memory that a plan may take to be kept. What the optimizer makes of it has the constants that it computed
/// (`repeat('x', 100000000)`), so that is weighed too.
const MAX_PLAN_BYTES: usize = 512 * 1024;

/// What a node of a plan and a node of an expression take, about, with their names and schemas.
const BYTES_PER_NODE: usize = 1_024;
const BYTES_PER_EXPRESSION: usize = 256;

/// About how many bytes of memory `plan` takes.
fn weigh(plan: &LogicalPlan) -> Result<usize> {
    let mut bytes = 0_usize;
    plan.apply_with_subqueries(|node| {
        bytes = bytes.saturating_add(BYTES_PER_NODE * (1 + node.schema().fields().len()));
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                let constant = match part {
                    Expr::Literal(value, _) => value.size(),
                    _ => 0,
                };
                bytes = bytes.saturating_add(BYTES_PER_EXPRESSION).saturating_add(constant);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(bytes)
}

/// A plan, and what is to be known of it before it runs.
pub(crate) struct CachedPlan {
    pub(crate) plan: LogicalPlan,
    pub(crate) schema: SchemaRef,
    pub(crate) parameters: Schema,
    pub(crate) effect: Effect,
    /// What it was planned from, where that is SQL: with values for its parameters it is planned again.
    pub(crate) statement: Option<Arc<Statement>>,
    /// What the optimizer made of it, where that is the same each time; `None` where it is not.
    optimized: OnceLock<Option<LogicalPlan>>,
    /// What it counts for, once it is kept.
    memory: OnceLock<MemoryReservation>,
}

impl CachedPlan {
    pub(crate) fn new(plan: LogicalPlan, schema: SchemaRef, parameters: Schema, effect: Effect) -> Self {
        Self { plan, schema, parameters, effect, statement: None, optimized: OnceLock::new(), memory: OnceLock::new() }
    }

    /// The plan as that of `statement`.
    pub(crate) fn of_statement(self, statement: Arc<Statement>) -> Self {
        Self { statement: Some(statement), ..self }
    }

    /// The optimized plan, where it was made before and is the same each time.
    pub(crate) fn kept_optimized(&self) -> Option<&LogicalPlan> {
        self.optimized.get()?.as_ref()
    }

    /// The optimized plan, where it is the same at each execution in a session that has set nothing.
    pub(crate) fn optimized(&self, state: &SessionState) -> Result<Option<&LogicalPlan>> {
        if let Some(known) = self.optimized.get() {
            return Ok(known.as_ref());
        }
        let optimized = match self.is_timeless(state)? {
            // Where it is too large to be kept, it is made again each time.
            true => {
                Some(state.optimize(&self.plan)?).filter(|plan| weigh(plan).is_ok_and(|size| size <= MAX_PLAN_BYTES))
            }
            false => None,
        };
        Ok(self.optimized.get_or_init(|| optimized).as_ref())
    }

    /// Whether nothing in it depends on when it runs (the optimizer puts in the time for `now()`), or on values that
    /// are bound to it then.
    fn is_timeless(&self, state: &SessionState) -> Result<bool> {
        let is_plain = self.effect == Effect::Read
            && self.parameters.fields().is_empty()
            && !matches!(self.plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_));
        if !is_plain {
            return Ok(false);
        }
        // The analyzer puts views in the place of their names.
        let mut timeless = true;
        let analyzed = state.analyzer().execute_and_check(self.plan.clone(), state.config_options(), |_, _| {})?;
        analyzed.apply_with_subqueries(|node| {
            node.apply_expressions(|expression| {
                expression.apply(|expression| {
                    timeless &= match expression {
                        Expr::ScalarFunction(call) => call.func.signature().volatility == Volatility::Immutable,
                        _ => true,
                    };
                    Ok(if timeless { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
                })
            })
        })?;
        Ok(timeless)
    }
}

/// The plans of one engine.
#[derive(Default)]
pub(crate) struct PlanCache(Mutex<CacheEntry>);

#[derive(Default)]
struct CacheEntry {
    /// How often all was forgotten.
    age: u64,
    recent: HashMap<Box<str>, Arc<CachedPlan>>,
    /// Those that go next, unless they are asked for before.
    older: HashMap<Box<str>, Arc<CachedPlan>>,
}

impl PlanCache {
    /// The plan of `sql`, where it is known.
    pub(crate) fn get(&self, sql: &str) -> Option<Arc<CachedPlan>> {
        let mut kept = self.lock();
        if let Some(known) = kept.recent.get(sql) {
            return Some(known.clone());
        }
        let (sql, known) = kept.older.remove_entry(sql)?;
        kept.add(sql, known.clone());
        Some(known)
    }

    /// To be asked for before a statement is planned: what is planned before all is forgotten is not kept after it.
    pub(crate) fn epoch(&self) -> u64 {
        self.lock().age
    }

    /// Keeps the plan of `sql`, which was begun at `epoch`, where it is small. It counts against the memory that
    /// `reserve` gives, for as long as anybody has it.
    pub(crate) fn keep(
        &self,
        sql: &str,
        age: u64,
        known: &Arc<CachedPlan>,
        reserve: impl FnOnce(usize) -> Option<MemoryReservation>,
    ) {
        if sql.len() > MAX_SQL {
            return;
        }
        let Some(bytes) = weigh(&known.plan).ok().filter(|bytes| *bytes <= MAX_PLAN_BYTES) else { return };
        // Once more for what the optimizer makes of it.
        let Some(memory) = reserve(2 * bytes + MAX_SQL) else { return };
        let _ = known.memory.set(memory);
        let mut kept = self.lock();
        if kept.age == age {
            kept.add(sql.into(), known.clone());
        }
    }

    /// Forgets all when what is returned is dropped.
    pub(crate) fn forgets(&self) -> Invalidation<'_> {
        Invalidation(self)
    }

    fn lock(&self) -> MutexGuard<'_, CacheEntry> {
        // A plan is added whole, so a panic elsewhere leaves them as they were.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CacheEntry {
    fn add(&mut self, sql: Box<str>, known: Arc<CachedPlan>) {
        if self.recent.len() >= MAX_PLANS {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(sql, known);
    }
}

/// A change of the catalog that is under way, done or given up.
pub(crate) struct Invalidation<'a>(&'a PlanCache);

impl Drop for Invalidation<'_> {
    fn drop(&mut self) {
        let mut kept = self.0.lock();
        let (recent, older) = (std::mem::take(&mut kept.recent), std::mem::take(&mut kept.older));
        kept.age += 1;
        drop(kept);
        // Outside the lock: tables may go with them.
        drop((recent, older));
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::{DataType, Field};
    use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, UnboundedMemoryPool};
    use datafusion::prelude::SessionContext;

    use super::*;

    async fn known(sql: &str) -> Arc<CachedPlan> {
        let plan = SessionContext::new().state().create_logical_plan(sql).await.unwrap();
        let schema = plan.schema().inner().clone();
        Arc::new(CachedPlan::new(plan, schema, Schema::empty(), Effect::Read))
    }

    /// Memory without a bound.
    fn free(bytes: usize) -> Option<MemoryReservation> {
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let memory = MemoryConsumer::new("plans").register(&pool);
        memory.grow(bytes);
        Some(memory)
    }

    #[tokio::test]
    async fn large_plans_are_not_kept_and_the_others_count() {
        let plans = PlanCache::default();
        let lists = format!("SELECT 1 WHERE 1 IN ({}1)", "1,".repeat(1_900));
        let (small, large) = (known("SELECT 1").await, known(&lists).await);
        plans.keep("small", 0, &small, free);
        plans.keep("large", 0, &large, free);
        plans.keep("full", 0, &known("SELECT 2").await, |_| None);
        assert!(plans.get("small").is_some() && plans.get("large").is_none() && plans.get("full").is_none());
        assert!(small.memory.get().unwrap().size() > 1_000);
        // Constants that only the optimizer computes.
        let state = SessionContext::new().state();
        let folded = known("SELECT repeat('x', 1000000)").await;
        assert!(folded.optimized(&state).unwrap().is_none());
        assert!(known("SELECT repeat('x', 1000)").await.optimized(&state).unwrap().is_some());
    }

    #[tokio::test]
    async fn what_is_asked_for_stays_and_the_rest_goes() {
        let (plans, one) = (PlanCache::default(), known("SELECT 1").await);
        for number in 0..3 * MAX_PLANS {
            plans.keep(&format!("SELECT {number}"), 0, &one, free);
            assert!(plans.get("SELECT 0").is_some(), "{number}");
        }
        assert!(plans.get("SELECT 1").is_none());
        plans.keep(&"x".repeat(MAX_SQL + 1), 0, &one, free);
        assert!(plans.get(&"x".repeat(MAX_SQL + 1)).is_none());
    }

    #[tokio::test]
    async fn a_change_forgets_what_was_planned_before_it() {
        let (plans, one) = (PlanCache::default(), known("SELECT 1").await);
        plans.keep("SELECT 1", plans.epoch(), &one, free);
        let (age, change) = (plans.epoch(), plans.forgets());
        assert!(plans.get("SELECT 1").is_some());
        drop(change);
        plans.keep("SELECT 1", age, &one, free);
        assert!(plans.get("SELECT 1").is_none());
    }

    #[tokio::test]
    async fn what_depends_on_its_time_is_optimized_each_time() {
        for (sql, timeless) in [
            ("SELECT 1 + 1, upper('x')", true),
            ("SELECT now()", false),
            ("SELECT x FROM (VALUES (1)) AS t(x) WHERE x IN (SELECT random())", false),
            ("EXPLAIN SELECT 1", false),
        ] {
            let state = SessionContext::new().state();
            assert_eq!(known(sql).await.optimized(&state).unwrap().is_some(), timeless, "{sql}");
        }
    }

    #[tokio::test]
    async fn what_is_bound_later_is_not_looked_at_before() {
        let state = SessionContext::new().state();
        for sql in ["SELECT abs($1)", "SELECT $1 + $2", "SELECT substr($1, $2)"] {
            let plan = state.create_logical_plan(sql).await.unwrap();
            let schema = plan.schema().inner().clone();
            let open = Schema::new(vec![Field::new("$1", DataType::Null, true)]);
            let known = CachedPlan::new(plan, schema, open, Effect::Read);
            assert!(known.optimized(&state).unwrap().is_none(), "{sql}");
        }
    }
}
