//! The `spiced` program: loads the configuration, composes the endpoints, and serves until it is told to stop.
//!
//! The other crates do not know each other's internals. This crate puts them together, in one direction: [`Args`] →
//! settings → identity, engine, sockets → endpoints → drain.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod app;
mod args;
mod banner;
mod client_snippets;
mod commands;
mod core_dumps;
mod endpoints;
mod engine_watch;
mod expiry;
mod exposure;
mod failure;
mod history;
mod identity;
mod load;
mod policy;
mod protocol_mismatch;
mod reload;
mod reloadable;
mod routes;
mod secrets;
mod shell_quote;
mod signals;
mod statements;
mod status;
mod tables;
mod usage;

pub use app::run;
pub use args::Args;
pub use failure::{Failure, report};
pub use signals::StartSignals;
