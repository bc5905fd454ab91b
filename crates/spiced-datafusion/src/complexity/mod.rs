//! How large and how deep a statement may be, checked at each step before the next one does work in proportion.
//!
//! Parsing, planning, evaluating and even freeing a tree recurse: without a bound, a deep statement overflows the
//! stack, which ends the process and cannot be caught. The checks, in order:
//!
//! 1. [`tokens`]: the text's length, its brackets, and the length of each chain, before anything is parsed;
//! 2. [`syntax`]: the depth of what was parsed, whatever grammar produced it, measured on a stack of its own size;
//! 3. [`ctes`]: how many tables the plan has once common table expressions are expanded;
//! 4. [`plan`]: the depth and the size of the plan with its views, and the depth of its types;
//! 5. [`conditions`]: how large its conditions become once they are pushed down.

pub(crate) mod conditions;
pub(crate) mod ctes;
pub(crate) mod plan;
pub(crate) mod syntax;
pub(crate) mod tokens;

/// The most nodes of a plan: views and common table expressions multiply what a text says.
const MAX_NODES: usize = 5_000;
/// The most columns that a step of a plan may have.
const MAX_COLUMNS: usize = 4_096;
