//! The accept loop with a real client on a real socket: TLS and plain text, refusals, limits, rotation and stop.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use rustls::pki_types::CertificateDer;
use testkit::{Server, acceptor as tls, client, connect, exchange, self_signed};
use tls_core::rotation::{self, Identities, Publisher};
use tls_core::server::drain::Trigger;
use tls_core::server::{Limits, RequestBody, RequestMemory};
use tls_core::{Acceptor, ConnInfo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// An endpoint that responds with the facts of the connection.
struct TestEndpoint {
    address: SocketAddr,
    publisher: Publisher,
    trigger: Trigger,
    root: CertificateDer<'static>,
}

async fn echo(request: Request<RequestBody>) -> Result<Response<Full<Bytes>>, Infallible> {
    let info = request.extensions().get::<ConnInfo>().unwrap();
    let text = match &info.tls {
        Some(tls) => format!("{} {} resumed={}", info.endpoint, tls.version, tls.resumed),
        None => format!("{} plain", info.endpoint),
    };
    Ok(Response::new(Full::from(text)))
}

async fn open(limits: Limits, acceptor: impl FnOnce(Identities) -> Acceptor) -> TestEndpoint {
    let (first, root) = self_signed("localhost");
    let (publisher, identities) = rotation::channel(first);
    let Server { address, trigger } = Server::of(acceptor(identities), tower::service_fn(echo), limits);
    TestEndpoint { address, publisher, trigger, root }
}

/// Sends one request and reads the response to the end of its body.
async fn ask<S: AsyncReadExt + AsyncWriteExt + Unpin>(stream: &mut S) -> String {
    exchange(stream).await.unwrap()
}

async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn tls_and_a_resumed_session() {
    let endpoint = open(Limits::default(), tls).await;
    let config = client(&endpoint.root);
    let mut first = connect(endpoint.address, &config).await.unwrap();
    assert_eq!(ask(&mut first).await, "test 1.3 resumed=false");
    let mut second = connect(endpoint.address, &config).await.unwrap();
    assert_eq!(ask(&mut second).await, "test 1.3 resumed=true");
}

#[tokio::test]
async fn a_endpoint_without_tls() {
    let endpoint = open(Limits::default(), |_| Acceptor::plain("test")).await;
    let mut stream = TcpStream::connect(endpoint.address).await.unwrap();
    assert_eq!(ask(&mut stream).await, "test plain");
}

#[tokio::test]
async fn plain_text_is_answered_in_its_own_protocol() {
    let endpoint = open(Limits::default(), tls).await;
    let mut http1 = TcpStream::connect(endpoint.address).await.unwrap();
    http1.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let answer = String::from_utf8(read_all(&mut http1).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("speaks TLS"), "{answer}");

    let mut h2 = TcpStream::connect(endpoint.address).await.unwrap();
    h2.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    // A request on stream 1; this server reads no more of it.
    h2.write_all(b"\0\0\0\x01\x05\0\0\0\x01").await.unwrap();
    let frames = read_all(&mut h2).await;
    let kinds: Vec<(u8, u8)> = frames_of(&frames).map(|(kind, stream, _)| (kind, stream)).collect();
    assert_eq!(kinds, [(4, 0), (4, 0), (1, 1), (7, 0)], "SETTINGS, its ACK, an answer on stream 1, GOAWAY");
    let (_, _, goaway) = frames_of(&frames).last().unwrap();
    assert_eq!(goaway[..8], [0, 0, 0, 1, 0, 0, 0, 0xc]);
    assert!(String::from_utf8_lossy(&goaway[8..]).contains("use grpc+tls://"));
}

/// A connection that has filled the shared limit continues once its requests are read.
#[tokio::test]
async fn unread_data_of_http2_waits_in_the_kernel() {
    const REQUESTS: usize = 4;
    const LENGTH: usize = 900 << 10;
    // Half of it is for unread data.
    let limits = Limits { memory: RequestMemory::new(2 << 20, 8 << 20), ..Limits::default() };
    let (begin, begun) = tokio::sync::watch::channel(false);
    let begun_by = begun.clone();
    let service = tower::service_fn(move |request: Request<RequestBody>| {
        let mut begun = begun_by.clone();
        async move {
            begun.wait_for(|begun| *begun).await.unwrap();
            let mut body = request.into_body();
            let mut length = 0;
            while let Some(frame) = body.frame().await {
                length += frame.unwrap().data_ref().map_or(0, Bytes::len);
            }
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(length.to_string())))
        }
    });
    let memory = limits.memory.clone();
    let server = Server::of(Acceptor::plain("test"), service, limits);

    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let (mut reader, mut writer) = client.into_split();
    let mut answers = Vec::new();
    // The windows are small until the server has raised them and the client has acknowledged that.
    while !frames_of(&answers).any(|(kind, ..)| kind == 8) {
        assert!(reader.read_buf(&mut answers).await.unwrap() > 0);
    }
    let sent = tokio::spawn(async move {
        writer.write_all(b"\0\0\0\x04\x01\0\0\0\0").await.unwrap();
        for stream in (0..REQUESTS).map(|n| 2 * n as u8 + 1) {
            // POST https:/ with the authority `a`, from HPACK's static table.
            let head = [0x83, 0x87, 0x84, 0x41, 1, b'a'];
            writer.write_all(&[0, 0, head.len() as u8, 1, 4, 0, 0, 0, stream]).await.unwrap();
            writer.write_all(&head).await.unwrap();
            for at in (0..LENGTH).step_by(16 << 10) {
                let length = (LENGTH - at).min(16 << 10);
                let is_last = u8::from(at + length == LENGTH);
                let [_, a, b, c] = (length as u32).to_be_bytes();
                writer.write_all(&[a, b, c, 0, is_last, 0, 0, 0, stream]).await.unwrap();
                writer.write_all(&vec![7; length]).await.unwrap();
            }
        }
        writer
    });
    // The windows alone would admit all of the data.
    while memory.unread() < 1 << 20 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(memory.unread() < (1 << 20) + (64 << 10), "{} unread", memory.unread());
    begin.send_replace(true);
    let whole = |answers: &[u8]| frames_of(answers).filter(|(kind, _, data)| *kind == 0 && !data.is_empty()).count();
    while whole(&answers) < REQUESTS {
        assert!(reader.read_buf(&mut answers).await.unwrap() > 0);
    }
    for (_, _, data) in frames_of(&answers).filter(|(kind, _, data)| *kind == 0 && !data.is_empty()) {
        assert_eq!(data, LENGTH.to_string().as_bytes());
    }
    drop(sent.await.unwrap());
    assert_eq!(memory.unread(), 0);
}

