//! Turns a TCP connection into a TLS connection: distinguishes TLS from plain text by the first bytes, completes the
//! handshake within a deadline, answers plain text in its own protocol, and counts how each attempt ends.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use metrics::{counter, histogram};
use rustls::{HandshakeKind, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout_at;
use tokio_rustls::LazyConfigAcceptor;

use crate::conn_info::{ClientCertificate, TlsInfo};
use crate::prefixed_io::{Io, PrefixedIo, TooManyRecords};
use crate::tls_options::{CipherPreference, ServerTls};
use crate::{plaintext_reply, proxy_protocol};

/// The first byte of every TLS connection: a handshake record (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// The first bytes of HTTP/2 with prior knowledge (RFC 9113 §3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Size of the first read: enough for a ClientHello with a post-quantum key share, or a small request.
const FIRST_BYTES: usize = 2 * 1024;

/// A record with the fatal alert `unrecognized_name` (RFC 6066 §3, RFC 8446 §6), sent before anything is encrypted.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Limit for TLS data that waits for a slow socket. rustls' default of 64 KiB causes four times as many `writev` calls.
const TLS_BUFFER: usize = 256 * 1024;

/// Performs the handshakes of one endpoint.
#[derive(Clone)]
pub struct Acceptor {
    tls: Option<ServerTls>,
    endpoint: &'static str,
    proxied: bool,
}

impl Acceptor {
    /// Creates an acceptor that speaks TLS.
    pub fn tls(endpoint: &'static str, tls: ServerTls) -> Self {
        Self { tls: Some(tls), endpoint, proxied: false }
    }

    /// Creates an acceptor for an endpoint without TLS, which only waits for the first bytes.
    pub fn plain(endpoint: &'static str) -> Self {
        Self { tls: None, endpoint, proxied: false }
    }

    /// Requires every connection to begin with a PROXY protocol header, version 2, in which the proxy names the client.
    /// A connection without the header is closed.
    #[must_use]
    pub fn behind_proxy(self) -> Self {
        Self { proxied: true, ..self }
    }

    /// Returns the endpoint that this acceptor serves.
    pub fn endpoint(&self) -> &'static str {
        self.endpoint
    }

    /// Returns true if this acceptor speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Watches which client certificates are trusted; `None` without TLS.
    #[cfg(feature = "serve")]
    pub(crate) fn clients(&self) -> Option<tokio::sync::watch::Receiver<Arc<crate::ClientAuthPolicy>>> {
        self.tls.as_ref().map(ServerTls::clients)
    }

    /// Advances a connection to the point where its protocol begins.
    ///
    /// # Errors
    /// Fails if the client sends nothing, if it sends plain text to a TLS port (it has been answered by then), or if
    /// the handshake fails or takes longer than `deadline`.
    pub async fn accept(&self, tcp: TcpStream, deadline: Duration) -> Result<Accepted, HandshakeError> {
        let started = Instant::now();
        let end = tokio::time::Instant::now() + deadline;
        let outcome = match timeout_at(end, self.handshake(tcp)).await {
            Ok(Ok(accepted)) => Ok(accepted),
            Ok(Err(Refusal::Failed(error))) => Err(error),
            Ok(Err(Refusal::PlainText { first, tcp })) => {
                // The reply has its own timeout, so that it is sent even after the deadline.
                Err(HandshakeError::PlainText { protocol: plaintext_reply::reply(first, tcp, self.endpoint).await })
            }
            Err(_) => Err(HandshakeError::Deadline(deadline)),
        };
        if self.is_tls() {
            self.count(&outcome, started.elapsed());
        }
        outcome
    }

    async fn handshake(&self, mut tcp: TcpStream) -> Result<Accepted, Refusal> {
        let remote = match self.proxied {
            true => proxy_protocol::read(&mut tcp).await.map_err(HandshakeError::NoProxy)?,
            false => None,
        };
        let Some(tls) = &self.tls else {
            let first = first_bytes(&mut tcp, H2_PREFACE.len()).await?;
            let h2 = first.starts_with(H2_PREFACE);
            return Ok(Accepted { io: Io::Plain(PrefixedIo::new(first, tcp)), h2, tls: None, remote });
        };
        let first = first_bytes(&mut tcp, 1).await?;
        if first.first() != Some(&TLS_HANDSHAKE) {
            return Err(Refusal::PlainText { first, tcp });
        }
        let mut hello = LazyConfigAcceptor::new(Default::default(), PrefixedIo::new(first, tcp).limiting_records());
        let mut hello = match (&mut hello).await {
            Ok(hello) => hello,
            Err(error) => {
                if let Some(alert) = hello.take_io().and_then(|io| alert(&error).map(|alert| (io, alert))) {
                    send_alert(alert.0, alert.1).await;
                }
                return Err(HandshakeError::Failed(error).into());
            }
        };
        if !tls.answers(hello.client_hello().server_name()) {
            // The client may have disconnected; the connection is refused either way.
            let _ = hello.io.write_all(&UNRECOGNIZED_NAME).await;
            let _ = hello.io.shutdown().await;
            return Err(HandshakeError::UnknownName.into());
        }
        let order = CipherPreference::of(hello.client_hello().cipher_suites());
        let config = tls.config(order).map_err(|e| HandshakeError::Failed(io::Error::other(e)))?;
        let mut came_with_it = Ok(());
        let mut handshake = hello.into_stream_with(config, |connection| {
            connection.set_buffer_limit(Some(TLS_BUFFER));
            // Processes data that follows the ClientHello in the same segment; otherwise it would wait for the next
            // read.
            came_with_it = connection.process_new_packets().map(drop);
        });
        if let Err(error) = came_with_it {
            // Sends the alert, as far as the socket accepts it immediately.
            let _ = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut handshake).poll(cx))).await;
            return Err(HandshakeError::Failed(io::Error::new(io::ErrorKind::InvalidData, error)).into());
        }
        let mut stream = handshake.await.map_err(HandshakeError::Failed)?;
        stream.get_mut().0.end_handshake();
        let (_, connection) = stream.get_ref();
        let client = match connection.peer_certificates() {
            Some(chain) => {
                let read = ClientCertificate::read(chain.iter().map(|der| der.clone().into_owned()).collect());
                Some(read.map_err(|e| HandshakeError::Failed(io::Error::other(e)))?)
            }
            None => None,
        };
        // A ticket is bound to the set of trusted clients but not to the time: a revocation list may have expired
        // since.
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        if resumed && client.is_some() && !tls.clients().borrow().still_trusted(client.as_ref()) {
            let reason = "the client certificate of a resumed session is no longer accepted";
            return Err(HandshakeError::Failed(io::Error::new(io::ErrorKind::PermissionDenied, reason)).into());
        }
        let info = TlsInfo {
            version: version_text(connection.protocol_version()),
            cipher: connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).map(str::to_owned),
            group: connection.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name())),
            server_name: connection.server_name().map(str::to_owned),
            alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
            resumed,
            client,
        };
        let h2 = info.alpn.as_deref() == Some(b"h2");
        Ok(Accepted { io: Io::Tls(Box::new(stream)), h2, tls: Some(Arc::new(info)), remote })
    }

    fn count(&self, outcome: &Result<Accepted, HandshakeError>, took: Duration) {
        let (result, version, resumed) = match outcome {
            Ok(Accepted { tls: Some(info), .. }) => ("ok", info.version, info.resumed),
            Ok(_) => return,
            Err(e) => (e.result(), "none", false),
        };
        let endpoint = self.endpoint;
        let resumed = if resumed { "true" } else { "false" };
        counter!("spiced_tls_handshakes_total", "endpoint" => endpoint, "result" => result, "version" => version, "resumed" => resumed)
            .increment(1);
        if result == "ok" {
            histogram!("spiced_tls_handshake_seconds", "endpoint" => endpoint).record(took.as_secs_f64());
        }
    }
}

