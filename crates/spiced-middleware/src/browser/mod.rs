//! Rules for browsers: the pages that may call, and the headers that make a browser use HTTPS.

pub(crate) mod host;
mod hsts;
mod origins;

pub use hsts::Hsts;
pub use origins::{AllowedOrigins, OriginError};
