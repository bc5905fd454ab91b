//! Fuzzes the first bytes of a connection: the acceptor ends within its deadline and does not panic. `PROPTEST_CASES`
//! sets the number of cases.

#![allow(missing_docs, clippy::unwrap_used)]

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use proptest::prelude::*;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use testkit::self_signed;
use tls_core::{Acceptor, Identity, SniCertResolver, TlsOptions, rotation};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

/// Creates an acceptor with several names, strict or not.
fn acceptor(strict: bool) -> Acceptor {
    static SETS: OnceLock<[Arc<Identity>; 2]> = OnceLock::new();
    let [one, other] = SETS.get_or_init(|| ["a.test", "*.b.test"].map(|name| Arc::new(self_signed(name).0))).clone();
    let (_, identities) = rotation::channel(SniCertResolver::new(one, [other], strict));
    Acceptor::tls("fuzz", TlsOptions::random().unwrap().server(identities).unwrap())
}

/// Returns a client's first flight, as rustls writes it.
fn hello(name: &str) -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(tls_core::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut flight = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut flight).unwrap();
    }
    flight
}

fn bound() -> std::net::TcpListener {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

/// Sends `bytes`, closes, and returns the reply.
fn say(acceptor: &Acceptor, bytes: &[u8]) -> Vec<u8> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());
    thread_local! {
        // One listener for all cases of a test: tens of thousands of listeners would exhaust the ports.
        static LISTENER: OnceCell<Rc<TcpListener>> = const { OnceCell::new() };
    }
    runtime.block_on(async {
        let bind = || Rc::new(TcpListener::from_std(bound()).unwrap());
        let listener = LISTENER.with(|listener| listener.get_or_init(bind).clone());
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let acceptor = acceptor.clone();
        let accepting = tokio::spawn(async move { acceptor.accept(server, Duration::from_secs(5)).await.map(|_| ()) });
        // The server may close first.
        let _ = client.write_all(bytes).await;
        let _ = client.shutdown().await;
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        accepting.await.expect("it does not panic").expect_err("nobody shakes hands here");
        answer
    })
}

#[test]
fn a_name_that_nobody_has() {
    const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
    assert_eq!(say(&acceptor(true), &hello("c.test")), UNRECOGNIZED_NAME);
    for (strict, name) in [(false, "c.test"), (true, "a.test"), (true, "x.b.test")] {
        assert_eq!(say(&acceptor(strict), &hello(name))[0], 22, "{name}: a handshake goes on");
    }
}

proptest! {
    #[test]
    fn a_hello_with_a_few_bytes_changed(
        strict in any::<bool>(),
        changes in prop::collection::vec((0..2000_usize, any::<u8>()), 1..6),
        keep in 0..4000_usize,
    ) {
        let mut bytes = hello("x.b.test");
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(keep.max(1));
        say(&acceptor(strict), &bytes);
    }

    #[test]
    fn whatever_comes_first(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        say(&acceptor(false), &bytes);
    }

    #[test]
    fn something_like_http(
        start in prop::sample::select(vec!["GET / HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "POST", "PRI ", "OPTIONS * "]),
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = start.as_bytes().to_vec();
        bytes.extend(rest);
        say(&acceptor(false), &bytes);
    }
}