/// A connection that is ready for its protocol.
#[derive(Debug)]
pub struct Accepted {
    /// The byte stream.
    pub io: Io,
    /// True if the connection speaks HTTP/2: by ALPN, or by the preface on an endpoint without TLS.
    pub h2: bool,
    /// The result of the TLS handshake.
    pub tls: Option<Arc<TlsInfo>>,
    /// The client's address, if a proxy named one.
    pub remote: Option<SocketAddr>,
}

/// Why a connection failed before its protocol began.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The client closed or broke the connection before it sent anything.
    #[error("the client disconnected before it sent anything")]
    Silent,
    /// The handshake did not finish before the deadline.
    #[error("no handshake within {0:?}")]
    Deadline(Duration),
    /// The client sent plain text to a TLS port, and has been answered.
    #[error("plain text ({protocol}) on a TLS port")]
    PlainText {
        /// `http/1`, `h2` or `unknown`.
        protocol: &'static str,
    },
    /// The endpoint is behind a proxy, and the connection does not begin with a PROXY protocol header.
    #[error("no PROXY protocol header: {0}")]
    NoProxy(io::Error),
    /// No certificate matches the name that the client requested, or it requested none, and strict SNI refuses both.
    #[error("no certificate covers the name that the client requests (strict_sni)")]
    UnknownName,
    /// TLS failed: no common version, an alert from the client, or a malformed record.
    #[error("{0}")]
    Failed(io::Error),
}

