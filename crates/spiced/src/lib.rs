//! The program: reads what was said, composes the doors, serves until it is told to stop.
//!
//! Every other crate is a room that knows nothing of the others' insides; here they are put
//! together, in one direction: [`Args`] → settings → identity, engine, sockets → doors → drain.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod app;
mod args;
mod banner;
mod browse;
mod clients;
mod commands;
mod core_dumps;
mod doors;
mod engine_watch;
mod expiry;
mod exposure;
mod failure;
mod history;
mod identity;
mod live;
mod policy;
mod reloading;
mod routes;
mod secrets;
mod settle;
mod shell;
mod signals;
mod statements;
mod status;
mod tables;
mod usage;

pub use app::run;
pub use args::Args;
pub use failure::{Failure, report};
