//! Replies to plain text on a TLS port, in the client's protocol, so that a person can read the reason.

use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::prefixed_io::PrefixedIo;

/// How long the client's remaining data is drained, and the maximum that is read; a reset right after the reply would
/// discard the reply.
const TIMEOUT: Duration = Duration::from_secs(1);
const MAX_BYTES: u64 = 64 * 1024;

/// The rest of the HTTP/2 preface after `PRI ` (RFC 9113 §3.4).
const REST_OF_PREFACE: &[u8] = b"* HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Replies and closes the connection. Returns the client's protocol: `http/1`, `h2` or `unknown`.
pub(crate) async fn reply(first: Bytes, tcp: TcpStream, endpoint: &str) -> &'static str {
    let mut stream = PrefixedIo::new(first, tcp);
    let mut start = [0; 4];
    if !matches!(timeout(TIMEOUT, stream.read_exact(&mut start)).await, Ok(Ok(_))) {
        return "unknown";
    }
    let protocol = match &start {
        b"PRI " => "h2",
        text if text.iter().all(|b| b.is_ascii_uppercase() || *b == b' ' || *b == b'/') => "http/1",
        _ => return "unknown",
    };
    // The client may have disconnected, or never stop sending: both end here.
    let _ = if protocol == "h2" { h2(&mut stream, endpoint).await } else { http1(&mut stream, endpoint).await };
    let _ = timeout(TIMEOUT, async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(MAX_BYTES), &mut tokio::io::sink()).await
    })
    .await;
    protocol
}

async fn http1(stream: &mut PrefixedIo, endpoint: &str) -> io::Result<()> {
    let body = format!("this port ({endpoint}) speaks TLS and got plain HTTP: use https:// (or grpc+tls://)\n");
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await
}

/// Sends SETTINGS, a response to the first request, and GOAWAY with the reason. Without the response a gRPC client
/// would assume that its call was never processed, and retry until its deadline.
async fn h2(stream: &mut PrefixedIo, endpoint: &str) -> io::Result<()> {
    let reason = format!("this port ({endpoint}) speaks TLS and got plain text: use grpc+tls:// or https://");
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await?;
    let asked = timeout(TIMEOUT, first_request(stream)).await.ok().and_then(Result::ok);
    let mut last = BytesMut::new();
    if let Some(id) = asked {
        last.put_slice(&frame(HEADERS, END_STREAM | END_HEADERS, id, &refusal(&reason)));
    }
    last.put_slice(&goaway(asked.unwrap_or(0), &reason));
    stream.write_all(&last).await
}

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Returns the stream of the first HEADERS frame.
async fn first_request(stream: &mut PrefixedIo) -> io::Result<u32> {
    let mut preface = [0; REST_OF_PREFACE.len()];
    stream.read_exact(&mut preface).await?;
    if preface != REST_OF_PREFACE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut seen = 0;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u64::from(u32::from_be_bytes([0, head[0], head[1], head[2]]));
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        if head[3] == HEADERS && id != 0 {
            return Ok(id);
        }
        seen += length + 9;
        if seen > MAX_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        tokio::io::copy(&mut (&mut *stream).take(length), &mut tokio::io::sink()).await?;
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(9 + payload.len());
    out.put_uint(payload.len() as u64, 3);
    out.put_slice(&[kind, flags]);
    out.put_u32(stream);
    out.put_slice(payload);
    out.freeze()
}

/// Builds a GOAWAY frame (RFC 9113 §6.8) with INADEQUATE_SECURITY.
fn goaway(last_stream: u32, reason: &str) -> Bytes {
    const INADEQUATE_SECURITY: u32 = 0xc;
    let mut payload = BytesMut::new();
    payload.put_u32(last_stream);
    payload.put_u32(INADEQUATE_SECURITY);
    payload.put_slice(reason.as_bytes());
    frame(GOAWAY, 0, 0, &payload)
}

/// Builds a response head that both HTTP and gRPC clients understand: status 400, and UNAVAILABLE with the reason. Uses
/// HPACK without a dynamic table (RFC 7541 §6).
fn refusal(reason: &str) -> Bytes {
    const STATUS_400: u8 = 0x80 | 12;
    let mut block = BytesMut::new();
    block.put_u8(STATUS_400);
    for (name, value) in [("content-type", "application/grpc"), ("grpc-status", "14"), ("grpc-message", reason)] {
        // A literal that is never indexed and not Huffman-coded. Names and values are shorter than 127 bytes.
        block.put_u8(0x10);
        for text in [name, value] {
            let length = text.len().min(126);
            block.put_u8(length as u8);
            block.put_slice(&text.as_bytes()[..length]);
        }
    }
    block.freeze()
}
