//! The gRPC endpoint on a socket, for programs that embed only this endpoint.

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

use crate::router::{HEALTH_PREFIX, router};

/// The parts of the endpoint.
#[derive(Clone)]
pub struct GrpcState {
    /// The readiness that the health service reports.
    pub readiness: watch::Receiver<bool>,
    /// The services of other endpoints whose health this endpoint reports.
    pub services: Vec<String>,
    /// The rules that authenticate callers. Health is open to all clients.
    pub access: Access,
    /// The engine with the [`telemetry_tables`](crate::telemetry_tables). `None` disables the OTLP services.
    pub engine: Option<Arc<dyn Engine>>,
}

impl fmt::Debug for GrpcState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { services, access, .. } = self;
        f.debug_struct("GrpcState").field("services", services).field("access", access).finish_non_exhaustive()
    }
}

/// Serves the gRPC endpoint on one socket, with the protocol of `acceptor`, until the drain begins.
///
/// # Errors
/// Fails if the socket cannot be registered with the runtime.
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