fn frames_of(mut bytes: &[u8]) -> impl Iterator<Item = (u8, u8, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_at_checked(9)?;
        let (payload, rest) = rest.split_at_checked(u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize)?;
        bytes = rest;
        Some((head[3], head[8], payload))
    })
}

#[tokio::test]
async fn silent_clients_delay_nobody_and_end_at_the_deadline() {
    let limits = Limits { handshake_timeout: Duration::from_millis(500), ..Limits::default() };
    let endpoint = open(limits, tls).await;
    let started = Instant::now();
    let mut silent = Vec::new();
    for at in 0..100 {
        let mut stream = TcpStream::connect(endpoint.address).await.unwrap();
        if at % 2 == 0 {
            // An incomplete ClientHello: a record header that promises more data.
            stream.write_all(&[0x16, 3, 1, 2, 0]).await.unwrap();
        }
        silent.push(stream);
    }
    let mut good = connect(endpoint.address, &client(&endpoint.root)).await.unwrap();
    assert_eq!(ask(&mut good).await, "test 1.3 resumed=false");
    for mut stream in silent {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    assert!(started.elapsed() >= Duration::from_millis(400), "the deadline is not cut short");
}

#[tokio::test]
async fn a_rotation_is_for_the_next_handshake() {
    let endpoint = open(Limits::default(), tls).await;
    let mut old = connect(endpoint.address, &client(&endpoint.root)).await.unwrap();
    ask(&mut old).await;
    let (next, root) = self_signed("localhost");
    endpoint.publisher.publish(next);
    assert_eq!(ask(&mut old).await, "test 1.3 resumed=false", "a connection in flight goes on");
    assert!(connect(endpoint.address, &client(&endpoint.root)).await.is_err(), "the old certificate is gone");
    assert!(connect(endpoint.address, &client(&root)).await.is_ok());
}

#[tokio::test]
async fn connections_are_bounded_and_wait_their_turn() {
    let endpoint =
        open(Limits { connections: Arc::new(Semaphore::new(1)), ..Limits::default() }, |_| Acceptor::plain("test"))
            .await;
    let mut first = TcpStream::connect(endpoint.address).await.unwrap();
    ask(&mut first).await;
    let mut second = TcpStream::connect(endpoint.address).await.unwrap();
    let waits = tokio::time::timeout(Duration::from_millis(200), ask(&mut second)).await;
    assert!(waits.is_err(), "there is no room yet");
    drop(first);
    let mut third = TcpStream::connect(endpoint.address).await.unwrap();
    drop(second);
    assert_eq!(ask(&mut third).await, "test plain");
}

#[tokio::test]
async fn what_is_spare_is_for_the_endpoint_that_needs_it() {
    let spare = Arc::new(Semaphore::new(1));
    let limits = || Limits { connections: Arc::new(Semaphore::new(1)), spare: spare.clone(), ..Limits::default() };
    let (one, other) =
        (open(limits(), |_| Acceptor::plain("test")).await, open(limits(), |_| Acceptor::plain("test")).await);
    let asked = async |endpoint: &TestEndpoint| {
        let mut stream = TcpStream::connect(endpoint.address).await.unwrap();
        ask(&mut stream).await;
        stream
    };
    let held = [asked(&one).await, asked(&one).await];
    assert_eq!(spare.available_permits(), 0);
    // The other endpoint has its own capacity.
    drop(asked(&other).await);
    let waits = tokio::time::timeout(Duration::from_millis(200), asked(&one)).await;
    assert!(waits.is_err(), "there is no room yet");
    drop(held);
    drop([asked(&one).await, asked(&one).await]);
}

#[tokio::test]
async fn who_never_asks_is_not_kept() {
    let limits = Limits { header_timeout: Duration::from_millis(200), ..Limits::default() };
    let endpoint = open(limits, tls).await;
    let mut config = Arc::unwrap_or_clone(client(&endpoint.root));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut silent = connect(endpoint.address, &Arc::new(config)).await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(10), silent.read_to_end(&mut Vec::new())).await;
    assert!(end.is_ok(), "the connection was closed");
}

#[tokio::test]
async fn a_stop_closes_the_socket_and_idle_connections() {
    let endpoint = open(Limits::default(), tls).await;
    let config = client(&endpoint.root);
    let mut idle = connect(endpoint.address, &config).await.unwrap();
    ask(&mut idle).await;
    assert_eq!(endpoint.trigger.drain(Duration::from_secs(10)).await, 0);
    let mut rest = Vec::new();
    let _ = idle.read_to_end(&mut rest).await;
    assert!(connect(endpoint.address, &config).await.is_err());
}
