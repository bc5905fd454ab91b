//! The function governor: each function estimates the size of its result before it produces it, and an excessive size
//! is refused. No statement can thus end the process with one allocation, and a function that panics fails the
//! statement with a reason.
//!
//! Functions enter a statement in three ways: by name, from the registry; from the planner, which rewrites operators
//! such as `||` and `[…]` as functions; and from the optimizer, which rewrites functions as other functions. The
//! registry is governed when the session's state is built, and one rule covers each of the other two.

pub(crate) mod at_time_zone;
pub(crate) mod similar_to;

mod aggregates;
mod bounds;
mod concat;
mod constant;
mod contain;
mod formula;
mod governor;
mod grouping;
mod growth;
mod literals;
mod piece;
mod projection;
mod rows;
mod rules;
mod scalar;
mod sizes;
mod sums;
mod types;
mod watch;
mod wide_rows;
mod windows;

use std::sync::Arc;

use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::session_state::SessionStateBuilder;

use self::bounds::Bounds;
pub(crate) use self::contain::caught;
pub(crate) use self::formula::{CheckedArithmetic, unfold};
use self::governor::Governor;
pub(crate) use self::grouping::check as check_grouping;
pub(crate) use self::watch::watch;
pub(crate) use self::wide_rows::{Restart, careful_batch_size};

/// Governs the functions of the state that `builder` makes. Call it after all functions are registered.
pub(crate) fn govern(
    mut builder: SessionStateBuilder,
    memory_limit: usize,
    pool: Arc<dyn MemoryPool>,
) -> SessionStateBuilder {
    contain::keep_quiet();
    let governor = Arc::new(Governor { bounds: Bounds::of(memory_limit), pool });
    for function in builder.scalar_functions().iter_mut().flatten() {
        *function = scalar::govern(function, &governor);
    }
    for function in builder.aggregate_functions().iter_mut().flatten() {
        *function = aggregates::govern(function, &governor);
    }
    for function in builder.window_functions().iter_mut().flatten() {
        *function = windows::govern(function, &governor);
    }
    rules::contain(builder.analyzer().get_or_insert_default());
    literals::bound(builder.optimizer().get_or_insert_default());
    watch::between_steps(builder.physical_optimizers().get_or_insert_default());
    builder
        .with_analyzer_rule(Arc::new(rules::Govern(governor.clone())))
        .with_optimizer_rule(Arc::new(rules::Govern(governor.clone())))
        .with_physical_optimizer_rule(Arc::new(projection::InPieces(governor)))
}
