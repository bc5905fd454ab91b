//! `spiced tls inspect`: shows what a server on the network presents, and the doctor's findings. Performs the handshake
//! and disconnects; trusts nothing and sends no request.

use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, SupportedProtocolVersion};
use serde_json::{Value, json};
use spiced_certs::{Presented, no_verify};
use tls_core::CertificateSummary;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::args::{StartTls, TlsInspectArgs, host};
use crate::commands::tls_check::{accepted, colours, findings, takers};
use crate::commands::{print, runtime};
use crate::failure::Failure;
use crate::observe::status::date;

/// The timeout of a connection and its handshake.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for the session tickets, which a TLS 1.3 server sends after the handshake.
const TICKETS: Duration = Duration::from_millis(500);

/// Exit code: there is a finding at error level.
const BAD: u8 = 1;

pub(crate) fn run(args: &TlsInspectArgs) -> Result<(), Failure> {
    let (host, port) = address(&args.address)?;
    let runtime = runtime()?;
    let seen = runtime.block_on(look(&host, port, args.starttls));
    runtime.shutdown_background();
    let seen =
        seen.map_err(|error| Failure::Output { text: format!("error: {}: {error}\n", args.address), code: BAD })?;
    let mut names = args.name.clone();
    if names.is_empty() {
        names.push(host.trim_matches(['[', ']']).to_owned());
    }
    let presented = Presented::of(&seen.chain, &args.address, &names, SystemTime::now());
    let presented = presented.map_err(|error| Failure::Other(format!("{}: {error}", args.address)))?;
    let text = if args.json {
        format!("{:#}\n", in_json(&seen, &presented))
    } else {
        in_words(&args.address, &seen, &presented)
    };
    if presented.findings.iter().any(|finding| finding.fails(false)) {
        return Err(Failure::Output { text, code: BAD });
    }
    print(&text)
}

fn address(text: &str) -> Result<(String, u16), Failure> {
    let parsed = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match parsed {
        Some((name, port)) if host(name).is_ok() => Ok((name.to_owned(), port)),
        // The argument is not repeated, because it may be a key by mistake.
        _ => Err(Failure::Usage(
            "error: the argument is not HOST:PORT\nhint: such as localhost:3000, or [::1]:3000; no scheme and no path\n"
                .to_owned(),
        )),
    }
}

/// The result of the inspection.
struct Inspected {
    chain: Vec<CertificateDer<'static>>,
    version: &'static str,
    cipher: String,
    group: String,
    alpn: Option<String>,
    resumed: bool,
    /// The other versions that the server supports.
    versions: Vec<&'static str>,
}

async fn look(host: &str, port: u16, start: Option<StartTls>) -> io::Result<Inspected> {
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

fn configured(versions: &[&'static SupportedProtocolVersion]) -> io::Result<ClientConfig> {
    no_verify(&["h2", "http/1.1"], versions).map_err(io::Error::other)
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

fn in_json(seen: &Inspected, presented: &Presented) -> Value {
    json!({
        "tls": {
            "version": seen.version,
            "versions": seen.versions,
            "cipher": seen.cipher,
            "group": seen.group,
            "alpn": seen.alpn,
            "resumed": seen.resumed,
        },
        "chain": presented.chain,
        "trusted": presented.trusted.is_ok(),
        "findings": presented.findings,
        "accepted_by": accepted(&presented.accepted_by),
    })
}

fn in_words(address: &str, seen: &Inspected, presented: &Presented) -> String {
    let mut out = String::new();
    let alpn = seen.alpn.as_deref().map_or("no ALPN".to_owned(), |name| format!("ALPN {name}"));
    let resumed = if seen.resumed { "sessions are resumed" } else { "sessions are not resumed" };
    let _ = writeln!(
        out,
        "{address} speaks TLS {}: {} now, {}, {}, {alpn}; {resumed}",
        seen.versions.join(" and "),
        seen.version,
        seen.cipher,
        seen.group,
    );
    for (at, certificate) in presented.chain.iter().enumerate() {
        let CertificateSummary { subject, names, issuer, fingerprint, not_before, not_after, .. } = certificate;
        let names = if names.is_empty() { String::new() } else { format!(", for {}", names.join(", ")) };
        let _ = writeln!(out, "{at} {subject}{names}\n  issued by {issuer}");
        let _ = writeln!(out, "  valid from {} to {}; SHA-256 {fingerprint}", date(*not_before), date(*not_after));
    }
    match &presented.trusted {
        Ok(()) => out.push_str("this system trusts it\n"),
        Err(why) => {
            let _ = writeln!(out, "this system does not trust it: {why}");
        }
    }
    out + &findings(&presented.findings, colours()) + &takers(&presented.accepted_by)
}
