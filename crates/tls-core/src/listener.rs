//! Bind, then serve: the only accept loop there is. Every endpoint runs on it.

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

/// After a stop: how long a connection that has asked for nothing yet may still do so.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// After a stop: how long an idle connection may still ask, since a request may be on its way.
const LAST_REQUEST: Duration = Duration::from_millis(250);

/// After a stop: how long an HTTP/2 connection without a request in progress may be silent.
const LAST_SILENCE: Duration = Duration::from_secs(2);

/// After a stop: how long a handshake in progress may take.
const LAST_HANDSHAKE: Duration = Duration::from_secs(1);

/// How long a connection that makes room for others has to say so.
const LEAVE: Duration = Duration::from_millis(200);

/// The places that are kept free for newcomers: this part of all, and no more than so many.
const RESERVE: usize = 16;
const MAX_RESERVE: usize = 64;

/// How long the end of a connection that did nothing may take to be said.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What bounds an endpoint. Clones share the counts: of connections, so that the sockets of one endpoint are
/// counted together, and of the memory that requests hold.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time. Where few are left, those that do nothing make room; further ones wait in the kernel's
    /// queue. Default 10,000.
    pub connections: Arc<Semaphore>,
    /// The same connections one by one; one for all sockets of an endpoint.
    pub table: ConnectionTable,
    /// Further connections, over all endpoints that share these limits, where an endpoint has no place of its own left. Default none.
    pub spare: Arc<Semaphore>,
    /// Handshakes in progress, for each endpoint. Beyond it, those that take longest are ended before their deadline,
    /// first those of the address that has the most. Default 1,024.
    pub handshakes: usize,
    /// What the bodies of requests may hold in memory, over all endpoints that share these limits.
    pub memory: RequestMemory,
    /// From the accept to the end of the handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// For the first request of a connection, and the head of each further HTTP/1 request, which is looked at once a second.
    /// Default 60 s.
    pub header_timeout: Duration,
    /// HTTP/1 only: a connection that asks for nothing for so long, or twice, keeps no buffers until it does. Default 1 s.
    pub rest: Duration,
    /// Requests at a time on one HTTP/2 connection. Default 256.
    pub streams: u32,
    /// The head of a request, in bytes. Default 64 KiB.
    pub header_bytes: u32,
    /// HTTP/2 only: how long a connection is silent before it is asked whether it lives; twice as
    /// long without an answer ends it. Default 30 s.
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

/// A host and a port to listen on, as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    host: String,
    port: u16,
}

