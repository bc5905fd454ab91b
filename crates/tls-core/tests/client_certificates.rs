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
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tls_core::ListenAddress;
use tls_core::rotation::{self, Publisher};
use tls_core::server::drain::{self, Trigger};
use tls_core::server::{self, Limits, RequestBody, Workers};
use tls_core::{Acceptor, ClientAuth, ClientAuthPolicy, ConnInfo, Identity, Origin, TlsOptions, provider};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Upper bound for every wait; reached only on failure.
const DEADLINE: Duration = Duration::from_secs(20);

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), der }
    }

    /// Issues a leaf for `localhost` with the SPIFFE id of a job.
    fn issue(&self) -> Pair {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://test/job".try_into().unwrap()));
        params.distinguished_name.push(DnType::CommonName, "job");
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}

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
    let (chain, key) = authority.issue();
    let identity = Identity::new(chain, key, Origin::Program, Origin::Program).unwrap();
    let (publisher, identities) = rotation::channel(identity);
    let (trust, trusted) = watch::channel(Arc::new(trusting(mode, clients)));
    let tls = TlsOptions::random().unwrap().server_asking(identities, trusted).unwrap();
    let acceptor = Acceptor::tls("test", tls);
    let acceptor = if proxied { acceptor.behind_proxy() } else { acceptor };
    let (trigger, drain) = drain::channel();
    let socket = "127.0.0.1:0".parse::<ListenAddress>().unwrap().bind().unwrap().remove(0);
    let address = socket.local_addr().unwrap();
    let service = tower::service_fn(echo);
    tokio::spawn(server::serve(socket, acceptor, service, Limits::default(), Workers::current(), drain));
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
    let mut roots = rustls::RootCertStore::empty();
    roots.add(endpoint.server.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    let config = config.with_root_certificates(roots);
    Arc::new(match shows {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    })
}

async fn connect(
    endpoint: &Endpoint,
    config: &Arc<ClientConfig>,
    first: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut tcp = TcpStream::connect(endpoint.address).await?;
    tcp.write_all(first).await?;
    TlsConnector::from(config.clone()).connect(ServerName::try_from("localhost").unwrap(), tcp).await
}

/// Sends one request and returns the response or the error. With TLS 1.3, a client learns of a refusal only then.
async fn ask(endpoint: &Endpoint, config: &Arc<ClientConfig>) -> std::io::Result<String> {
    let mut stream = connect(endpoint, config, b"").await?;
    exchange(&mut stream).await
}

async fn exchange(stream: &mut TlsStream<TcpStream>) -> std::io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
    let mut answer = Vec::new();
    loop {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
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
