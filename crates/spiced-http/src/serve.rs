//! The API on a socket, for programs that embed only this endpoint.

use std::io;
use std::net::TcpListener;

use spiced_middleware::well_formed;
use tls_core::Acceptor;
use tls_core::server::drain::Drain;
use tls_core::server::{self, Limits, Workers};

use crate::router::router;
use crate::state::HttpState;

/// Serves the API on one socket, with the protocol of `acceptor`, until the drain begins.
///
/// # Errors
/// Fails if the socket cannot be registered with the runtime.
pub async fn serve(
    socket: TcpListener,
    acceptor: Acceptor,
    state: HttpState,
    limits: Limits,
    workers: Workers,
    drain: Drain,
) -> io::Result<()> {
    server::serve(socket, acceptor, router(state).layer(well_formed()), limits, workers, drain).await
}
