//! What operators see of the server: the banner, the status, its metrics, and the system tables.

pub(crate) mod banner;
pub(crate) mod engine_watch;
pub(crate) mod history;
pub(crate) mod statements;
pub(crate) mod status;
pub(crate) mod tables;
