//! Connections that carry one small request each, as made by clients without a connection pool.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::Outcome;
use crate::certificate::NAME;
use crate::load::Target;
use crate::load::connect::{Io, connect_to};
use crate::meter::{Meter, Sample};

/// Concurrent connections.
const AT_A_TIME: usize = 8;

const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// The kind of handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shake {
    /// With X25519, which every server supports.
    Full,
    /// With a post-quantum hybrid key exchange, if the server supports it.
    Hybrid,
    /// With X25519, resumed by a session ticket.
    Resumed,
}

/// Connects, sends a request, reads the response and closes, repeatedly for `slice`.
pub(crate) async fn run(target: Target<'_>, shake: Shake, slice: Duration) -> Outcome<Sample> {
    let config = target.tls.map(|certificate| match shake {
        Shake::Hybrid => certificate.modern_client("http/1.1"),
        Shake::Full | Shake::Resumed => certificate.client("http/1.1", shake == Shake::Resumed),
    });
    let config = config.transpose()?;
    // The first connections cannot resume. They are made concurrently, so that each makes a full handshake and gets a
    // ticket; from then on nginx issues one ticket for each that is used.
    let mut first = JoinSet::new();
    for _ in 0..AT_A_TIME {
        first.spawn(repeat(target.address, config.clone(), None, Instant::now()));
    }
    total(first).await?;
    let wanted = config.is_some().then_some(match shake {
        Shake::Full | Shake::Hybrid => HandshakeKind::Full,
        Shake::Resumed => HandshakeKind::Resumed,
    });

    let meter = Meter::start(target.process)?;
    let end = Instant::now() + slice;
    let mut tasks = JoinSet::new();
    for _ in 0..AT_A_TIME {
        tasks.spawn(repeat(target.address, config.clone(), wanted, end));
    }
    let done = total(tasks).await?;
    meter.stop(done as f64).await
}

async fn total(mut tasks: JoinSet<Outcome<u64>>) -> Outcome<u64> {
    let mut total = 0;
    while let Some(count) = tasks.join_next().await {
        total += count.map_err(|e| e.to_string())??;
    }
    Ok(total)
}

/// Connects at least once and until `end`; returns the number of connections. `wanted` is the required kind of
/// handshake.
async fn repeat(
    address: SocketAddr,
    config: Option<Arc<ClientConfig>>,
    wanted: Option<HandshakeKind>,
    end: Instant,
) -> Outcome<u64> {
    let mut count = 0;
    loop {
        let kind = one(address, config.as_ref()).await?;
        if wanted.is_some() && kind != wanted {
            return Err(format!("{address}: the handshake was {kind:?}, not {wanted:?}"));
        }
        count += 1;
        if Instant::now() >= end {
            return Ok(count);
        }
    }
}

async fn one(address: SocketAddr, config: Option<&Arc<ClientConfig>>) -> Outcome<Option<HandshakeKind>> {
    let (mut bare, kind) = Bare::open(address, config, NAME).await?;
    bare.ask().await?;
    bare.close().await.map(|()| kind)
}

/// A connection with minimal client-side work per request.
pub(crate) struct Bare {
    address: SocketAddr,
    io: Box<dyn Io>,
}

impl Bare {
    /// Connects, and requests `name` by SNI.
    pub(crate) async fn open(
        address: SocketAddr,
        config: Option<&Arc<ClientConfig>>,
        name: &str,
    ) -> Outcome<(Self, Option<HandshakeKind>)> {
        let (io, kind) = connect_to(address, config, name).await?;
        Ok((Self { address, io }, kind))
    }

    /// Sends a request and reads the response.
    pub(crate) async fn ask(&mut self) -> Outcome {
        let exchange = async {
            self.io.write_all(REQUEST).await?;
            self.io.flush().await?;
            let mut answer = Vec::with_capacity(1024);
            while !is_whole(&answer) {
                if self.io.read_buf(&mut answer).await? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
            }
            Ok(answer)
        };
        let answer = exchange.await.map_err(|e: std::io::Error| format!("{}: {e}", self.address))?;
        if answer.starts_with(b"HTTP/1.1 200 ") {
            return Ok(());
        }
        Err(format!("{}: {}", self.address, answer.escape_ascii()))
    }

    /// Closes the sending side.
    pub(crate) async fn close(mut self) -> Outcome {
        self.io.shutdown().await.map_err(|e| format!("{}: {e}", self.address))
    }
}

/// Returns whether a response with a `content-length` is complete.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    answer.len() - end - 4 >= length.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_with_its_body() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert!(is_whole(whole));
        assert!((0..whole.len()).all(|cut| !is_whole(&whole[..cut])));
    }
}
