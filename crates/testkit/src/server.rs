//! A server on a free port, on the runtime of the test.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};

use http::{Request, Response};
use tls_core::server::drain::{self, Drain, Trigger};
use tls_core::server::{self, Limits, RequestBody, Workers};
use tls_core::{Acceptor, ListenAddress};
use tower_service::Service;

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Where it listens: a free port of 127.0.0.1.
    pub address: SocketAddr,
    /// Stops it, also when dropped.
    pub trigger: Trigger,
}

impl Server {
    /// Serves a router, or any other service, with the protocol of `acceptor`.
    pub fn of<S, B>(acceptor: Acceptor, service: S, limits: Limits) -> Self
    where
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send,
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Self::start(|socket, drain| server::serve(socket, acceptor, service, limits, Workers::current(), drain))
    }

    /// Serves with an endpoint's own `serve`, which gets the socket and the stop signal.
    pub fn start<F>(serve: impl FnOnce(TcpListener, Drain) -> F) -> Self
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let socket = "127.0.0.1:0".parse::<ListenAddress>().unwrap().bind().unwrap().remove(0);
        let address = socket.local_addr().unwrap();
        let (trigger, drain) = drain::channel();
        tokio::spawn(serve(socket, drain));
        Self { address, trigger }
    }
}
