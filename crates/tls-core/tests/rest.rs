//! An idle connection keeps no buffers and loses no data. The tests detect idle connections by their log lines.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use rustls::pki_types::CertificateDer;
use testkit::{Server, acceptor, client, connect, self_signed};
use tls_core::rotation;
use tls_core::server::drain::Trigger;
use tls_core::server::{Limits, RequestBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_rustls::client::TlsStream;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An endpoint that checks its connections every few milliseconds, and its log lines.
struct Endpoint {
    address: SocketAddr,
    trigger: Trigger,
    root: CertificateDer<'static>,
    /// Ends the responses to `/slow`.
    end: Arc<Notify>,
    said: UnboundedReceiver<String>,
    _log: tracing::subscriber::DefaultGuard,
}

#[derive(Clone)]
struct Log(UnboundedSender<String>);

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.send(String::from_utf8_lossy(line).into_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `/slow` begins a response and ends it on request; `/early` does not wait for the request's body; any other path
/// does.
async fn answer(request: Request<RequestBody>, end: Arc<Notify>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = match path.as_str() {
        "/slow" => {
            let frames = futures::stream::unfold(0, move |step| {
                let end = end.clone();
                async move {
                    if step == 1 {
                        end.notified().await;
                    }
                    (step < 2).then(|| (Ok(Frame::data(Bytes::from_static(b"part"))), step + 1))
                }
            });
            StreamBody::new(frames).boxed_unsync()
        }
        "/early" => Full::from("early").boxed_unsync(),
        _ => Full::from(request.into_body().collect().await.unwrap().to_bytes()).boxed_unsync(),
    };
    Ok(Response::new(body))
}

impl Endpoint {
    async fn open(header_timeout: Duration) -> Self {
        let (log, said) = unbounded_channel();
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false);
        let subscriber = subscriber.with_writer(move || Log(log.clone())).finish();
        let _log = tracing::subscriber::set_default(subscriber);

        let (identity, root) = self_signed("localhost");
        let end = Arc::new(Notify::new());
        let ends = end.clone();
        let service = tower::service_fn(move |request| answer(request, ends.clone()));
        let limits = Limits { rest: Duration::from_millis(10), header_timeout, ..Limits::default() };
        // On this thread, whose log is captured.
        let Server { address, trigger } = Server::of(acceptor(rotation::channel(identity).1), service, limits);
        Self { address, trigger, root, end, said, _log }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        connect(self.address, &client(&self.root)).await.unwrap()
    }

    /// Waits for several checks of all connections, measured by another connection that becomes idle repeatedly.
    async fn some_looks(&mut self) {
        let mut other = self.connect().await;
        for body in ["one", "two", "three"] {
            other.write_all(post("/", body).as_bytes()).await.unwrap();
            read_to(&mut other, body).await;
            assert_eq!(self.lull().await, "rest");
        }
    }

    /// Waits until a connection is found idle.
    async fn lull(&mut self) -> &'static str {
        loop {
            let line = self.said.recv().await.unwrap();
            if line.contains("connection does nothing") {
                return if line.contains("idle=Nothing") { "rest" } else { "too long" };
            }
        }
    }
}

