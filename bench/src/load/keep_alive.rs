//! Requests on connections that stay open: hyper's client over HTTP/1.1 and HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::certificate::NAME;
use crate::load::Target;
use crate::load::connect::connect;
use crate::meter::{Meter, Sample};

/// The HTTP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    H1,
    H2,
}

impl Version {
    /// Returns its ALPN protocol ID (RFC 7301).
    fn alpn(self) -> &'static str {
        match self {
            Self::H1 => "http/1.1",
            Self::H2 => "h2",
        }
    }
}

/// A request and its concurrency.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) path: &'static str,
    /// The statement to POST; without one, the request is a GET.
    pub(crate) sql: Option<&'static str>,
    pub(crate) accept: &'static str,
    /// Concurrent requests: one connection each over HTTP/1.1, streams on four connections over HTTP/2.
    pub(crate) at_a_time: usize,
    /// The minimum size of a response, in bytes.
    pub(crate) answer: u64,
}

/// Connections over HTTP/2.
const H2_CONNECTIONS: usize = 4;

/// Sends requests for `slice`, on connections that are already open.
pub(crate) async fn run(target: Target<'_>, version: Version, ask: &'static Ask, slice: Duration) -> Outcome<Sample> {
    let config = target.tls.map(|certificate| certificate.client(version.alpn(), false)).transpose()?;
    let mut connections = JoinSet::new();
    let mut clients = Vec::new();
    let count = if version == Version::H1 { ask.at_a_time } else { H2_CONNECTIONS.min(ask.at_a_time) };
    for _ in 0..count {
        let mut client = Client::open(target.address, config.as_ref(), version, &mut connections).await?;
        client.ask(ask).await?;
        clients.push(client);
    }

    let meter = Meter::start(target.process)?;
    let end = Instant::now() + slice;
    let mut tasks = JoinSet::new();
    for index in 0..ask.at_a_time {
        let client = match version {
            Version::H1 => clients.remove(0),
            Version::H2 => clients[index % count].share()?,
        };
        tasks.spawn(repeat(client, ask, end));
    }
    let mut done = 0;
    while let Some(count) = tasks.join_next().await {
        done += count.map_err(|e| e.to_string())??;
    }
    meter.stop(done as f64).await
}

async fn repeat(mut client: Client, ask: &'static Ask, end: Instant) -> Outcome<u64> {
    let mut count = 0;
    while Instant::now() < end {
        client.ask(ask).await?;
        count += 1;
    }
    Ok(count)
}

/// Requests `target.command` once as Arrow; the result has `columns` bytes of column data.
pub(crate) async fn stream(target: Target<'_>, columns: u64) -> Outcome<Sample> {
    let config = target.tls.map(|certificate| certificate.client("http/1.1", false)).transpose()?;
    let mut connections = JoinSet::new();
    let mut client = Client::open(target.address, config.as_ref(), Version::H1, &mut connections).await?;
    let meter = Meter::start(target.process)?;
    let answer = client.send("/v1/sql", Some(target.command), "application/vnd.apache.arrow.stream").await?;
    let bytes = client.read(answer, columns).await?;
    meter.stop(bytes as f64 / 1e9).await
}

/// Sends one request on a new connection, and returns the response.
pub(crate) async fn once(target: Target<'_>, path: &str, sql: Option<&str>) -> Outcome<(StatusCode, Bytes)> {
    let config = target.tls.map(|certificate| certificate.client("http/1.1", false)).transpose()?;
    let mut connections = JoinSet::new();
    let mut client = Client::open(target.address, config.as_ref(), Version::H1, &mut connections).await?;
    let answer = client.send(path, sql, "application/json").await?;
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(|e| client.failed(&e))?;
    Ok((status, body.to_bytes()))
}

struct Client {
    address: SocketAddr,
    sender: Sender,
}

enum Sender {
    H1(http1::SendRequest<Full<Bytes>>),
    H2(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    /// Connects. The connection's task runs in `connections`, and ends with it.
    async fn open(
        address: SocketAddr,
        tls: Option<&Arc<ClientConfig>>,
        version: Version,
        connections: &mut JoinSet<()>,
    ) -> Outcome<Self> {
        let (io, _) = connect(address, tls).await?;
        let failed = |e: hyper::Error| format!("{address}: {e}");
        let sender = match version {
            Version::H1 => {
                let (sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(failed)?;
                connections.spawn(async move { drop(connection.await) });
                Sender::H1(sender)
            }
            Version::H2 => {
                let (sender, connection) =
                    http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.map_err(failed)?;
                connections.spawn(async move { drop(connection.await) });
                Sender::H2(sender)
            }
        };
        Ok(Self { address, sender })
    }

    /// Returns another handle for the same connection.
    fn share(&self) -> Outcome<Self> {
        match &self.sender {
            Sender::H1(_) => Err("a connection of HTTP/1.1 has one request at a time".to_owned()),
            Sender::H2(sender) => Ok(Self { address: self.address, sender: Sender::H2(sender.clone()) }),
        }
    }

    /// Sends a request, and reads and discards the response.
    async fn ask(&mut self, ask: &Ask) -> Outcome {
        let answer = self.send(ask.path, ask.sql, ask.accept).await?;
        self.read(answer, ask.answer).await.map(drop)
    }

    /// Reads and discards a response, which must have at least `least` bytes.
    async fn read(&self, answer: Response<Incoming>, least: u64) -> Outcome<u64> {
        let (status, mut body, mut length) = (answer.status(), answer.into_body(), 0);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| self.failed(&e))?;
            length += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        if status == StatusCode::OK && length >= least {
            return Ok(length);
        }
        Err(format!("{}: answered {status} with {length} bytes", self.address))
    }

    async fn send(&mut self, path: &str, sql: Option<&str>, accept: &str) -> Outcome<Response<Incoming>> {
        let method = if sql.is_some() { Method::POST } else { Method::GET };
        let body = Full::new(sql.map(|sql| Bytes::copy_from_slice(sql.as_bytes())).unwrap_or_default());
        let request = Request::builder().method(method).header("accept", accept);
        let sent = match &mut self.sender {
            Sender::H1(sender) => {
                let request = request.uri(path).header("host", NAME).body(body).map_err(|e| e.to_string())?;
                sender.ready().await.map_err(|e| format!("{}: {e}", self.address))?;
                sender.send_request(request).await
            }
            Sender::H2(sender) => {
                let uri = Uri::builder().scheme("https").authority(NAME).path_and_query(path);
                let uri = uri.build().map_err(|e| e.to_string())?;
                let request = request.uri(uri).body(body).map_err(|e| e.to_string())?;
                sender.send_request(request).await
            }
        };
        sent.map_err(|e| self.failed(&e))
    }

    fn failed(&self, error: &hyper::Error) -> String {
        format!("{}: {error}", self.address)
    }
}
