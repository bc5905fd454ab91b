//! Cached plans for repeated statements, shared by sessions in which nothing was set.
//!
//! A plan holds the tables that it reads. Every change of the catalog therefore invalidates all plans, so that a
//! dropped table is released, and the statement is planned again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::context::SessionState;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::sql::parser::Statement;
use spiced_engine::Effect;

use crate::proven::Proven;

/// The number of recent plans; as many again may be awaiting eviction.
const MAX_PLANS: usize = 256;

/// The maximum length of a statement whose plan is cached, in bytes.
const MAX_SQL: usize = 4 * 1024;

/// The maximum memory of a cached plan. The optimized plan contains the constants that the optimizer computed
/// (`repeat('x', 100000000)`), so it is measured too.
const MAX_PLAN_BYTES: usize = 512 * 1024;

/// The approximate size of a plan node or an expression node, with its names and schemas.
const BYTES_PER_NODE: usize = 1_024;
const BYTES_PER_EXPRESSION: usize = 256;

/// Estimates the memory of `plan` in bytes.
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

/// A plan, and its properties that are needed before it runs.
pub(crate) struct CachedPlan {
    pub(crate) plan: LogicalPlan,
    pub(crate) schema: SchemaRef,
    pub(crate) parameters: Schema,
    pub(crate) effect: Effect,
    /// The SQL statement it was planned from, if any: with values for its parameters it is planned again.
    pub(crate) statement: Option<Proven<Statement>>,
    /// The optimized plan if it is the same each time, otherwise `None`.
    optimized: OnceLock<Option<LogicalPlan>>,
    /// The memory reserved for the plan while it is cached.
    memory: OnceLock<MemoryReservation>,
}

impl CachedPlan {
    pub(crate) fn new(plan: LogicalPlan, schema: SchemaRef, parameters: Schema, effect: Effect) -> Self {
        Self { plan, schema, parameters, effect, statement: None, optimized: OnceLock::new(), memory: OnceLock::new() }
    }

    /// Marks the plan as that of `statement`.
    pub(crate) fn of_statement(self, statement: Proven<Statement>) -> Self {
        Self { statement: Some(statement), ..self }
    }

    /// Returns the optimized plan if it was made before and is the same each time.
    pub(crate) fn kept_optimized(&self) -> Option<&LogicalPlan> {
        self.optimized.get()?.as_ref()
    }

    /// Returns the optimized plan if it is the same at each execution in a session that has set nothing.
    pub(crate) fn optimized(&self, state: &SessionState) -> Result<Option<&LogicalPlan>> {
        if let Some(known) = self.optimized.get() {
            return Ok(known.as_ref());
        }
        let optimized = match self.is_timeless(state)? {
            // A plan too large to be cached is optimized again each time.
            true => {
                Some(state.optimize(&self.plan)?).filter(|plan| weigh(plan).is_ok_and(|size| size <= MAX_PLAN_BYTES))
            }
            false => None,
        };
        Ok(self.optimized.get_or_init(|| optimized).as_ref())
    }

    /// Returns whether the plan is independent of when it runs (the optimizer inserts the time for `now()`) and of
    /// values that are bound at execution.
    fn is_timeless(&self, state: &SessionState) -> Result<bool> {
        let is_plain = self.effect == Effect::Read
            && self.parameters.fields().is_empty()
            && !matches!(self.plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_));
        if !is_plain {
            return Ok(false);
        }
        // The analyzer replaces the names of views with their plans.
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

/// The cached plans of one engine.
#[derive(Default)]
pub(crate) struct PlanCache(Mutex<CacheEntry>);

#[derive(Default)]
struct CacheEntry {
    /// The number of invalidations.
    age: u64,
    recent: HashMap<Box<str>, Proven<CachedPlan>>,
    /// The plans to be evicted next unless they are requested before.
    older: HashMap<Box<str>, Proven<CachedPlan>>,
}

impl PlanCache {
    /// Returns the cached plan of `sql`.
    pub(crate) fn get(&self, sql: &str) -> Option<Proven<CachedPlan>> {
        let mut kept = self.lock();
        if let Some(known) = kept.recent.get(sql) {
            return Some(known.clone());
        }
        let (sql, known) = kept.older.remove_entry(sql)?;
        kept.add(sql, known.clone());
        Some(known)
    }

    /// Returns the current epoch, to be read before planning: a plan begun before an invalidation is not cached after
    /// it.
    pub(crate) fn epoch(&self) -> u64 {
        self.lock().age
    }

    /// Caches the plan of `sql`, begun at `epoch`, if it is small. It counts against the memory from `reserve` for as
    /// long as it is referenced.
    pub(crate) fn keep(
        &self,
        sql: &str,
        age: u64,
        known: &Proven<CachedPlan>,
        reserve: impl FnOnce(usize) -> Option<MemoryReservation>,
    ) {
        if sql.len() > MAX_SQL {
            return;
        }
        let Some(bytes) = weigh(&known.plan).ok().filter(|bytes| *bytes <= MAX_PLAN_BYTES) else { return };
        // Twice, to include the optimized plan.
        let Some(memory) = reserve(2 * bytes + MAX_SQL) else { return };
        let _ = known.memory.set(memory);
        let mut kept = self.lock();
        if kept.age == age {
            kept.add(sql.into(), known.clone());
        }
    }

    /// Invalidates all plans when the returned guard is dropped.
    pub(crate) fn forgets(&self) -> Invalidation<'_> {
        Invalidation(self)
    }

    fn lock(&self) -> MutexGuard<'_, CacheEntry> {
        // A plan is added as a whole, so a panic elsewhere leaves the plans intact.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CacheEntry {
    fn add(&mut self, sql: Box<str>, known: Proven<CachedPlan>) {
        if self.recent.len() >= MAX_PLANS {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(sql, known);
    }
}

/// A catalog change in progress, whether it succeeds or is abandoned.
pub(crate) struct Invalidation<'a>(&'a PlanCache);

impl Drop for Invalidation<'_> {
    fn drop(&mut self) {
        let mut kept = self.0.lock();
        let (recent, older) = (std::mem::take(&mut kept.recent), std::mem::take(&mut kept.older));
        kept.age += 1;
        drop(kept);
        // Outside the lock: dropping the plans may drop tables.
        drop((recent, older));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::datatypes::{DataType, Field};
    use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, UnboundedMemoryPool};
    use datafusion::prelude::SessionContext;

    use super::*;

    async fn known(sql: &str) -> Proven<CachedPlan> {
        let plan = SessionContext::new().state().create_logical_plan(sql).await.unwrap();
        let schema = plan.schema().inner().clone();
        Proven::new(CachedPlan::new(plan, schema, Schema::empty(), Effect::Read))
    }

    /// Returns a reservation without a limit.
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
