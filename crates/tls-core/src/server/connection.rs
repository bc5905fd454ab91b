//! One connection from its first byte to its last: handshake, requests, and a close that loses no request.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use metrics::gauge;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower_service::Service;
use tracing::debug;

use super::body::RequestBody;
use super::connection_table::Lease;
use super::drain::Drain;
use super::idle::{Activity, Idle};
use super::limits::Limits;
use super::lingering_close::LingeringIo;
use super::request_memory::{CONNECTION_WINDOW, ConnectionMemory};
use super::{buf_list, socket_options};
use crate::acceptor::{Accepted, Acceptor};
use crate::client_auth::ClientAuthPolicy;
use crate::conn_info::{ConnInfo, TlsInfo};

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

/// How long the shutdown of an idle connection may take.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The state that all connections of an endpoint share.
#[derive(Clone)]
pub(super) struct Connection<S> {
    pub(super) acceptor: Acceptor,
    pub(super) service: S,
    pub(super) limits: Limits,
}

impl<S, B> Connection<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) async fn run(
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
                    debug!(endpoint, %error, "connection ended");
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
    ) -> hyper::Result<()> {
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
            return ended;
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
                    ended = connection.as_mut() => return ended,
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
                    ended = connection.as_mut() => return ended,
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
