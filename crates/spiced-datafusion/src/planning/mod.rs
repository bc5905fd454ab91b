//! Rules that the analyzer and the optimizer apply, and the plans of INSERT, UPDATE and DELETE.

pub(crate) mod cooperative;
pub(crate) mod dml;
pub(crate) mod exact_cast;
pub(crate) mod in_lists;
pub(crate) mod in_subqueries;
pub(crate) mod number_comparisons;
pub(crate) mod output_schema;
pub(crate) mod plan_expressions;
pub(crate) mod projections;
pub(crate) mod time_literals;
