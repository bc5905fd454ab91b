//! Flight SQL on a socket, for programs that embed only this endpoint.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use spiced_engine::Engine;
use spiced_middleware::{Access, Dialect, admission, well_formed};
use tls_core::Acceptor;
use tls_core::server::drain::Drain;
use tls_core::server::{self, Limits, Workers};

use crate::options::FlightOptions;
use crate::service::handshake::HANDSHAKE;
use crate::service::router;

/// The parts of the endpoint.
#[derive(Clone)]
pub struct FlightState {
    /// The engine that runs the statements.
    pub engine: Arc<dyn Engine>,
    /// The rules that authenticate callers.
    pub access: Access,
    /// The settings of the endpoint.
    pub options: FlightOptions,
}

/// Serves Flight SQL on one socket, with the protocol of `acceptor`, until the drain begins.
///
/// # Errors
/// Fails if the socket cannot be registered with the runtime.
pub async fn serve(
    socket: TcpListener,
    acceptor: Acceptor,
    state: FlightState,
    limits: Limits,
    workers: Workers,
    drain: Drain,
) -> io::Result<()> {
    let FlightState { engine, access, options } = state;
    let router = router(engine, options).layer(admission(access, Dialect::Grpc).except(HANDSHAKE)).layer(well_formed());
    server::serve(socket, acceptor, router, limits, workers, drain).await
}
