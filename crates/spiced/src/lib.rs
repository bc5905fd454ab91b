//! The `spiced` program: loads the configuration, composes the endpoints, and serves until it is stopped.
//!
//! The other crates do not know each other's internals. This crate puts them together, in one direction: [`Args`] →
//! settings → identity, engine, sockets → endpoints → drain.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod app;
mod args;
mod auth_policy;
mod commands;
mod config;
mod endpoints;
mod failure;
mod observe;
mod reload;
mod tls;

pub use app::run;
pub use args::Args;
pub use failure::{Failure, report};
