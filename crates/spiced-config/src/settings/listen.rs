//! Resolved `runtime.listen`.

use serde::Deserialize;
use tls_core::ListenAddress;
use tls_core::Sourced;

/// The endpoints' addresses.
#[derive(Debug)]
pub struct Listen {
    /// HTTP. Default `localhost:3000`.
    pub http: Sourced<ListenAddress>,
    /// Flight SQL. Default `localhost:50051`.
    pub flight: Sourced<ListenAddress>,
    /// gRPC. Default `localhost:50052`.
    pub grpc: Sourced<ListenAddress>,
    /// Prometheus. Default: off.
    pub metrics: Option<Sourced<ListenAddress>>,
    /// Probes in plain text. Default: off.
    pub probe: Option<Sourced<ListenAddress>>,
    /// The endpoints behind a proxy that names its clients.
    pub proxy_protocol: Vec<EndpointKind>,
}

/// An endpoint that may be behind a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointKind {
    /// The HTTP API.
    Http,
    /// Flight SQL.
    Flight,
    /// gRPC.
    Grpc,
    /// Prometheus.
    Metrics,
}
