//! Binds sockets and serves connections: the accept loop of every endpoint.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use metrics::gauge;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower_service::Service;
use tracing::{debug, warn};

use crate::acceptor::{Accepted, Acceptor};
pub use crate::body::{BodyError, RequestBody};
use crate::client_auth::ClientAuthPolicy;
use crate::conn_info::{ConnInfo, TlsInfo};
pub use crate::connection_table::ConnectionTable;
use crate::connection_table::{Lease, POLL_INTERVAL};
use crate::drain::Drain;
use crate::idle::{Activity, Idle};
use crate::lingering_close::LingeringIo;
use crate::request_memory::{CONNECTION_WINDOW, ConnectionMemory};
pub use crate::request_memory::{RequestCharge, RequestMemory};
use crate::workers::Workers;
use crate::{buf_list, socket_options};

/// After a stop: how long a connection without any request so far may still send one.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// After a stop: how long an idle connection may still send a request, since one may be in flight.
const LAST_REQUEST: Duration = Duration::from_millis(250);

/// After a stop: how long an HTTP/2 connection without a request in progress may be silent.
const LAST_SILENCE: Duration = Duration::from_secs(2);

/// After a stop: how long a handshake in progress may take.
const LAST_HANDSHAKE: Duration = Duration::from_secs(1);

/// How long a connection that makes room for others has to close gracefully.
const LEAVE: Duration = Duration::from_millis(200);

/// Capacity reserved for new connections: one in `RESERVE`, at most `MAX_RESERVE`.
const RESERVE: usize = 16;
const MAX_RESERVE: usize = 64;

/// How long the shutdown of an idle connection may take.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The limits of an endpoint. Clones share the count of connections, so that all sockets of an endpoint are counted
/// together, and the count of the memory that requests hold.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Concurrent connections. When few are left, inactive connections make room; further ones wait in the kernel's
    /// queue. Default 10,000.
    pub connections: Arc<Semaphore>,
    /// The open connections; one table for all sockets of an endpoint.
    pub table: ConnectionTable,
    /// Further connections for an endpoint that has reached its own limit, shared by all endpoints with these limits.
    /// Default 0.
    pub spare: Arc<Semaphore>,
    /// Handshakes in progress, for each endpoint. Beyond it, the longest-running ones are closed before their deadline,
    /// starting with the address that has the most. Default 1,024.
    pub handshakes: usize,
    /// Memory limits for request bodies, across all endpoints that share these limits.
    pub memory: RequestMemory,
    /// Time from the accept to the end of the handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// Time for the first request of a connection, and for the head of each further HTTP/1 request; checked once a
    /// second. Default 60 s.
    pub header_timeout: Duration,
    /// HTTP/1 only: a connection that is idle for one or two of these intervals releases its buffers until the next
    /// request. Default 1 s.
    pub rest: Duration,
    /// Concurrent requests on one HTTP/2 connection. Default 256.
    pub streams: u32,
    /// Size of a request head, in bytes. Default 64 KiB.
    pub header_bytes: u32,
    /// HTTP/2 only: how long a connection may be silent before it is pinged; it is closed after twice that time without
    /// an answer. Default 30 s.
    pub keep_alive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: Arc::new(Semaphore::new(10_000)),
            table: ConnectionTable::default(),
            spare: Arc::new(Semaphore::new(0)),
            handshakes: 1_024,
            memory: RequestMemory::default(),
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(60),
            rest: Duration::from_secs(1),
            streams: 256,
            header_bytes: 64 * 1024,
            keep_alive: Duration::from_secs(30),
        }
    }
}

/// A host and a port to listen on, in the form `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    host: String,
    port: u16,
}

impl ListenAddress {
    /// Returns the host as written, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port; 0 selects a free one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Binds the address. `localhost` binds 127.0.0.1 and, if the machine has IPv6, ::1 on the same port.
    ///
    /// # Errors
    /// Fails if the name is unknown, or if the port is in use or not permitted.
    pub fn bind(&self) -> io::Result<Vec<TcpListener>> {
        if self.host != "localhost" {
            let address = (self.host.as_str(), self.port)
                .to_socket_addrs()?
                .next()
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))?;
            return Ok(vec![bind(address)?]);
        }
        // A free IPv4 port may be in use for IPv6: then another one is tried.
        let mut attempts = if self.port == 0 { 16 } else { 1 };
        loop {
            attempts -= 1;
            let v4 = bind((Ipv4Addr::LOCALHOST, self.port).into())?;
            match bind((Ipv6Addr::LOCALHOST, v4.local_addr()?.port()).into()) {
                Ok(v6) => return Ok(vec![v4, v6]),
                Err(e) if e.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => return Err(e),
                // This machine has no IPv6.
                Err(_) => return Ok(vec![v4]),
            }
        }
    }
}

