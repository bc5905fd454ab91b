//! The accept loop of every endpoint.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use http::{Request, Response};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tower_service::Service;
use tracing::warn;

use super::body::RequestBody;
use super::connection::Connection;
use super::drain::Drain;
use super::idle::Activity;
use super::limits::Limits;
use super::socket_options;
use super::workers::Workers;
use crate::acceptor::Acceptor;

/// Serves one listening socket until the drain is signaled: accepts connections and hands each to the worker with the
/// fewest, which performs the handshake and passes HTTP/1.1 or HTTP/2 requests to `service`.
///
/// Each request's extensions hold the [`ConnInfo`](crate::ConnInfo). Returns when the socket is closed; the drain tracks
/// the remaining connections.
///
/// # Errors
/// Fails if the socket cannot be registered with the runtime. An error of `accept` never ends the loop.
pub async fn serve<S, B>(
    socket: TcpListener,
    acceptor: Acceptor,
    service: S,
    limits: Limits,
    workers: Workers,
    drain: Drain,
) -> io::Result<()>
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // An embedder's socket may be a blocking one, on which tokio panics.
    socket.set_nonblocking(true)?;
    socket_options::before_accept(&SockRef::from(&socket))?;
    // tokio's listener would register each connection with this runtime, before the worker registers it with its own.
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe to call; a listener keeps its descriptor, which is all it wants"
    )]
    let listener = AsyncFd::with_interest(socket, Interest::READABLE)?;
    let endpoint = acceptor.endpoint();
    let connection = Connection { acceptor, service, limits };
    let start = |tcp: std::net::TcpStream, remote: SocketAddr, permit| {
        let (connection, drain, token) = (connection.clone(), drain.clone(), drain.hold());
        let activity = Activity::default();
        let lease = connection.limits.table.add(remote.ip(), activity.clone());
        let (worker, place) = workers.place();
        worker.spawn(async move {
            connection.run(tcp, remote, (lease, permit), activity, drain, token).await;
            drop(place);
        });
    };
    let mut stop = drain.clone();
    let mut back_off = BackOff::default();
    loop {
        let next = async {
            let (tcp, remote) = listener.async_io(Interest::READABLE, TcpListener::accept).await?;
            tcp.set_nonblocking(true)?;
            // Acquired only now: a permit held by an idle socket would be missing on the endpoint's other sockets.
            Ok((tcp, remote, connection.limits.place(endpoint).await))
        };
        let next = tokio::select! {
            biased;
            () = stop.signaled() => {
                // Connections that the kernel has accepted are served; it refuses later ones.
                while let (Some(permit), Ok((tcp, remote))) = (connection.limits.try_place(), listener.get_ref().accept()) {
                    if tcp.set_nonblocking(true).is_ok() {
                        start(tcp, remote, permit);
                    }
                }
                return Ok(());
            }
            next = next => next,
        };
        match next {
            Ok((tcp, remote, permit)) => {
                back_off = BackOff::default();
                start(tcp, remote, permit);
            }
            Err(e) => back_off.after(endpoint, &e).await,
        }
    }
}

/// Waits after a failed accept: not at all if one client disconnected, and up to a second if the process is out of
/// descriptors or memory, to avoid a busy loop.
#[derive(Default)]
struct BackOff(u32);

impl BackOff {
    async fn after(&mut self, endpoint: &str, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
            return;
        }
        if self.0 == 0 {
            warn!(endpoint, %error, "cannot accept connections for now; raise the limit of open files (ulimit -n) or lower runtime.limits.connections");
        }
        tokio::time::sleep(Duration::from_millis(10 << self.0.min(6)).min(Duration::from_secs(1))).await;
        self.0 += 1;
    }
}
