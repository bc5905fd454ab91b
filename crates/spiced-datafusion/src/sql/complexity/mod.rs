//! Limits on the size and the depth of a statement. Each is checked before the next step does a proportional amount of
//! work.
//!
//! Parsing, planning, evaluating and even freeing a tree recurse: without a limit, a deep statement overflows the
//! stack, which ends the process and cannot be caught. The checks, in order:
//!
//! 1. [`tokens`]: the length of the text, its brackets, and the length of each chain, before parsing;
//! 2. [`syntax`]: the depth of the parsed statement, whatever grammar produced it, measured on a stack of its own size;
//! 3. [`ctes`]: the number of tables in the plan after common table expressions are expanded;
//! 4. [`plan`]: the depth and the size of the plan with its views, and the depth of its types;
//! 5. [`conditions`]: the size of its conditions after they are pushed down.

pub(crate) mod conditions;
pub(crate) mod ctes;
pub(crate) mod plan;
pub(crate) mod syntax;
pub(crate) mod tokens;

/// The maximum number of nodes of a plan: views and common table expressions multiply what a text contains.
const MAX_NODES: usize = 5_000;
/// The maximum number of columns of a step of a plan.
const MAX_COLUMNS: usize = 4_096;
