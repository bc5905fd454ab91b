//! What operators see of the server: the banner, the status, its metrics, and the system tables.

pub(crate) mod banner;
pub(crate) mod status;
