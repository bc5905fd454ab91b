//! Statements as text and syntax: parsing, limits, parameters, and rewrites that precede the planner.

pub(crate) mod any;
pub(crate) mod complexity;
pub(crate) mod distinct_from;
pub(crate) mod effect;
pub(crate) mod insert_sources;
pub(crate) mod names;
pub(crate) mod number_literals;
pub(crate) mod parameters;
pub(crate) mod statement;
pub(crate) mod table_arguments;
pub(crate) mod typed_parameters;
pub(crate) mod visit;
