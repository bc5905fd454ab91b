//! Client certificates with a real acceptor on a real socket: which clients are accepted, how a change of trust affects
//! tickets and open connections, and how a PROXY header sets the client's address.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use testkit::{Authority, Pair, Server, client_with, connect_after, exchange};
use tls_core::rotation::{self, Publisher};
use tls_core::server::drain::Trigger;
use tls_core::server::{Limits, RequestBody};
use tls_core::{Acceptor, ClientAuth, ClientAuthPolicy, ConnInfo, TlsOptions};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

/// Upper bound for every wait; reached only on failure.
const DEADLINE: Duration = Duration::from_secs(20);

struct Endpoint {
    address: SocketAddr,
    trust: watch::Sender<Arc<ClientAuthPolicy>>,
    server: CertificateDer<'static>,
    _publisher: Publisher,
    _trigger: Trigger,
}

async fn echo(request: Request<RequestBody>) -> Result<Response<Full<Bytes>>, Infallible> {
    let info = request.extensions().get::<ConnInfo>().unwrap();
    let tls = info.tls.as_ref().unwrap();
    let who = match &tls.client {
        Some(client) => format!("{:?} {:?} {:?}", client.names().common, client.names().uris, client.names().dns),
        None => "nobody".to_owned(),
    };
    Ok(Response::new(Full::from(format!("{} {who} resumed={}", info.remote.ip(), tls.resumed))))
}

async fn open(mode: ClientAuth, clients: &Authority, proxied: bool) -> Endpoint {
    let authority = Authority::new("servers");
    let (publisher, identities) = rotation::channel(authority.identity());
    let (trust, trusted) = watch::channel(Arc::new(trusting(mode, clients)));
    let tls = TlsOptions::random().unwrap().server_asking(identities, trusted).unwrap();
    let acceptor = Acceptor::tls("test", tls);
    let acceptor = if proxied { acceptor.behind_proxy() } else { acceptor };
    let Server { address, trigger } = Server::of(acceptor, tower::service_fn(echo), Limits::default());
    Endpoint { address, trust, server: authority.der, _publisher: publisher, _trigger: trigger }
}

fn trusting(mode: ClientAuth, authority: &Authority) -> ClientAuthPolicy {
    ClientAuthPolicy::new(mode, std::slice::from_ref(&authority.der), Vec::new()).unwrap()
}

/// Creates a client that keeps its tickets.
fn client(
    endpoint: &Endpoint,
    shows: Option<Pair>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    client_with(&endpoint.server, shows, versions)
}

async fn connect(
    endpoint: &Endpoint,
    config: &Arc<ClientConfig>,
    first: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    connect_after(endpoint.address, config, first).await
}

/// Sends one request and returns the response or the error.
async fn ask(endpoint: &Endpoint, config: &Arc<ClientConfig>) -> std::io::Result<String> {
    exchange(&mut connect(endpoint, config, b"").await?).await
}

const BOTH: [&[&rustls::SupportedProtocolVersion]; 2] = [&[&rustls::version::TLS13], &[&rustls::version::TLS12]];

#[tokio::test]
async fn a_mode_lets_in_whom_it_should() {
    let (clients, strangers) = (Authority::new("clients"), Authority::new("strangers"));
    for versions in BOTH {
        let request = open(ClientAuth::Request, &clients, false).await;
        let required = open(ClientAuth::Required, &clients, false).await;
        let known = "127.0.0.1 [\"job\"] [\"spiffe://test/job\"] [\"localhost\"] resumed=false";
        for endpoint in [&request, &required] {
            assert_eq!(ask(endpoint, &client(endpoint, Some(clients.issue()), versions)).await.unwrap(), known);
            assert!(ask(endpoint, &client(endpoint, Some(strangers.issue()), versions)).await.is_err());
        }
        assert_eq!(ask(&request, &client(&request, None, versions)).await.unwrap(), "127.0.0.1 nobody resumed=false");
        assert!(ask(&required, &client(&required, None, versions)).await.is_err());
    }
}

#[tokio::test]
async fn no_ticket_outlives_a_change_of_trust() {
    let (clients, others) = (Authority::new("clients"), Authority::new("others"));
    for versions in BOTH {
        let endpoint = open(ClientAuth::Request, &clients, false).await;
        let config = client(&endpoint, Some(clients.issue()), versions);
        ask(&endpoint, &config).await.unwrap();
        let resumed = ask(&endpoint, &config).await.unwrap();
        assert!(resumed.ends_with("resumed=true") && resumed.contains("spiffe://test/job"), "{resumed}");

        endpoint.trust.send_replace(Arc::new(trusting(ClientAuth::Request, &others)));
        assert!(ask(&endpoint, &config).await.is_err(), "the ticket stands for whom nobody trusts any more");
        endpoint.trust.send_replace(Arc::new(trusting(ClientAuth::Required, &clients)));
        assert!(ask(&endpoint, &config).await.unwrap().ends_with("resumed=false"), "the mode is a part of it");
    }
}

#[tokio::test]
async fn a_change_of_trust_dismisses_whom_it_leaves_out() {
    let (clients, others) = (Authority::new("clients"), Authority::new("others"));
    let endpoint = open(ClientAuth::Request, &clients, false).await;
    let config = client(&endpoint, Some(clients.issue()), BOTH[0]);
    let nobody = client(&endpoint, None, BOTH[0]);
    let mut known = connect(&endpoint, &config, b"").await.unwrap();
    let mut unknown = connect(&endpoint, &nobody, b"").await.unwrap();
    exchange(&mut known).await.unwrap();
    exchange(&mut unknown).await.unwrap();
    endpoint.trust.send_replace(Arc::new(trusting(ClientAuth::Request, &others)));
    let mut rest = Vec::new();
    timeout(DEADLINE, known.read_to_end(&mut rest)).await.expect("it is closed").unwrap();
    exchange(&mut unknown).await.expect("who showed nothing has lost nothing");
}

#[tokio::test]
async fn a_proxy_says_for_whom_it_speaks() {
    // PROXY header: TCP over IPv4, 192.0.2.7:4711 to 192.0.2.1:443.
    let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc0\x00\x02\x01\x12\x67\x01\xbb";
    let clients = Authority::new("clients");
    let endpoint = open(ClientAuth::Request, &clients, true).await;
    let config = client(&endpoint, None, BOTH[0]);
    let mut stream = connect(&endpoint, &config, header).await.unwrap();
    assert_eq!(exchange(&mut stream).await.unwrap(), "192.0.2.7 nobody resumed=false");
    // The proxy's own health check.
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
    let mut stream = connect(&endpoint, &config, local).await.unwrap();
    assert!(exchange(&mut stream).await.unwrap().starts_with("127.0.0.1 nobody"));
    assert!(connect(&endpoint, &config, b"").await.is_err(), "without the header there is no connection");
    assert!(
        connect(&endpoint, &config, b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n").await.is_err(),
        "nor with version 1"
    );
}
