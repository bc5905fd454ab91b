//! Flight SQL on a socket, for those who embed it alone.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use spiced_engine::Engine;
use spiced_middleware::{Access, Dialect, admission, well_formed};
use tls_core::Acceptor;
use tls_core::server::drain::Drain;
use tls_core::server::{self, Limits, Workers};

use crate::{FlightOptions, HANDSHAKE, router};

/// What the endpoint is made of.
#[derive(Clone)]
pub struct FlightState {
    /// What answers.
    pub engine: Arc<dyn Engine>,
    /// Who may call, and as whom.
    pub access: Access,
    /// The endpoint's own settings.
    pub options: FlightOptions,
}

/// Serves Flight SQL on one socket, over whatever `acceptor` speaks, until the drain is called.
///
/// # Errors
/// The socket cannot be registered with the runtime.
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