impl std::str::FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        if bracketed.is_none() && (host.is_empty() || host.contains([':', '[', ']', '/'])) {
            return Err(AddressError::BadHost);
        }
        // Neither a name nor an address. An error message about it would repeat the text.
        if host.len() > 255 || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(AddressError::BadHost);
        }
        let host = bracketed.unwrap_or(host).to_owned();
        Ok(Self { host, port: port.parse().map_err(|_| AddressError::BadPort)? })
    }
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why a text is not a [`ListenAddress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// There is no colon.
    #[error("a port is missing: write HOST:PORT, such as localhost:3000 or 0.0.0.0:3000")]
    NoPort,
    /// The port is not a number up to 65535.
    #[error("the port is not a number from 0 to 65535")]
    BadPort,
    /// The host is empty, or an IPv6 address without brackets.
    #[error("the host is empty or malformed: write HOST:PORT, an IPv6 address in brackets, such as [::1]:3000")]
    BadHost,
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    const BACKLOG: i32 = 1024;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves one listening socket until the drain is signaled: accepts connections and hands each to the worker with the
/// fewest, which performs the handshake and passes HTTP/1.1 or HTTP/2 requests to `service`.
///
/// Each request's extensions hold the [`ConnInfo`]. Returns when the socket is closed; the drain tracks the remaining
/// connections.
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

#[derive(Clone)]
struct Connection<S> {
    acceptor: Acceptor,
    service: S,
    limits: Limits,
}

impl<S, B> Connection<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    async fn run(
        self,
        tcp: std::net::TcpStream,
        remote: SocketAddr,
        (lease, permit): (Lease, OwnedSemaphorePermit),
        activity: Activity,
        drain: Drain,
        token: TaskTrackerToken,
    ) {
        let endpoint = self.acceptor.endpoint();
        let open = gauge!("spiced_tls_connections", "endpoint" => endpoint);
        // Boxed, so that the connection's task does not reserve memory for it once it is over.
        let (info, accepted) = match Box::pin(self.establish(tcp, remote, &lease, drain.clone())).await {
            Ok(Some(opened)) => opened,
            Ok(None) => return,
            Err(error) => return debug!(endpoint, %error, "connection lost before it began"),
        };
        let is_tls = info.tls.is_some();
        if is_tls {
            open.increment(1);
        }
        let io = LingeringIo::new(accepted.io, token, activity.clone());
        let memory = self.limits.memory.connection(drain);
        let io = if accepted.h2 { io.limiting_frames(memory.clone()) } else { io };
        let left = async {
            lease.leave().await;
            sleep(LEAVE).await;
        };
        tokio::select! {
            ended = self.serve_connection(info, accepted.h2, io, memory, activity, &lease) => {
                if let Err(error) = ended {
                    debug!(endpoint, error, "connection ended");
                }
            }
            () = left => debug!(endpoint, "connection ended to make room for others"),
        }
        if is_tls {
            open.decrement(1);
        }
        drop(permit);
    }

    /// Turns a bare socket into a connection whose protocol is known; `None` if it ended before.
    async fn establish(
        &self,
        tcp: std::net::TcpStream,
        remote: SocketAddr,
        lease: &Lease,
        mut drain: Drain,
    ) -> io::Result<Option<(ConnInfo, Accepted)>> {
        let tcp = TcpStream::from_std(tcp)?;
        socket_options::after_accept(&tcp)?;
        let local = tcp.local_addr()?;
        let endpoint = self.acceptor.endpoint();
        let stopped = async {
            drain.signaled().await;
            sleep(LAST_HANDSHAKE).await;
        };
        let outcome = tokio::select! {
            biased;
            outcome = self.acceptor.accept(tcp, self.limits.handshake_timeout) => outcome,
            () = stopped => return Ok(None),
            () = lease.leave() => {
                debug!(endpoint, %remote, "no connection: a slow handshake made room for others");
                return Ok(None);
            }
        };
        match outcome {
            Ok(accepted) => {
                lease.established(accepted.remote.map(|remote| remote.ip()));
                let remote = accepted.remote.unwrap_or(remote);
                let (tls, standing) = (accepted.tls.clone(), lease.standing());
                Ok(Some((ConnInfo { endpoint, remote, local, tls, standing }, accepted)))
            }
            Err(error) => {
                debug!(endpoint, %remote, %error, result = error.result(), "no connection");
                Ok(None)
            }
        }
    }

    async fn serve_connection(
        self,
        info: ConnInfo,
        h2: bool,
        mut io: LingeringIo,
        memory: Arc<ConnectionMemory>,
        activity: Activity,
        lease: &Lease,
    ) -> Result<(), String> {
        let Self { acceptor, service, limits } = self;
        let mut drain = memory.drain.clone();
        // HTTP/2 can announce the end without losing a request (GOAWAY); HTTP/1 announces it with the next response.
        let on_announcement = h2 && !drain.is_announced();
        let mut closing_signal = pin!(async {
            tokio::select! {
                () = distrusted(acceptor.clients(), info.tls.clone()) => {}
                () = lease.leave() => {}
                () = async { if on_announcement { drain.announced().await } else { drain.signaled().await } } => {}
            }
        });
        let service = hyper::service::service_fn(|request: Request<Incoming>| {
            let turn = activity.begin();
            let (mut request, charge) = RequestBody::take(request, &turn, &memory);
            request.extensions_mut().insert(info.clone());
            // A router is always ready (its `poll_ready` returns at once), so a fresh clone can be called.
            let answer = service.clone().call(request);
            let memory = memory.clone();
            async move {
                let mut response = answer.await?;
                drop(charge);
                if !h2 && (turn.is_last() || memory.drain.is_announced()) {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(buf_list::whole_frames(response, turn, h2.then_some(memory)))
            }
        });
        if h2 {
            let mut connection = Box::pin(limits.http2().serve_connection(TokioIo::new(io), service));
            // hyper has no timeout for an HTTP/2 client that never sends a request.
            let never_asks = async {
                sleep(limits.header_timeout).await;
                if activity.has_begun() {
                    std::future::pending().await
                }
            };
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = never_asks => Ok(()),
                // GOAWAY (RFC 9113 §6.8): requests sent before it are still answered.
                () = closing_signal => {
                    connection.as_mut().graceful_shutdown();
                    last_answer(connection, &activity).await
                }
            };
            return ended.map_err(|e| e.to_string());
        }
        let http1 = limits.http1();
        let mut since = Instant::now();
        let mut closing = false;
        loop {
            let mut connection = Box::new(http1.serve_connection(TokioIo::new(io), &service));
            let mut idle = Idle::TooLong;
            if !closing {
                tokio::select! {
                    // Polled first, so that the connection has nothing left to do when it is found idle.
                    biased;
                    ended = connection.as_mut() => return ended.map_err(|e| e.to_string()),
                    () = closing_signal.as_mut() => closing = true,
                    seen = activity.wait_idle(&mut since, limits.rest, limits.header_timeout) => idle = seen,
                }
            }
            if closing {
                // The next response is the last, and carries `Connection: close`.
                activity.close();
                if activity.is_busy() {
                    Pin::new(&mut *connection).graceful_shutdown();
                }
                since = Instant::now();
                let patience = match (lease.is_leaving(), activity.has_begun()) {
                    (true, _) => Duration::ZERO,
                    (false, true) => LAST_REQUEST,
                    (false, false) => FIRST_REQUEST,
                };
                tokio::select! {
                    biased;
                    ended = connection.as_mut() => return ended.map_err(|e| e.to_string()),
                    // For example, an incomplete head, which is not waited for.
                    _ = activity.wait_idle(&mut since, patience, patience) => idle = Idle::TooLong,
                }
            }
            debug!(endpoint = info.endpoint, ?idle, "connection does nothing");
            let parts = connection.into_parts();
            io = parts.io.into_inner();
            io.put_back(&parts.read_buf);
            drop(parts.read_buf);
            let more = idle == Idle::Nothing
                && tokio::select! {
                    more = timeout_at(since + limits.header_timeout, io.readable()) => more.is_ok(),
                    () = closing_signal.as_mut() => {
                        closing = true;
                        // A request may be in flight.
                        !lease.is_leaving() && timeout(LAST_REQUEST, io.readable()).await.is_ok()
                    }
                };
            if !more {
                // A client that does not read is not waited for.
                let _ = timeout(LAST_WORD, io.shutdown()).await;
                return Ok(());
            }
        }
    }
}

/// Finishes an HTTP/2 connection after its GOAWAY. hyper would wait without limit for the first request of a
/// connection, and for the client to acknowledge the GOAWAY.
async fn last_answer(
    mut connection: impl Future<Output = hyper::Result<()>> + Unpin,
    activity: &Activity,
) -> hyper::Result<()> {
    tokio::select! {
        ended = &mut connection => return ended,
        () = sleep(FIRST_REQUEST) => {}
    }
    if !activity.has_begun() {
        return Ok(());
    }
    tokio::select! {
        ended = connection => ended,
        () = activity.silence(LAST_SILENCE) => Ok(()),
    }
}

/// Waits until a change of the client authentication policy excludes this client.
async fn distrusted(clients: Option<watch::Receiver<Arc<ClientAuthPolicy>>>, tls: Option<Arc<TlsInfo>>) {
    if let (Some(mut clients), Some(tls)) = (clients, tls) {
        while clients.changed().await.is_ok() {
            let trust = clients.borrow_and_update().clone();
            if !trust.still_trusted(tls.client.as_ref()) {
                // The client may still send requests for a while: the admission layer must know.
                if let Some(client) = &tls.client {
                    client.mark_untrusted();
                }
                return;
            }
        }
    }
    std::future::pending().await
}

impl Limits {
    /// Waits for capacity for one more connection. When little is left, inactive connections make room.
    async fn place(&self, endpoint: &'static str) -> OwnedSemaphorePermit {
        let place = async {
            let place = tokio::select! {
                biased;
                own = self.connections.clone().acquire_owned() => own,
                spare = self.spare.clone().acquire_owned() => spare,
            };
            place.expect("the semaphores are never closed")
        };
        let mut place = pin!(place);
        loop {
            if let Ok(place) = timeout(self.relieve(endpoint), place.as_mut()).await {
                return place;
            }
        }
    }

    /// Returns capacity for one more connection, if there is any.
    fn try_place(&self) -> Option<OwnedSemaphorePermit> {
        let own = self.connections.clone().try_acquire_owned();
        own.or_else(|_| self.spare.clone().try_acquire_owned()).ok()
    }

    /// Makes connections leave if capacity is low or there are too many handshakes. Returns when to check again.
    fn relieve(&self, endpoint: &'static str) -> Duration {
        let free = self.connections.available_permits() + self.spare.available_permits();
        let reserve = (self.table.len() / RESERVE).clamp(1, MAX_RESERVE);
        if free < reserve {
            self.table.relieve(endpoint, reserve - free, false);
        } else if self.table.handshakes() >= self.handshakes {
            self.table.relieve(endpoint, self.table.handshakes() - self.handshakes / 8 * 7, true);
        }
        POLL_INTERVAL
    }

    fn http1(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        // hyper would create a timer for each request; `Activity` has one for all of them.
        builder.header_read_timeout(None).max_buf_size((self.header_bytes as usize).max(8 * 1024));
        builder
    }

    fn http2(&self) -> http2::Builder<TokioExecutor> {
        const STREAM_WINDOW: u32 = 1 << 20;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.streams)
            .max_header_list_size(self.header_bytes)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(self.keep_alive)
            .keep_alive_timeout(self.keep_alive);
        builder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for good in ["localhost:3000", "0.0.0.0:0", "[::1]:50051", "db.example.com:1"] {
            assert_eq!(good.parse::<ListenAddress>().unwrap().to_string(), good);
        }
        for (bad, why) in [
            ("localhost", AddressError::NoPort),
            ("localhost:x", AddressError::BadPort),
            ("localhost:70000", AddressError::BadPort),
            ("::1:3000", AddressError::BadHost),
            (":3000", AddressError::BadHost),
            ("https://x:3000", AddressError::BadHost),
        ] {
            assert_eq!(bad.parse::<ListenAddress>(), Err(why), "{bad}");
        }
    }

    #[test]
    fn localhost_is_one_port_on_both_families() {
        let sockets = "localhost:0".parse::<ListenAddress>().unwrap().bind().unwrap();
        let ports: Vec<u16> = sockets.iter().map(|s| s.local_addr().unwrap().port()).collect();
        assert!(ports.iter().all(|p| *p == ports[0] && *p != 0), "{ports:?}");
    }
}