/// Reads until `end` has arrived.
async fn read_to(stream: &mut TlsStream<TcpStream>, end: &str) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(end.as_bytes()) {
        let read = stream.read_buf(&mut answer).await.unwrap();
        assert!(read > 0, "cut off: {}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).unwrap()
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_connection_rests_and_goes_on() {
    let mut endpoint = Endpoint::open(LONG).await;
    let mut stream = endpoint.connect().await;
    // Even before the first request.
    assert_eq!(endpoint.lull().await, "rest");
    for body in ["one", "two", "three"] {
        stream.write_all(post("/", body).as_bytes()).await.unwrap();
        assert!(read_to(&mut stream, body).await.starts_with("HTTP/1.1 200 "));
        assert_eq!(endpoint.lull().await, "rest");
    }
    // Also after a body that arrives after its response.
    stream.write_all(post("/early", "later").trim_end_matches("later").as_bytes()).await.unwrap();
    read_to(&mut stream, "early").await;
    stream.write_all(b"later").await.unwrap();
    assert_eq!(endpoint.lull().await, "rest");
    assert_eq!(endpoint.trigger.drain(Duration::from_secs(10)).await, 0, "a stop ends one that rests");
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "with a close_notify");
}

#[tokio::test]
async fn a_client_that_leaves_ends_it() {
    let mut endpoint = Endpoint::open(LONG).await;
    let stream = endpoint.connect().await;
    assert_eq!(endpoint.lull().await, "rest");
    drop(stream);
    assert_eq!(endpoint.trigger.drain(Duration::from_secs(10)).await, 0);
}

#[tokio::test]
async fn half_a_request_is_kept() {
    let mut endpoint = Endpoint::open(LONG).await;
    let mut stream = endpoint.connect().await;
    let second = post("/", "two");
    let (begin, end) = second.split_at(20);
    stream.write_all(format!("{}{begin}", post("/", "one")).as_bytes()).await.unwrap();
    read_to(&mut stream, "one").await;
    assert_eq!(endpoint.lull().await, "rest");
    stream.write_all(end.as_bytes()).await.unwrap();
    read_to(&mut stream, "two").await;
}

#[tokio::test]
async fn nobody_takes_for_ever_over_a_head() {
    let mut endpoint = Endpoint::open(Duration::from_millis(100)).await;
    let mut stream = endpoint.connect().await;
    stream.write_all(post("/", "one").as_bytes()).await.unwrap();
    read_to(&mut stream, "one").await;
    stream.write_all(b"GET / HT").await.unwrap();
    while endpoint.lull().await == "rest" {}
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn who_rests_for_long_is_not_kept() {
    let endpoint = Endpoint::open(Duration::from_millis(100)).await;
    let mut stream = endpoint.connect().await;
    stream.write_all(post("/", "one").as_bytes()).await.unwrap();
    read_to(&mut stream, "one").await;
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_byte_now_and_then_prolongs_nothing() {
    let mut endpoint = Endpoint::open(Duration::from_millis(200)).await;
    let (tcp, _tls) = endpoint.connect().await.into_inner();
    let (mut reading, mut writing) = tcp.into_split();
    let writes = async move {
        let mut pace = tokio::time::interval(Duration::from_millis(10));
        // The beginning of a record that is never completed (RFC 8446 §5.1).
        for byte in [0x17, 3, 3, 0x40, 0].into_iter().chain([0; 0x3fff]) {
            pace.tick().await;
            writing.write_all(&[byte]).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    let writes = tokio::spawn(writes);
    let mut said = Vec::new();
    let ended = tokio::time::timeout(LONG / 3, reading.read_to_end(&mut said)).await;
    assert!(ended.is_ok());
    while let Ok(line) = endpoint.said.try_recv() {
        assert!(line.contains("connection does nothing"), "what came is no error: {line}");
    }
    writes.abort();
}

#[tokio::test]
async fn a_stop_waits_for_no_half_head() {
    let mut endpoint = Endpoint::open(LONG).await;
    let mut stream = endpoint.connect().await;
    stream.write_all(b"GET / HT").await.unwrap();
    endpoint.some_looks().await;
    let stopped = tokio::time::timeout(LONG / 3, endpoint.trigger.drain(LONG)).await;
    assert_eq!(stopped, Ok(0));
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "with a close_notify");
}

#[tokio::test]
async fn no_rest_before_the_answer_has_ended() {
    let mut endpoint = Endpoint::open(LONG).await;
    let mut slow = endpoint.connect().await;
    slow.write_all(post("/slow", "").as_bytes()).await.unwrap();
    read_to(&mut slow, "part\r\n").await;
    endpoint.some_looks().await;
    endpoint.end.notify_one();
    read_to(&mut slow, "0\r\n\r\n").await;
    assert_eq!(endpoint.lull().await, "rest");
    slow.write_all(post("/", "four").as_bytes()).await.unwrap();
    read_to(&mut slow, "four").await;
}

#[tokio::test]
async fn no_rest_before_the_request_has_ended() {
    let mut endpoint = Endpoint::open(LONG).await;
    let mut early = endpoint.connect().await;
    let request = post("/early", "01234(((((");
    let (begin, end) = request.split_at(request.len() - 5);
    early.write_all(begin.as_bytes()).await.unwrap();
    read_to(&mut early, "early").await;
    endpoint.some_looks().await;
    // These bytes belong to the body; they would not be a valid request.
    early.write_all(format!("{end}{}", post("/", "four")).as_bytes()).await.unwrap();
    assert!(read_to(&mut early, "four").await.starts_with("HTTP/1.1 200 "));
}
