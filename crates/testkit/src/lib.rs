//! Helpers for the tests of several crates: an in-memory engine ([`Toy`]), certificates ([`Authority`],
//! [`self_signed`]), a TLS client ([`client`], [`connect`]), a temporary pod directory ([`PodDirectory`]), a server
//! on a free port ([`Server`]), and a program in its own process ([`program`]).
//!
//! For `[dev-dependencies]` only: set-up that fails panics instead of returning an error. `cargo xtask edges` fails on
//! any other use.
#![allow(clippy::unwrap_used, reason = "a failed set-up fails the test")]

mod authority;
mod pod;
pub mod program;
mod server;
mod tls;
mod toy;

pub use authority::{Authority, Pair, self_signed};
pub use pod::PodDirectory;
pub use server::Server;
pub use tls::{acceptor, client, client_with, connect, connect_after, exchange, post};
pub use toy::{Toy, numbers};
