//! The program: reads what was said, composes the endpoints, serves until it is told to stop.
//!
//! Every other crate is a room that knows nothing of the others' insides; here they are put
//! together, in one direction: [`Args`] → settings → identity, engine, sockets → endpoints → drain.
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
