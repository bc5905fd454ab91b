//! A connection's byte stream, plain or TLS, with the bytes that were read to detect the protocol.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// Size of a read from the kernel when a client sends a lot of data. rustls reads 4 KiB at a time.
const AHEAD: usize = 64 * 1024;

/// Maximum number of TLS records in a client's handshake. A ClientHello of 64 KiB needs four; the cost of each record
/// grows with the number of fragments of one message before it.
const MAX_HANDSHAKE_RECORDS: usize = 512;

/// The length of a record's header (RFC 8446 §5.1).
const RECORD_HEADER: usize = 5;

/// The handshake has too many records.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("a handshake of more than {MAX_HANDSHAKE_RECORDS} records")]
pub(crate) struct TooManyRecords;

/// Counts TLS records in a byte stream.
#[derive(Debug, Default)]
struct Records {
    count: usize,
    header: [u8; RECORD_HEADER],
    filled: usize,
    /// Remaining bytes of the current record.
    left: usize,
}

impl Records {
    /// Scans `bytes`.
    fn pass(&mut self, mut bytes: &[u8]) -> Result<(), TooManyRecords> {
        while !bytes.is_empty() {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            bytes = &bytes[skipped..];
            let count = (RECORD_HEADER - self.filled).min(bytes.len());
            self.header[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
            self.filled += count;
            bytes = &bytes[count..];
            if self.filled == RECORD_HEADER {
                let [.., high, low] = self.header;
                (self.left, self.filled) = (u16::from_be_bytes([high, low]).into(), 0);
                self.count += 1;
                if self.count > MAX_HANDSHAKE_RECORDS {
                    return Err(TooManyRecords);
                }
            }
        }
        Ok(())
    }
}

/// A TCP stream with a prefix of bytes that are read before the socket.
#[derive(Debug)]
pub struct PrefixedIo {
    ahead: Bytes,
    /// Whether the last read filled its buffer, so that more data is likely.
    more: bool,
    /// Whether anything was written.
    written: bool,
    /// Present until the handshake is over.
    records: Option<Box<Records>>,
    tcp: TcpStream,
}

impl PrefixedIo {
    pub(crate) fn new(first: Bytes, tcp: TcpStream) -> Self {
        Self { ahead: first, more: false, written: false, records: None, tcp }
    }

    /// Limits the number of TLS records until [`Self::end_handshake`].
    pub(crate) fn limiting_records(mut self) -> Self {
        self.records = Some(Box::default());
        self
    }

    /// Ends the limit on TLS records.
    pub(crate) fn end_handshake(&mut self) {
        self.records = None;
    }

    /// Reads the buffered bytes, then the socket.
    fn poll_read_on(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wanted = buf.remaining();
        if !self.ahead.has_remaining() {
            if !self.more || wanted >= AHEAD {
                let before = buf.filled().len();
                ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
                self.more = wanted > 0 && buf.filled().len() - before == wanted;
                return Poll::Ready(Ok(()));
            }
            let mut ahead = BytesMut::with_capacity(AHEAD);
            let read = ready!(pin!(self.tcp.read_buf(&mut ahead)).poll(cx))?;
            self.more = read > wanted;
            self.ahead = ahead.freeze();
        }
        let count = self.ahead.len().min(wanted);
        // The last part releases the buffer.
        buf.put_slice(&self.ahead.split_to(count));
        Poll::Ready(Ok(()))
    }

    /// Returns whether anything was written.
    pub(crate) fn has_written(&self) -> bool {
        self.written
    }

    /// Waits until the kernel has data, or the connection has ended.
    #[cfg(feature = "serve")]
    async fn readable(&self) -> io::Result<()> {
        self.tcp.readable().await
    }
}

impl AsyncRead for PrefixedIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(self.poll_read_on(cx, buf))?;
        if let Some(records) = &mut self.records {
            records.pass(&buf.filled()[before..]).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PrefixedIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.written = true;
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.written = true;
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// A connection that is ready for its protocol.
#[derive(Debug)]
pub enum Io {
    /// Without TLS.
    Plain(PrefixedIo),
    /// With TLS, after the handshake.
    Tls(Box<TlsStream<PrefixedIo>>),
}

#[cfg(feature = "serve")]
impl Io {
    /// Waits until data can be read, after a read that would have blocked.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Plain(io) => io.readable().await,
            Self::Tls(io) => io.get_ref().0.readable().await,
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_however_they_are_cut() {
        let record = |length: u16| [&[22, 3, 1][..], &length.to_be_bytes(), &vec![22; length.into()]].concat();
        let some: Vec<u8> = [1, 0, 300, 5, 16_384].into_iter().flat_map(record).collect();
        for size in [1, 2, 3, 4, 5, 6, 64, 20_000] {
            let mut records = Records::default();
            assert!(some.chunks(size).all(|chunk| records.pass(chunk).is_ok()));
            assert_eq!((records.count, records.left, records.filled), (5, 0, 0), "{size}");
        }
        let most = record(1).repeat(MAX_HANDSHAKE_RECORDS);
        let mut records = Records::default();
        assert!(records.pass(&most).is_ok() && records.pass(&record(1)).is_err());
    }
}
