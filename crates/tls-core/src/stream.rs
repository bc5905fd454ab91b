//! A connection's bytes: plain or TLS, with the bytes that were read to tell which.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// So much is taken from the kernel at once, from a client that sends much. rustls asks for 4 KiB at a time.
const AHEAD: usize = 64 * 1024;

/// A TCP stream of which some bytes were read already; they are read again first.
#[derive(Debug)]
pub struct Replayed {
    ahead: Bytes,
    /// Whether the last read took all that was asked for: there is more.
    more: bool,
    /// Whether anything was written.
    written: bool,
    tcp: TcpStream,
}

impl Replayed {
    pub(crate) fn new(first: Bytes, tcp: TcpStream) -> Self {
        Self { ahead: first, more: false, written: false, tcp }
    }

    /// Whether anything was written.
    pub(crate) fn has_written(&self) -> bool {
        self.written
    }

    /// Waits until the kernel has something, or the connection has ended.
    #[cfg(feature = "serve")]
    async fn readable(&self) -> io::Result<()> {
        self.tcp.readable().await
    }
}

impl AsyncRead for Replayed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
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
        // The last of it takes its memory along.
        buf.put_slice(&self.ahead.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replayed {
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
    Plain(Replayed),
    /// With TLS, after the handshake.
    Tls(Box<TlsStream<Replayed>>),
}

#[cfg(feature = "serve")]
impl Io {
    /// Waits until there is something to read, after a read that found nothing.
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
