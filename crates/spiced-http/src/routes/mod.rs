//! The routes, one file each; `probe` has those that need no credentials.

pub(crate) mod openapi;
pub(crate) mod reload;
pub(crate) mod sql;
pub(crate) mod status;
