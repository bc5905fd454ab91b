//! Limits on constant folding. Constants are computed during planning and stay in the plan: the optimizer may fold
//! small ones, while a large one is computed where it is used.

use std::cell::Cell;
use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{ApplyOrder, Optimizer, OptimizerConfig, OptimizerRule};
use spiced_engine::ErrorKind;

use super::contain::contained;
use super::watch;
use crate::error::refusal;

/// The maximum size of one constant, in bytes: it may be written out for every row.
pub(super) const ONE: u64 = 8 << 10;
/// The maximum size of all constants of one statement together, small ones excluded.
const ALL: u64 = 4 << 20;

thread_local! {
    /// Whether an optimizer step runs on this thread.
    static RUNS: Cell<bool> = const { Cell::new(false) };
    /// The total size of the constants of the statement last optimized on this thread. The statement is identified by
    /// the address of its alias generator, of which each execution has one. If a later generator reuses the address,
    /// constants of the later statement may stay calls.
    static MADE: Cell<(usize, u64)> = const { Cell::new((0, 0)) };
}

/// Prevents the steps of `optimizer` from folding large constants.
pub(super) fn bound(optimizer: &mut Optimizer) {
    for rule in &mut optimizer.rules {
        *rule = Arc::new(Bounded(rule.clone()));
    }
}

/// # Errors
/// Fails if the optimizer makes the call and the result is too large: the call then stays a call.
pub(super) fn admit(name: &str, bytes: u64) -> Result<()> {
    if !RUNS.get() {
        return Ok(());
    }
    let (whose, made) = MADE.get();
    let made = made.saturating_add(bytes);
    // Small ones are text in any case.
    if bytes > ONE || (made > ALL && bytes > 1 << 10) {
        return Err(refusal(ErrorKind::InvalidStatement, format!("`{name}` is left to be computed where it is used")));
    }
    MADE.set((whose, made));
    Ok(())
}

#[derive(Debug)]
struct Bounded(Arc<dyn OptimizerRule + Send + Sync>);

/// Ends the step, even on a panic.
struct Ends(bool);

impl Drop for Ends {
    fn drop(&mut self) {
        RUNS.set(self.0);
    }
}

impl OptimizerRule for Bounded {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        watch::check(&config.options())?;
        let _ends = Ends(RUNS.replace(true));
        let whose = Arc::as_ptr(config.alias_generator()).addr();
        if MADE.get().0 != whose {
            MADE.set((whose, 0));
        }
        contained(|| self.0.rewrite(plan, config), || "the statement cannot be planned".to_owned())
    }
}