impl HandshakeError {
    /// Returns the value of the label `result` of `spiced_tls_handshakes_total`.
    pub fn result(&self) -> &'static str {
        match self {
            Self::Silent => "closed",
            Self::Deadline(_) => "timeout",
            Self::PlainText { .. } => "plaintext",
            Self::NoProxy(_) => "no_proxy_header",
            Self::UnknownName => "unknown_name",
            Self::Failed(error) => failure(error),
        }
    }
}

/// Classifies a TLS failure.
fn failure(error: &io::Error) -> &'static str {
    use rustls::CertificateError as Bad;
    use rustls::PeerIncompatible as Peer;
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => "reset",
            io::ErrorKind::PermissionDenied => "bad_client_certificate",
            _ => "failed",
        };
    };
    match tls {
        rustls::Error::PeerIncompatible(
            Peer::ServerTlsVersionIsDisabledByOurConfig
            | Peer::SupportedVersionsExtensionRequired
            | Peer::Tls12NotOffered
            | Peer::Tls12NotOfferedOrEnabled
            | Peer::Tls13RequiredForQuic,
        ) => "no_shared_version",
        rustls::Error::PeerIncompatible(_) => "no_shared_cipher",
        rustls::Error::NoCertificatesPresented => "no_client_certificate",
        rustls::Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => "client_certificate_expired",
        rustls::Error::InvalidCertificate(Bad::Revoked) => "client_certificate_revoked",
        rustls::Error::InvalidCertificate(_) | rustls::Error::InvalidCertRevocationList(_) => "bad_client_certificate",
        // For example, the client does not trust the server's certificate.
        rustls::Error::AlertReceived(_) => "refused_by_client",
        _ => "failed",
    }
}

/// Returns the fatal alert for an invalid ClientHello, if rustls has sent none.
fn alert(error: &io::Error) -> Option<u8> {
    const UNEXPECTED_MESSAGE: u8 = 10;
    const RECORD_OVERFLOW: u8 = 22;
    const DECODE_ERROR: u8 = 50;
    let error = error.get_ref()?;
    if error.is::<TooManyRecords>() {
        return Some(DECODE_ERROR);
    }
    match error.downcast_ref::<rustls::Error>()? {
        rustls::Error::InappropriateMessage { .. } | rustls::Error::InappropriateHandshakeMessage { .. } => {
            Some(UNEXPECTED_MESSAGE)
        }
        rustls::Error::PeerSentOversizedRecord => Some(RECORD_OVERFLOW),
        rustls::Error::InvalidMessage(_) => Some(DECODE_ERROR),
        _ => None,
    }
}

/// Sends a fatal alert (RFC 8446 §6) before anything is encrypted, unless one was already sent.
async fn send_alert(mut io: PrefixedIo, description: u8) {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    if io.has_written() {
        return;
    }
    // The client may have disconnected.
    let _ = io.write_all(&[ALERT, 3, 3, 0, 2, FATAL, description]).await;
    let _ = io.shutdown().await;
}

/// How an attempt ends that yields no connection.
enum Refusal {
    Failed(HandshakeError),
    /// Plain text that has not been answered yet.
    PlainText {
        first: Bytes,
        tcp: TcpStream,
    },
}

impl From<HandshakeError> for Refusal {
    fn from(error: HandshakeError) -> Self {
        Self::Failed(error)
    }
}

/// Reads until the protocol is known: `enough` bytes, or the first bytes that differ from the preface. The result may
/// include bytes that arrived with them.
async fn first_bytes(tcp: &mut TcpStream, enough: usize) -> Result<Bytes, HandshakeError> {
    let mut first = BytesMut::with_capacity(FIRST_BYTES);
    loop {
        match tcp.read_buf(&mut first).await {
            Ok(0) | Err(_) if first.is_empty() => return Err(HandshakeError::Silent),
            Err(e) => return Err(HandshakeError::Failed(e)),
            Ok(0) => return Ok(first.freeze()),
            Ok(_) if first.len() >= enough || !H2_PREFACE.starts_with(&first) => {
                return Ok(first.freeze());
            }
            Ok(_) => {}
        }
    }
}

fn version_text(version: Option<ProtocolVersion>) -> &'static str {
    match version {
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        Some(ProtocolVersion::TLSv1_3) => "1.3",
        _ => "none",
    }
}
