//! Connects to an endpoint: TCP, then TLS or plain text, within one deadline.
//!
//! Without a scheme, TLS is tried first. Plain text is used only if the connection cannot leave this machine and no
//! option asks for TLS. Once a connection has used TLS, later ones use TLS too, so an attacker on the network cannot
//! downgrade the client to plain text.

pub(crate) mod endpoint;
pub(crate) mod error;
pub(crate) mod session;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use spiced_certs::outbound::{ClientTls, ClientTlsError, HandshakeObserver, Refusal};
use tls_core::CertificateSummary;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::args::Reach;
use crate::connect::endpoint::{Endpoint, Requested};
use crate::connect::error::Unreachable;

/// How long a connection may be idle before keep-alive probes check that the peer is still there.
const IDLE: Duration = Duration::from_secs(30);

/// Makes connections to one server.
pub(crate) struct Dialer {
    endpoint: Endpoint,
    tls: Result<Tls, ClientTlsError>,
    plain_allowed: bool,
    timeout: Duration,
    /// The protocol of the first connection that worked.
    settled: OnceLock<Requested>,
    latest: watch::Sender<Option<Arc<Link>>>,
}

struct Tls {
    config: Arc<ClientConfig>,
    observer: HandshakeObserver,
}

/// The properties of a connection.
#[derive(Debug)]
pub(crate) struct Link {
    /// The endpoint that was reached, with the scheme that was used.
    pub(crate) endpoint: Endpoint,
    pub(crate) tls: Option<LinkTls>,
    /// The TLS alert that ended the connection after the handshake: a TLS 1.3 server refuses a client certificate only
    /// then.
    refused: Mutex<Option<Refusal>>,
}

/// The result of the handshake.
#[derive(Debug)]
pub(crate) struct LinkTls {
    pub(crate) version: String,
    pub(crate) cipher: String,
    pub(crate) group: String,
    pub(crate) certificate: Option<CertificateSummary>,
}

