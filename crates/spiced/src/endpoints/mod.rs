//! The endpoints: each is an acceptor and a router on the shared accept loop, bound before any of them serves.

pub(crate) mod exposure;
pub(crate) mod routes;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::Router;
use spiced_config::{EndpointKind, Listen};
use tls_core::ListenAddress;
use tls_core::server::drain::Drain;
use tls_core::server::{self, ConnectionTable, Limits, Workers};
use tls_core::{Acceptor, ServerTls, Sourced};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::failure::Failure;

/// All endpoints, bound. Dropping one closes its sockets.
pub(crate) struct Endpoints {
    pub(crate) http: BoundEndpoint,
    pub(crate) flight: BoundEndpoint,
    pub(crate) grpc: BoundEndpoint,
    pub(crate) metrics: Option<BoundEndpoint>,
    pub(crate) probe: Option<BoundEndpoint>,
}

impl Endpoints {
    /// Binds every address of `listen`; if one fails, none stays bound. The probe endpoint never uses TLS.
    pub(crate) fn bind(listen: &Listen, tls: Option<&ServerTls>) -> Result<Self, Failure> {
        let proxied = |kind| listen.proxy_protocol.contains(&kind);
        let optional = |endpoint, address: &Option<Sourced<ListenAddress>>, tls, proxied| {
            address.as_ref().map(|address| BoundEndpoint::bind(endpoint, address, tls, proxied)).transpose()
        };
        Ok(Self {
            http: BoundEndpoint::bind("http", &listen.http, tls, proxied(EndpointKind::Http))?,
            flight: BoundEndpoint::bind("flight", &listen.flight, tls, proxied(EndpointKind::Flight))?,
            grpc: BoundEndpoint::bind("grpc", &listen.grpc, tls, proxied(EndpointKind::Grpc))?,
            metrics: optional("metrics", &listen.metrics, tls, proxied(EndpointKind::Metrics))?,
            probe: optional("probe", &listen.probe, None, false)?,
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &BoundEndpoint> {
        [&self.http, &self.flight, &self.grpc].into_iter().chain(&self.metrics).chain(&self.probe)
    }
}

/// An endpoint whose sockets are bound but not yet served.
pub(crate) struct BoundEndpoint {
    pub(crate) endpoint: &'static str,
    acceptor: Acceptor,
    proxied: bool,
    asked: ListenAddress,
    addresses: Vec<SocketAddr>,
    sockets: Vec<TcpListener>,
}

impl BoundEndpoint {
    /// Binds an endpoint's address. `tls` is its TLS configuration, `None` for plain text. With `proxied`, each
    /// connection starts with the PROXY protocol header of a proxy.
    fn bind(
        endpoint: &'static str,
        address: &Sourced<ListenAddress>,
        tls: Option<&ServerTls>,
        proxied: bool,
    ) -> Result<Self, Failure> {
        let asked = address.value.clone();
        let bound = asked.bind().and_then(|sockets| {
            let addresses = sockets.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
            Ok((sockets, addresses))
        });
        let (sockets, addresses) = bound.map_err(|error| cannot_bind(endpoint, address, &error))?;
        let acceptor = match tls {
            Some(tls) => Acceptor::tls(endpoint, tls.clone()),
            None => Acceptor::plain(endpoint),
        };
        let acceptor = if proxied { acceptor.behind_proxy() } else { acceptor };
        Ok(Self { endpoint, acceptor, proxied, asked, addresses, sockets })
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(crate) fn port(&self) -> u16 {
        self.addresses.first().map_or(0, SocketAddr::port)
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.acceptor.is_tls()
    }

    /// Returns true if only this machine can reach the endpoint.
    pub(crate) fn is_loopback(&self) -> bool {
        self.addresses.iter().all(|address| address.ip().to_canonical().is_loopback())
    }

    /// Returns true if all callers are on this machine: the endpoint is on loopback and not behind a proxy.
    pub(crate) fn is_local(&self) -> bool {
        self.is_loopback() && !self.proxied
    }

    /// The address as configured.
    pub(crate) fn asked(&self) -> &ListenAddress {
        &self.asked
    }

    /// The URL scheme that clients use for it.
    pub(crate) fn scheme(&self) -> &'static str {
        match (self.endpoint, self.is_tls()) {
            ("flight", true) => "grpc+tls",
            ("flight", false) => "grpc",
            (_, true) => "https",
            (_, false) => "http",
        }
    }

    /// Serves `router` on every socket until the drain, with `connections` reserved for this endpoint over all its
    /// sockets. Adds the accept loops to `loops`.
    pub(crate) fn serve(
        self,
        router: Router,
        connections: usize,
        limits: &Limits,
        workers: &Workers,
        drain: &Drain,
        loops: &mut JoinSet<io::Result<()>>,
    ) {
        let (connections, table) = (Arc::new(Semaphore::new(connections)), ConnectionTable::default());
        for socket in self.sockets {
            let acceptor = self.acceptor.clone();
            let limits = Limits { connections: connections.clone(), table: table.clone(), ..limits.clone() };
            loops.spawn(server::serve(socket, acceptor, router.clone(), limits, workers.clone(), drain.clone()));
        }
    }
}

fn cannot_bind(endpoint: &str, address: &Sourced<ListenAddress>, error: &io::Error) -> Failure {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => "another process is listening there".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not (ports below 1024 need a privilege)".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        _ => error.to_string(),
    };
    let from = match &address.origin {
        tls_core::Origin::Default => "the default".to_owned(),
        origin => format!("from {origin}"),
    };
    Failure::Unavailable {
        cause: format!("the {endpoint} endpoint cannot listen on {} ({from}): {why}", address.value),
        hint: format!("choose another address with --{endpoint} HOST:PORT; port 0 selects a free one"),
    }
}
