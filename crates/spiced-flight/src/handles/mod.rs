//! Signed tickets and handles, and the little that a replica keeps by their ids.

pub(crate) mod bound_parameters;
pub(crate) mod running_queries;
pub(crate) mod signed_handle;