impl Link {
    /// Returns why TLS ended the connection, if it did.
    pub(crate) fn refused(&self) -> Option<Refusal> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Dialer {
    /// Loads the TLS configuration.
    ///
    /// # Errors
    /// Fails if the configuration cannot be loaded, unless plain text may be used instead.
    pub(crate) fn new(reach: &Reach) -> Result<Self, ClientTlsError> {
        let Reach { endpoint, tls, tls_asked, timeout, .. } = reach;
        let plain_allowed = endpoint.asked == Requested::TlsFirst && endpoint.is_loopback() && !tls_asked;
        let tls = Tls::new(tls.clone());
        match &tls {
            // Without trusted roots, plain text on this machine may still work.
            Err(ClientTlsError::NoAuthority { .. }) if plain_allowed => {}
            Err(error) if endpoint.asked != Requested::Plain => return Err(error.clone()),
            _ => {}
        }
        let (settled, (latest, _)) = (OnceLock::new(), watch::channel(None));
        Ok(Self { endpoint: endpoint.clone(), tls, plain_allowed, timeout: *timeout, settled, latest })
    }

    /// Returns the most recent connection.
    pub(crate) fn latest(&self) -> Option<Arc<Link>> {
        self.latest.borrow().clone()
    }

    /// Connects to the server.
    ///
    /// # Errors
    /// Fails if the server cannot be reached; the error states why.
    pub(crate) async fn connect(&self) -> Result<Connection, Unreachable> {
        let asked = self.settled.get().copied().unwrap_or(self.endpoint.asked);
        let line = match asked {
            Requested::Plain => self.within(self.plain(false)).await?,
            Requested::Tls => self.within(self.secure()).await?,
            Requested::TlsFirst => match self.within(self.secure()).await {
                Err(Unreachable::SpeaksPlain { .. } | Unreachable::Unset(ClientTlsError::NoAuthority { .. }))
                    if self.plain_allowed =>
                {
                    self.within(self.plain(true)).await?
                }
                other => other?,
            },
        };
        // A concurrent connection may have settled it already. Both agree, or a later one fails.
        let _ = self.settled.set(line.link.endpoint.asked);
        self.latest.send_replace(Some(Arc::clone(&line.link)));
        Ok(line)
    }

    /// Returns whether the server speaks TLS, whatever the scheme: it answers a handshake with TLS, even with an alert.
    pub(crate) async fn speaks_tls(&self) -> bool {
        match self.within(self.secure()).await {
            Ok(_) => true,
            Err(Unreachable::Tls { refusal, .. }) => !matches!(refusal, Refusal::Closed | Refusal::Other(_)),
            Err(_) => false,
        }
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, Unreachable>>) -> Result<T, Unreachable> {
        let late = || Unreachable::Late { endpoint: self.endpoint.clone(), after: self.timeout };
        timeout(self.timeout, work).await.unwrap_or_else(|_| Err(late()))
    }

    async fn tcp(&self) -> Result<TcpStream, Unreachable> {
        let Endpoint { host, port, .. } = &self.endpoint;
        let addresses = tokio::net::lookup_host((host.as_str(), *port)).await;
        let unknown = |reason: String| Unreachable::UnknownHost { host: host.clone(), reason };
        let addresses: Vec<_> = addresses.map_err(|e| unknown(e.to_string()))?.collect();
        if addresses.is_empty() {
            return Err(unknown("it has no address".to_owned()));
        }
        let tcp = TcpStream::connect(addresses.as_slice()).await;
        let tcp = tcp.map_err(|cause| Unreachable::Tcp {
            endpoint: self.endpoint.clone(),
            kind: cause.kind(),
            reason: cause.to_string(),
        })?;
        // Statements are small, and a user waits for each.
        let _ = tcp.set_nodelay(true);
        // A server that vanishes during a query is detected within two minutes.
        let keepalive = TcpKeepalive::new().with_time(IDLE).with_interval(IDLE).with_retries(3);
        let _ = SockRef::from(&tcp).set_tcp_keepalive(&keepalive);
        Ok(tcp)
    }

    /// Connects in plain text; with `here`, only to this machine, because a name may resolve to any address.
    async fn plain(&self, here: bool) -> Result<Connection, Unreachable> {
        let tcp = self.tcp().await?;
        let endpoint = self.endpoint.to(Requested::Plain, &self.endpoint.host);
        if here && !tcp.peer_addr().is_ok_and(|peer| peer.ip().is_loopback()) {
            return Err(Unreachable::SpeaksPlain { endpoint });
        }
        Ok(Connection { io: Box::new(tcp), link: Arc::new(Link { endpoint, tls: None, refused: Mutex::default() }) })
    }

    async fn secure(&self) -> Result<Connection, Unreachable> {
        let Tls { config, observer } = self.tls.as_ref().map_err(|e| Unreachable::Unset(e.clone()))?;
        let endpoint = self.endpoint.to(Requested::Tls, &self.endpoint.host);
        let name = ServerName::try_from(endpoint.host.clone()).map_err(|_| Unreachable::UnknownHost {
            host: endpoint.host.clone(),
            reason: "it is no host name".to_owned(),
        })?;
        let tcp = self.tcp().await?;
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await.map_err(|error| {
            match Refusal::of_io(&error, observer) {
                Refusal::PlainText => Unreachable::SpeaksPlain { endpoint: endpoint.clone() },
                refusal => Unreachable::Tls { endpoint: endpoint.clone(), refusal },
            }
        })?;
        let (_, connection) = stream.get_ref();
        if let Some(other) = connection.alpn_protocol().filter(|alpn| *alpn != b"h2") {
            return Err(Unreachable::NotFlight {
                endpoint,
                reason: format!("it speaks {}", String::from_utf8_lossy(other)),
            });
        }
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        let tls = LinkTls {
            version: connection.protocol_version().and_then(|v| v.as_str()).unwrap_or("?").replace("TLSv1_", "TLS 1."),
            cipher: connection
                .negotiated_cipher_suite()
                .map_or_else(String::new, |suite| format!("{:?}", suite.suite())),
            group: connection
                .negotiated_key_exchange_group()
                .map_or_else(String::new, |group| format!("{:?}", group.name())),
            certificate: certificate.and_then(|der| CertificateSummary::read(der).ok()),
        };
        let link = Arc::new(Link { endpoint, tls: Some(tls), refused: Mutex::default() });
        let heard =
            AlertCapturingStream { stream, link: Arc::clone(&link), observer: observer.clone(), answered: false };
        Ok(Connection { io: Box::new(heard), link })
    }
}

impl Tls {
    fn new(tls: ClientTls) -> Result<Self, ClientTlsError> {
        let (config, observer) = tls.observed(&["h2"])?;
        Ok(Self { config, observer })
    }
}

/// A connection, ready for HTTP/2.
pub(crate) struct Connection {
    pub(crate) io: Box<dyn Io>,
    pub(crate) link: Arc<Link>,
}

/// The transport of a connection.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Records the TLS alert that ends a connection, which the layers above only see as text. A TLS 1.3 server checks the
/// client certificate after the client has completed its handshake.
struct AlertCapturingStream {
    stream: TlsStream<TcpStream>,
    link: Arc<Link>,
    observer: HandshakeObserver,
    /// Whether the server has sent data since the handshake, which means that it has accepted the client.
    answered: bool,
}

impl AlertCapturingStream {
    fn hear(&self, refusal: Refusal) {
        if !self.answered && refusal != Refusal::Closed {
            *self.link.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
        }
    }

    /// Reads the pending alert after a failed write. A server that refuses a client sends an alert and closes; the
    /// write then fails while the alert is still unread, and the layers above do not read any more. So this reads to
    /// the end of the stream, which is near on a broken connection.
    fn wrote<T>(&mut self, polled: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let error = match polled {
            Poll::Ready(Err(error)) if !self.answered => error,
            other => return other,
        };
        let mut bytes = [0; 1024];
        loop {
            match self.read(cx, &mut ReadBuf::new(&mut bytes)) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(_) => return Poll::Ready(Err(error)),
                // The next write fails in the same way.
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Reads, and returns whether any data arrived.
    fn read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = buf.filled().len() > before;
        match &polled {
            Poll::Ready(Ok(())) if read => self.answered = true,
            Poll::Ready(Ok(())) => self.hear(Refusal::of_end(&self.observer)),
            Poll::Ready(Err(error)) => self.hear(Refusal::of_io(error, &self.observer)),
            Poll::Pending => {}
        }
        polled.map_ok(|()| read)
    }
}

impl AsyncRead for AlertCapturingStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.read(cx, buf).map_ok(|_| ())
    }
}

impl AsyncWrite for AlertCapturingStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(polled, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.wrote(polled, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
