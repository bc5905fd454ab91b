//! The load on a server while it is measured. It runs on one thread, so that the other cores are the server's, and it
//! is the same code for each server.

mod connect;
mod flight;
mod handshakes;
mod keep_alive;

use std::net::SocketAddr;
use std::time::Duration;

use crate::Outcome;
use crate::certificate::Certificate;
use crate::meter::Sample;
use crate::process::Process;

pub(crate) use flight::{Put, get, put};
pub(crate) use handshakes::{Bare, Shake};
pub(crate) use keep_alive::{Ask, Version, once};

/// The destination of the load.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) process: &'a Process,
    pub(crate) address: SocketAddr,
    /// The CA to trust, if the server uses TLS.
    pub(crate) tls: Option<&'a Certificate>,
    /// The command for a Flight endpoint, or the table to send.
    pub(crate) command: &'a str,
}

/// A kind of work.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load {
    /// A connection for each request: a full or a resumed handshake.
    Handshake(Shake),
    /// Requests on connections that stay open.
    KeepAlive { version: Version, ask: &'static Ask },
    /// Concurrent results on one connection, each as large as the large table.
    DoGet { batch: usize, streams: u64 },
    /// A quarter of the large table, sent in batches of 65,536 rows.
    DoPut,
    /// The result of a DoGet, over HTTP/1.1.
    Arrow,
}

impl Load {
    /// Runs the work once; repeats small work for `slice`. `large` is the size of the large table in bytes.
    pub(crate) async fn run(self, target: Target<'_>, slice: Duration, large: u64) -> Outcome<Sample> {
        match self {
            Self::Handshake(shake) => handshakes::run(target, shake, slice).await,
            Self::KeepAlive { version, ask } => keep_alive::run(target, version, ask, slice).await,
            Self::DoGet { streams, .. } => flight::get(target, streams, large).await,
            Self::DoPut => flight::put(target, Put::Measured, large / 4).await,
            Self::Arrow => keep_alive::stream(target, large).await,
        }
    }
}
