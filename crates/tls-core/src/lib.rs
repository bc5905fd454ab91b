//! The shared ground of every server crate: what a TLS identity is, and the one place where
//! connections are accepted.

mod origin;
mod secret;

pub use origin::{Origin, Sourced};
pub use secret::Secret;
