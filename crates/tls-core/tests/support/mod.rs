//! A server's certificate, a socket, and a client that trusts the server.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tls_core::ListenAddress;
use tls_core::rotation::Identities;
use tls_core::{Acceptor, Identity, KeyDeriver, MinVersion, Origin, TlsOptions, provider};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Creates a self-signed certificate, which is its own root.
pub(crate) fn identity(name: &str) -> (Identity, CertificateDer<'static>) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let chain = vec![cert.der().clone()];
    (Identity::new(chain, key, Origin::Default, Origin::Default).unwrap(), cert.der().clone())
}

/// Creates the acceptor of an endpoint named `test`.
pub(crate) fn tls(identities: Identities) -> Acceptor {
    let options =
        TlsOptions { min_version: MinVersion::Tls12, tickets: KeyDeriver::random().unwrap(), insecure_key_log: false };
    Acceptor::tls("test", options.server(identities).unwrap())
}

/// Binds a free port.
pub(crate) fn socket() -> (TcpListener, SocketAddr) {
    let socket = "127.0.0.1:0".parse::<ListenAddress>().unwrap().bind().unwrap().remove(0);
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Creates a client that keeps its tickets.
pub(crate) fn client(root: &CertificateDer<'static>) -> Arc<ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

pub(crate) async fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    TlsConnector::from(config.clone()).connect(ServerName::try_from("localhost").unwrap(), tcp).await
}
