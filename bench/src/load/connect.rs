//! A client's connection, in plain text or over TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Outcome;
use crate::certificate::NAME;

/// The transport of a connection.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Connects, with a TLS handshake if `tls` is set. The kind of handshake is `None` in plain text.
pub(crate) async fn connect(
    address: SocketAddr,
    tls: Option<&Arc<ClientConfig>>,
) -> Outcome<(Box<dyn Io>, Option<HandshakeKind>)> {
    connect_to(address, tls, NAME).await
}

/// Connects as [`connect`] does, and requests `name` by SNI.
pub(crate) async fn connect_to(
    address: SocketAddr,
    tls: Option<&Arc<ClientConfig>>,
    name: &str,
) -> Outcome<(Box<dyn Io>, Option<HandshakeKind>)> {
    let tcp = TcpStream::connect(address).await.map_err(|e| format!("{address}: {e}"))?;
    tcp.set_nodelay(true).map_err(|e| e.to_string())?;
    let Some(config) = tls else { return Ok((Box::new(tcp), None)) };
    let name = ServerName::try_from(name.to_owned()).map_err(|e| format!("{name}: {e}"))?;
    let stream = TlsConnector::from(config.clone()).connect(name, tcp).await;
    let stream = stream.map_err(|e| format!("{address}: handshake: {e}"))?;
    let kind = stream.get_ref().1.handshake_kind();
    Ok((Box::new(stream), kind))
}
