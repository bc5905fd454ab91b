//! Both ends of a TLS connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, DEFAULT_VERSIONS, RootCertStore, SupportedProtocolVersion};
use tls_core::rotation::Identities;
use tls_core::{Acceptor, TlsOptions, provider};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::Pair;

/// Creates the TLS acceptor of an endpoint named `test`.
pub fn acceptor(identities: Identities) -> Acceptor {
    Acceptor::tls("test", TlsOptions::random().unwrap().server(identities).unwrap())
}

/// Creates a client that trusts `root` and keeps its tickets.
pub fn client(root: &CertificateDer<'static>) -> Arc<ClientConfig> {
    client_with(root, None, DEFAULT_VERSIONS)
}

/// Creates a client that speaks these versions of TLS, and presents a certificate if there is one.
pub fn client_with(
    root: &CertificateDer<'static>,
    presents: Option<Pair>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    let config = config.with_root_certificates(roots);
    Arc::new(match presents {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    })
}

/// Connects to `localhost` at `address`.
///
/// # Errors
/// Fails if the server refuses the connection or the handshake.
pub async fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    connect_after(address, config, b"").await
}

/// Connects as [`connect`] does, after it has sent `first` in plain text.
///
/// # Errors
/// Fails if the server refuses the connection or the handshake.
pub async fn connect_after(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    first: &[u8],
) -> io::Result<TlsStream<TcpStream>> {
    let mut tcp = TcpStream::connect(address).await?;
    tcp.write_all(first).await?;
    TlsConnector::from(config.clone()).connect(ServerName::try_from("localhost").unwrap(), tcp).await
}

/// Posts `body` to `path` and returns the whole response, with its head. The connection then ends.
///
/// # Errors
/// Fails if the connection breaks off.
pub async fn post<S: AsyncReadExt + AsyncWriteExt + Unpin>(
    stream: &mut S,
    path: &str,
    body: &str,
) -> io::Result<String> {
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Sends a request for `/`, and reads the response to the end of its body, which it returns. The connection can be used
/// again. With TLS 1.3, a client learns only here that the server refuses its certificate.
///
/// # Errors
/// Fails if the connection breaks off.
pub async fn exchange<S: AsyncReadExt + AsyncWriteExt + Unpin>(stream: &mut S) -> io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
    let mut answer = Vec::new();
    loop {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.to_lowercase().split("content-length: ").nth(1).and_then(|l| l.lines().next()?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Ok(body.to_owned());
            }
        }
    }
}
