//! Signed tickets and handles that the client carries, and the state that a replica keeps by their ids.

pub(crate) mod bound_parameters;
pub(crate) mod running_queries;
pub(crate) mod session_cookie;
pub(crate) mod signed_handle;
