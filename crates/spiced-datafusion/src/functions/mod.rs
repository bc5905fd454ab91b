//! The governor of functions: a function computes how much it would make before it makes it, and what is too much is
//! refused. Whatever a statement asks for, one allocation can thus not end the process, and a function that panics
//! fails the statement with a reason.
//!
//! A statement comes by functions in three ways: by name, from the registry; from the planner, which writes operators
//! such as `||` and `[…]` as functions; and from the optimizer, which writes functions as others. The registry is
//! governed when the session's state is built, and a rule looks after each of the other two.

mod aggregates;
mod bounds;
mod concat;
mod constant;
mod contain;
mod formula;
mod grouping;
mod growth;
mod literals;
mod projection;
mod rows;
mod rules;
mod scalar;
mod sizes;
mod sums;
mod types;
mod watch;
mod windows;

use std::sync::Arc;

use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::session_state::SessionStateBuilder;

use self::bounds::Bounds;
pub(crate) use self::formula::{CheckedArithmetic, unfold};
pub(crate) use self::grouping::check as check_grouping;
pub(crate) use self::watch::watch;

/// What all governed functions of one engine share.
#[derive(Debug)]
struct Governor {
    bounds: Bounds,
    pool: Arc<dyn MemoryPool>,
}

/// Governs the functions of the state that `builder` makes: call it when all of them are in it.
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
    builder
        .with_analyzer_rule(Arc::new(rules::Govern(governor.clone())))
        .with_optimizer_rule(Arc::new(rules::Govern(governor.clone())))
        .with_physical_optimizer_rule(Arc::new(projection::InPieces(governor)))
}
