//! The gRPC door on a socket, for those who embed it alone.

use std::io;
use std::net::TcpListener;

use spiced_middleware::{Access, Dialect, admission};
use tls_core::drain::Drain;
use tls_core::listener::{self, Limits};
use tls_core::{Acceptor, Workers};
use tokio::sync::watch;

use crate::{HEALTH_PREFIX, router};

/// What the door is made of.
#[derive(Debug, Clone)]
pub struct GrpcState {
    /// What health follows.
    pub readiness: watch::Receiver<bool>,
    /// The services of other doors that health answers for.
    pub services: Vec<String>,
    /// Who may call; health is open to all.
    pub access: Access,
}

/// Serves the gRPC door on one socket, over whatever `acceptor` speaks, until the drain is called.
///
/// # Errors
/// The socket cannot be registered with the runtime.
pub async fn serve(
    socket: TcpListener,
    acceptor: Acceptor,
    state: GrpcState,
    limits: Limits,
    workers: Workers,
    drain: Drain,
) -> io::Result<()> {
    let services: Vec<&str> = state.services.iter().map(String::as_str).collect();
    let admission = admission(state.access, Dialect::Grpc).except(HEALTH_PREFIX);
    let router = router(state.readiness, &services).layer(admission);
    listener::serve(socket, acceptor, router, limits, workers, drain).await
}