impl ListenAddress {
    /// The host as it was written, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 takes a free one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Binds it. `localhost` is 127.0.0.1 and ::1, where the machine has both, on one port.
    ///
    /// # Errors
    /// The name is unknown, or the port is taken or not allowed.
    pub fn bind(&self) -> io::Result<Vec<TcpListener>> {
        if self.host != "localhost" {
            let address = (self.host.as_str(), self.port)
                .to_socket_addrs()?
                .next()
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))?;
            return Ok(vec![bind(address)?]);
        }
        // A free IPv4 port may be taken for IPv6: another one is tried then.
        let mut attempts = if self.port == 0 { 16 } else { 1 };
        loop {
            attempts -= 1;
            let v4 = bind((Ipv4Addr::LOCALHOST, self.port).into())?;
            match bind((Ipv6Addr::LOCALHOST, v4.local_addr()?.port()).into()) {
                Ok(v6) => return Ok(vec![v4, v6]),
                Err(e) if e.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => return Err(e),
                // No IPv6 on this machine.
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
        // Neither a name nor an address; whoever cannot listen there would repeat it.
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

/// Why a text is no [`ListenAddress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// There is no colon.
    #[error("a port is missing: write HOST:PORT, such as localhost:3000 or 0.0.0.0:3000")]
    NoPort,
    /// The port is no number up to 65535.
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

/// Serves one listening socket until the drain is called: accepts, hands each connection to the
/// worker that has the fewest, which shakes hands and speaks HTTP/1.1 or HTTP/2 to `service`.
///
/// The [`ConnInfo`] is in each request's extensions. Returns when the socket is closed; the
/// connections are held by the drain.
///
/// # Errors
/// The socket cannot be registered with the runtime. An error of `accept` never ends the loop.
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
    // An embedder's may be a blocking one, which tokio refuses with a panic.
    socket.set_nonblocking(true)?;
    socket_options::before_accept(&SockRef::from(&socket))?;
    // Not tokio's listener: it would watch each connection here, before its worker does.
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
            // Only now: a permit that an idle socket waits with would be one less for its endpoint's other.
            Ok((tcp, remote, connection.limits.place(endpoint).await))
        };
        let next = tokio::select! {
            biased;
            () = stop.signaled() => {
                // Clients that the kernel has let in are served; it refuses those that come later.
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

/// Waits after a failed accept: not at all where one client went away, up to a second where the
/// process is out of descriptors or memory, so that it does not spin.
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
        // On the heap, so that it takes no memory of the connection's task once it is over.
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
        let memory = self.limits.memory.connection(drain.clone());
        let io = if accepted.h2 { io.limiting_frames(memory.clone()) } else { io };
        let left = async {
            lease.leave().await;
            sleep(LEAVE).await;
        };
        tokio::select! {
            ended = self.serve_connection(info, accepted.h2, io, memory, activity, &lease, drain) => {
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

    /// From a bare socket to a connection whose protocol is known; `None` where it ended before.
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
                debug!(endpoint, %remote, "no connection: a handshake that takes long makes room for others");
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
        mut drain: Drain,
    ) -> Result<(), String> {
        let Self { acceptor, service, limits } = self;
        // HTTP/2 has a word for it that loses nothing; HTTP/1 says it with its next answer.
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
            // A router is always ready (its `poll_ready` says so at once); a clone is a fresh one.
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
            // HTTP/2 has no deadline of its own for a client that asks for nothing.
            let never_asks = async {
                sleep(limits.header_timeout).await;
                if activity.has_begun() {
                    std::future::pending().await
                }
            };
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = never_asks => Ok(()),
                // GOAWAY (RFC 9113 §6.8): what was asked before is still answered.
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
                    // First, so that nothing is left to be done where it is quiet.
                    biased;
                    ended = connection.as_mut() => return ended.map_err(|e| e.to_string()),
                    () = closing_signal.as_mut() => closing = true,
                    seen = activity.wait_idle(&mut since, limits.rest, limits.header_timeout) => idle = seen,
                }
            }
            if closing {
                // The next answer is the last, and says so.
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
                    // Half a head, say, which is not waited for.
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
                        // A request may be on its way.
                        !lease.is_leaving() && timeout(LAST_REQUEST, io.readable()).await.is_ok()
                    }
                };
            if !more {
                // Who does not read is not waited for.
                let _ = timeout(LAST_WORD, io.shutdown()).await;
                return Ok(());
            }
        }
    }
}

/// What an HTTP/2 connection that was told to end still has to say. hyper waits for the first request of one however long
/// it takes, and for the client to acknowledge the GOAWAY.
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

/// Waits until a change of whom the endpoint trusts leaves this client out.
async fn distrusted(clients: Option<watch::Receiver<Arc<ClientAuthPolicy>>>, tls: Option<Arc<TlsInfo>>) {
    if let (Some(mut clients), Some(tls)) = (clients, tls) {
        while clients.changed().await.is_ok() {
            let trust = clients.borrow_and_update().clone();
            if !trust.still_trusted(tls.client.as_ref()) {
                // A client may ask on for a while: whoever decides about requests is to know.
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
    /// Waits for a place for one more connection. Where few are left, connections that do nothing make room.
    async fn place(&self, endpoint: &'static str) -> OwnedSemaphorePermit {
        let place = async {
            let place = tokio::select! {
                biased;
                own = self.connections.clone().acquire_owned() => own,
                spare = self.spare.clone().acquire_owned() => spare,
            };
            place.expect("nobody closes the semaphores")
        };
        let mut place = pin!(place);
        loop {
            if let Ok(place) = timeout(self.relieve(endpoint), place.as_mut()).await {
                return place;
            }
        }
    }

    /// A place for one more connection, where there is one.
    fn try_place(&self) -> Option<OwnedSemaphorePermit> {
        let own = self.connections.clone().try_acquire_owned();
        own.or_else(|_| self.spare.clone().try_acquire_owned()).ok()
    }

    /// Has connections make room where there are too few places, or too many handshakes. Returns when to look again.
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
        // Its own timer is made again for each request; `Activity` has one for them all.
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
