//! Ends without losing the last words. A socket that is closed while bytes of the other side are
//! unread resets the connection, and what was sent last may never be read; a stream of HTTP/2 whose
//! request is dropped half read is reset under the answer. Both are read away for a moment first.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::activity::{Activity, Turn};
use crate::stream::Io;

/// How long, and how much, is read away.
const PATIENCE: Duration = Duration::from_secs(2);
const MOST: u64 = 1024 * 1024;

/// A connection that, once this side has said its last, waits for the other to close.
pub(crate) struct LingeringIo {
    io: Option<Io>,
    /// What was read of it before, and is read again.
    ahead: Bytes,
    activity: Activity,
    /// The drain waits for the lingering too.
    token: Option<TaskTrackerToken>,
    said_last: bool,
    heard_last: bool,
}

impl LingeringIo {
    pub(crate) fn new(io: Io, token: TaskTrackerToken, activity: Activity) -> Self {
        Self { io: Some(io), ahead: Bytes::new(), activity, token: Some(token), said_last: false, heard_last: false }
    }

    /// Bytes that were read, and are to be read again: a copy, since even none keep the buffer that they lie in.
    pub(crate) fn put_back(&mut self, bytes: &[u8]) {
        self.ahead = Bytes::copy_from_slice(bytes);
    }

    /// Waits until there is something to read, after a read that found nothing.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match &self.io {
            Some(io) if self.ahead.is_empty() => io.readable().await,
            _ => Ok(()),
        }
    }

    fn io(&mut self) -> Pin<&mut Io> {
        Pin::new(self.io.as_mut().expect("taken only when dropped"))
    }
}

impl Drop for LingeringIo {
    fn drop(&mut self) {
        let (Some(io), token) = (self.io.take(), self.token.take()) else { return };
        if !self.said_last || self.heard_last {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let rest = async { tokio::io::copy(&mut io.take(MOST), &mut tokio::io::sink()).await };
                let _ = tokio::time::timeout(PATIENCE, rest).await;
                drop(token);
            });
        }
    }
}

impl AsyncRead for LingeringIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = if self.ahead.is_empty() {
            self.io().poll_read(cx, buf)
        } else {
            let count = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead.split_to(count));
            Poll::Ready(Ok(()))
        };
        let read = read.map_ok(|()| buf.filled().len() - before);
        self.activity.read(&read);
        let read = ready!(read);
        self.heard_last |= read.is_err() || (matches!(read, Ok(0)) && buf.remaining() > 0);
        Poll::Ready(read.map(drop))
    }
}

impl AsyncWrite for LingeringIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = self.io().poll_write(cx, buf);
        self.activity.wrote(&wrote);
        wrote
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = self.io().poll_write_vectored(cx, bufs);
        self.activity.wrote(&wrote);
        wrote
    }

    fn is_write_vectored(&self) -> bool {
        self.io.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.io().poll_flush(cx);
        self.activity.wrote(&flushed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = self.io().poll_shutdown(cx);
        self.activity.wrote(&shut);
        let shut = ready!(shut);
        self.said_last = shut.is_ok();
        Poll::Ready(shut)
    }
}

/// The body of a request. Dropped before its end it is read on for a moment, so that over HTTP/2 an
/// answer that does not wait for the request (a refusal, say) reaches a client that still sends.
///
/// Over HTTP/2 it ends well only with its END_STREAM: one that its client resets fails with [`BodyError::Reset`].
pub struct RequestBody {
    body: Option<Incoming>,
    version: Version,
    turn: Turn,
}

/// Why a body is not whole.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection failed, or what came is no body.
    #[error(transparent)]
    Connection(#[from] hyper::Error),
    /// The client took the request back (RFC 9113 §8.1, RST_STREAM) before it had sent all of it.
    #[error("the client reset the stream before the end of its request")]
    Reset,
}

impl RequestBody {
    pub(crate) fn new(body: Incoming, version: Version, turn: Turn) -> Self {
        Self { body: Some(body), version, turn }
    }

    fn inner(&self) -> &Incoming {
        self.body.as_ref().expect("taken only when dropped")
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        if let Ok(runtime) = Handle::try_current() {
            let turn = self.turn.clone();
            runtime.spawn(tokio::time::timeout(PATIENCE, async move {
                // Until then the connection is not between two requests.
                let _turn = turn;
                // It goes first.
                let mut body = body;
                let mut left = MOST;
                while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                    let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                    match left.checked_sub(length) {
                        // After the answer, hyper tells the end of a body only with the next request.
                        Some(_) if body.is_end_stream() => break,
                        Some(rest) => left = rest,
                        None => break,
                    }
                }
            }));
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = self.body.as_mut().expect("taken only when dropped");
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        // hyper takes a reset with NO_ERROR or CANCEL for the end. Half a request is none.
        if frame.is_none() && self.version == Version::HTTP_2 && !self.inner().is_end_stream() {
            return Poll::Ready(Some(Err(BodyError::Reset)));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner().size_hint()
    }
}
