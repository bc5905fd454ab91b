//! What is known of a connection; a door's handlers find it in the request's extensions.

use std::net::SocketAddr;
use std::sync::Arc;

/// One connection, as the accept loop saw it.
#[derive(Debug, Clone)]
pub struct ConnInfo {
    /// The door: `http`, `flight`, `grpc`, `metrics` or `probe`.
    pub endpoint: &'static str,
    /// The other end.
    pub remote: SocketAddr,
    /// This end.
    pub local: SocketAddr,
    /// What the handshake agreed on; `None` on a door without TLS.
    pub tls: Option<Arc<TlsInfo>>,
}

/// What a handshake agreed on.
#[derive(Debug, Clone)]
pub struct TlsInfo {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// The cipher suite, by its IANA name as rustls writes it.
    pub cipher: Option<String>,
    /// The key exchange group.
    pub group: Option<String>,
    /// The name the client asked for (RFC 6066 §3).
    pub server_name: Option<String>,
    /// The application protocol (RFC 7301): `h2`, `http/1.1`, or none.
    pub alpn: Option<Vec<u8>>,
    /// True where the session was resumed from a ticket.
    pub resumed: bool,
}
