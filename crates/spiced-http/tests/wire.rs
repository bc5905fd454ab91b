//! The API on a real socket: what a client receives if a response fails, and how the server handles a client that
//! disconnects or reads fast.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;

use common::{Api, Toy, numbers};
use futures::{StreamExt, stream};
use spiced_engine::{EngineError, ErrorKind, Role};
use spiced_http::{HttpOptions, serve};
use spiced_middleware::Access;
use testkit::Server;
use tls_core::Acceptor;
use tls_core::server::drain::Trigger;
use tls_core::server::{Limits, Workers};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Starts a server. The trigger ends it.
fn start(engine: &Toy) -> (SocketAddr, Trigger) {
    let state = engine.state(Access::anonymous(Some(Role::ReadWrite)).loopback(), HttpOptions::default());
    let server = Server::start(|socket, drain| {
        serve(socket, Acceptor::plain("http"), state, Limits::default(), Workers::current(), drain)
    });
    (server.address, server.trigger)
}

async fn send(address: SocketAddr, request: &str) -> TcpStream {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    connection
}

const QUERY: &str = "POST /v1/sql HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nSELECT 1";

/// Reports when it is created and when it is dropped.
struct Witness(mpsc::UnboundedSender<&'static str>);

impl Witness {
    fn new(sender: mpsc::UnboundedSender<&'static str>) -> Self {
        let _ = sender.send("begun");
        Self(sender)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.0.send("dropped");
    }
}

/// Returns an engine whose results report when they begin and are dropped. They consist of endless batches, or of no
/// batch at all.
fn observed(endless: bool) -> (Toy, mpsc::UnboundedReceiver<&'static str>) {
    let (sender, events) = mpsc::unbounded_channel();
    let engine = Toy::new(move |_, _| {
        let observer = Witness::new(sender.clone());
        let batches = stream::repeat_with(move || {
            let _ = &observer;
            Ok(numbers(1000))
        });
        let batches =
            if endless { batches.boxed() } else { batches.skip_while(|_| futures::future::pending()).boxed() };
        Ok((numbers(0).schema(), batches))
    });
    (engine, events)
}

#[tokio::test]
async fn a_whole_answer_ends_as_http_wants_it() {
    let (address, _trigger) = start(&Toy::batches(vec![numbers(2)]));
    let mut connection = send(address, &QUERY.replace("Host", "Connection: close\r\nHost")).await;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("[{\"n\":0},{\"n\":1}") && answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn an_answer_that_fails_has_no_last_chunk() {
    let (address, _trigger) = start(&Toy::new(|_, _| {
        let failure = async {
            // The failure follows the rows instead of arriving with them.
            tokio::task::yield_now().await;
            Err(EngineError::new(ErrorKind::Internal, "disk"))
        };
        Ok((numbers(0).schema(), stream::iter([Ok(numbers(2))]).chain(stream::once(failure)).boxed()))
    }));
    let mut connection = send(address, QUERY).await;
    let mut answer = Vec::new();
    // The connection ends with a close or a reset, although the client would keep it alive.
    let _ = connection.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("{\"n\":1}"), "{answer}");
    assert!(!answer.contains("\r\n0\r\n"), "{answer}");
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_query_before_and_after_the_first_rows() {
    for endless in [false, true] {
        let (engine, mut events) = observed(endless);
        let (address, _trigger) = start(&engine);
        let mut connection = send(address, QUERY).await;
        if endless {
            connection.read_exact(&mut [0; 100_000]).await.unwrap();
        }
        assert_eq!(events.recv().await, Some("begun"));
        assert!(events.try_recv().is_err());
        drop(connection);
        assert_eq!(events.recv().await, Some("dropped"));
    }
}

#[tokio::test]
async fn a_fast_reader_holds_up_nobody() {
    let (engine, _events) = observed(true);
    let (address, _trigger) = start(&engine);
    let fast = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let mut connection = std::net::TcpStream::connect(address).unwrap();
        connection.write_all(QUERY.as_bytes()).unwrap();
        let mut buffer = vec![0; 1 << 20];
        // Reads until the server ends with the runtime of the test.
        while connection.read(&mut buffer).is_ok_and(|n| n > 0) {}
    });
    for _ in 0..20 {
        let mut connection =
            send(address, "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    }
    assert!(!fast.is_finished());
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let (address, _trigger) = start(&Toy::batches(vec![numbers(1)]));
    let mut connection = send(address, "HEAD /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert!(answer.to_lowercase().contains("content-length: 2\r\n"), "{answer}");
}
