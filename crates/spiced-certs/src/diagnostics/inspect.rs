//! Inspects what a server on the network presents: performs handshakes, and disconnects.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, ServerName};
use tls_core::provider;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::handshake::AnyChain;

/// The timeout of a connection and its handshake.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for the session tickets, which a TLS 1.3 server sends after the handshake.
const TICKETS: Duration = Duration::from_millis(500);

/// A protocol that begins without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartTls {
    /// PostgreSQL's SSLRequest.
    Postgres,
}

/// The result of the inspection.
#[derive(Debug)]
pub struct Inspected {
    /// The certificates, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The version of TLS that was negotiated.
    pub version: &'static str,
    /// The cipher suite.
    pub cipher: String,
    /// The key exchange group.
    pub group: String,
    /// The protocol that was negotiated with ALPN.
    pub alpn: Option<String>,
    /// Whether the server resumes sessions.
    pub resumed: bool,
    /// The versions that the server supports.
    pub versions: Vec<&'static str>,
}

/// Connects to a server, trusting nothing and sending no request, and returns what it presents.
///
/// # Errors
/// Fails if there is no connection, or if the handshake fails.
pub async fn inspect(host: &str, port: u16, start: Option<StartTls>) -> io::Result<Inspected> {
    let both: [&'static SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    let config = Arc::new(configured(&both)?);
    let mut first = handshake(host, port, start, config.clone()).await?;
    // Session tickets arrive now, if at all; any other data is ignored.
    let _ = timeout(TICKETS, first.read(&mut [0; 1])).await;
    let (_, connection) = first.get_ref();
    let chain = connection.peer_certificates().unwrap_or_default();
    let mut seen = Inspected {
        chain: chain.iter().map(|der| der.clone().into_owned()).collect(),
        version: version(connection.protocol_version()),
        cipher: connection
            .negotiated_cipher_suite()
            .and_then(|suite| suite.suite().as_str())
            .unwrap_or_default()
            .to_owned(),
        group: connection.negotiated_key_exchange_group().map(|g| format!("{:?}", g.name())).unwrap_or_default(),
        alpn: connection.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
        resumed: false,
        versions: Vec::new(),
    };
    drop(first);
    if let Ok(second) = handshake(host, port, start, config).await {
        seen.resumed = second.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
    }
    for (one, name) in [(&TLS13, "1.3"), (&TLS12, "1.2")] {
        if handshake(host, port, start, Arc::new(configured(&[one])?)).await.is_ok() {
            seen.versions.push(name);
        }
    }
    Ok(seen)
}

/// Returns a configuration for inspection only: it accepts every chain, so no secret may be sent over the connection.
fn configured(versions: &[&'static SupportedProtocolVersion]) -> io::Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions);
    let mut config = builder
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyChain::new()))
        .with_no_client_auth();
    config.alpn_protocols = ["h2", "http/1.1"].map(|name| name.as_bytes().to_vec()).into();
    Ok(config)
}

async fn handshake(
    host: &str,
    port: u16,
    start: Option<StartTls>,
    config: Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let bare = host.trim_matches(['[', ']']);
    let name = ServerName::try_from(bare.to_owned())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("`{bare}` is not the name of a server")))?;
    let shaking = async {
        let mut tcp = TcpStream::connect((bare, port)).await?;
        if let Some(StartTls::Postgres) = start {
            ask_postgres(&mut tcp).await?;
        }
        TlsConnector::from(config).connect(name, tcp).await
    };
    timeout(TIMEOUT, shaking)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no handshake within 10 s")))
}

/// Sends PostgreSQL's SSLRequest and reads the response, a single letter.
async fn ask_postgres(tcp: &mut TcpStream) -> io::Result<()> {
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    tcp.write_all(&SSL_REQUEST).await?;
    match tcp.read_u8().await? {
        b'S' => Ok(()),
        b'N' => Err(io::Error::other("this PostgreSQL does not support TLS (ssl = off)")),
        _ => Err(io::Error::other("the server does not respond as PostgreSQL does")),
    }
}

fn version(version: Option<ProtocolVersion>) -> &'static str {
    match version {
        Some(ProtocolVersion::TLSv1_3) => "1.3",
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        _ => "none",
    }
}
