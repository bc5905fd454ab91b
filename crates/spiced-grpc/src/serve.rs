//! The gRPC endpoint on a socket, for those who embed it alone.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use spiced_engine::Engine;
use spiced_middleware::{Access, Dialect, admission, well_formed};
use tls_core::Acceptor;
use tls_core::server::drain::Drain;
use tls_core::server::{self, Limits, Workers};
use tokio::sync::watch;

use crate::{HEALTH_PREFIX, router};

/// What the endpoint is made of.
#[derive(Clone)]
pub struct GrpcState {
    /// What health follows.
    pub readiness: watch::Receiver<bool>,
    /// The services of other endpoints that health answers for.
    pub services: Vec<String>,
    /// Who may call; health is open to all.
    pub access: Access,
    /// What has the [`telemetry_tables`](crate::telemetry_tables); `None` where telemetry is not taken.
    pub engine: Option<Arc<dyn Engine>>,
}

impl fmt::Debug for GrpcState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { services, access, .. } = self;
        f.debug_struct("GrpcState").field("services", services).field("access", access).finish_non_exhaustive()
    }
}

/// Serves the gRPC endpoint on one socket, over whatever `acceptor` speaks, until the drain is called.
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
    let router = router(state.readiness, &services, state.engine).layer(admission).layer(well_formed());
    server::serve(socket, acceptor, router, limits, workers, drain).await
}
