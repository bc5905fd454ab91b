//! What is done to a server while it is measured. All of it runs on one thread, so that the other
//! cores are the server's, and the same code does it to each server.

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

/// Where the load goes.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) process: &'a Process,
    pub(crate) address: SocketAddr,
    /// What to trust, where TLS is spoken.
    pub(crate) tls: Option<&'a Certificate>,
    /// What a Flight endpoint is asked for, or which table it is sent.
    pub(crate) command: &'a str,
}

/// One kind of work.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load {
    /// A connection for each request: a whole handshake, or one that resumes a session.
    Handshake(Shake),
    /// Requests on connections that stay.
    KeepAlive { version: Version, ask: &'static Ask },
    /// So many answers at once, on one connection, each of as many bytes as the large table has.
    DoGet { batch: usize, streams: u64 },
    /// A quarter of as many bytes, sent in batches of 65,536 rows.
    DoPut,
    /// The answer of a DoGet, by HTTP/1.1.
    Arrow,
}

impl Load {
    /// Does it once; small work is repeated for `slice`. `large` is how many bytes the large table has.
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
