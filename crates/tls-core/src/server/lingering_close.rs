//! Closes connections without losing the last response. Closing a socket with unread data resets the connection, and
//! the client may never read what was sent last. So incoming data is drained for a moment first.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use metrics::counter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::frame_budget::FrameBudget;
use super::idle::Activity;
use super::request_memory::ConnectionMemory;
use crate::prefixed_io::Io;

/// How long the socket is drained, and the maximum that is read.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(2);
pub(crate) const MAX_BYTES: u64 = 1024 * 1024;

/// A connection that, once this side has closed its writing half, waits for the peer to close.
pub(crate) struct LingeringIo {
    io: Option<Io>,
    /// Bytes put back to be read again.
    ahead: Bytes,
    activity: Activity,
    /// Present on HTTP/2 connections.
    frames: Option<Box<FrameBudget>>,
    memory: Option<Arc<ConnectionMemory>>,
    /// Present while receiving is paused because too much data is unread.
    stall: Option<Box<Stall>>,
    /// Sent before the connection is closed.
    goaway: Option<Vec<u8>>,
    /// Makes the drain wait until the lingering is over.
    token: Option<TaskTrackerToken>,
    write_closed: bool,
    read_closed: bool,
}

/// How long a connection with too much unread DATA may wait for a handler to read any of it.
const STALL_PATIENCE: Duration = Duration::from_secs(10);

/// How often a paused connection is checked, since others may have released memory.
const STALL_POLL: Duration = Duration::from_millis(100);

/// A pause in receiving from a connection.
struct Stall {
    /// When a handler last read, and how much had been read by then.
    since: Instant,
    read: usize,
    timer: Pin<Box<Sleep>>,
}

impl LingeringIo {
    pub(crate) fn new(io: Io, token: TaskTrackerToken, activity: Activity) -> Self {
        Self {
            io: Some(io),
            ahead: Bytes::new(),
            activity,
            frames: None,
            memory: None,
            stall: None,
            goaway: None,
            token: Some(token),
            write_closed: false,
            read_closed: false,
        }
    }

    /// Limits the HTTP/2 frames without data that the client may send, and the DATA that waits for handlers.
    pub(crate) fn limiting_frames(mut self, memory: Arc<ConnectionMemory>) -> Self {
        self.frames = Some(Box::new(FrameBudget::new()));
        self.memory = Some(memory);
        self
    }

    /// Waits while too much DATA is unread. Fails if no handler reads any of it.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(memory) = &self.memory else { return Poll::Ready(Ok(())) };
        while !memory.may_receive(cx.waker()) {
            let stall = self.stall.get_or_insert_with(|| {
                counter!("spiced_http2_stalls_total", "direction" => "received").increment(1);
                Box::new(Stall { since: Instant::now(), read: memory.has_read(), timer: Box::pin(sleep(STALL_POLL)) })
            });
            if memory.has_read() != stall.read {
                (stall.since, stall.read) = (Instant::now(), memory.has_read());
            } else if stall.since.elapsed() >= STALL_PATIENCE {
                counter!("spiced_request_bodies_refused_total", "reason" => "unread").increment(1);
                self.goaway = self.frames.as_ref().and_then(|frames| frames.goaway("too much unread data"));
                return Poll::Ready(Err(io::Error::other("too much HTTP/2 DATA that no request has read")));
            }
            ready!(stall.timer.as_mut().poll(cx));
            stall.timer.as_mut().reset(Instant::now() + STALL_POLL);
        }
        self.stall = None;
        Poll::Ready(Ok(()))
    }

    /// Puts bytes back to be read again. Copies them, because even an empty slice would keep its whole buffer alive.
    pub(crate) fn put_back(&mut self, bytes: &[u8]) {
        self.ahead = Bytes::copy_from_slice(bytes);
    }

    /// Waits until data can be read, after a read that would have blocked.
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
        let (Some(mut io), token) = (self.io.take(), self.token.take()) else { return };
        let goaway = self.goaway.take();
        if goaway.is_none() && (!self.write_closed || self.read_closed) {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                if let Some(goaway) = goaway {
                    let last = async {
                        io.write_all(&goaway).await?;
                        io.shutdown().await
                    };
                    if !matches!(tokio::time::timeout(TIMEOUT, last).await, Ok(Ok(()))) {
                        return;
                    }
                }
                let rest = async { tokio::io::copy(&mut io.take(MAX_BYTES), &mut tokio::io::sink()).await };
                let _ = tokio::time::timeout(TIMEOUT, rest).await;
                drop(token);
            });
        }
    }
}

impl AsyncRead for LingeringIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_room(cx))?;
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
        self.read_closed |= read.is_err() || (matches!(read, Ok(0)) && buf.remaining() > 0);
        let this = &mut *self;
        if let Some(frames) = &mut this.frames
            && !frames.receive(&buf.filled()[before..])
        {
            counter!("spiced_http2_floods_total").increment(1);
            this.goaway = frames.goaway("too many frames without data");
            // Received data is discarded.
            buf.set_filled(before);
            return Poll::Ready(Err(io::Error::other("too many HTTP/2 frames without data")));
        }
        if let (Some(frames), Some(memory)) = (&mut this.frames, &this.memory) {
            memory.received(frames.take_data());
        }
        Poll::Ready(read.map(drop))
    }
}

impl AsyncWrite for LingeringIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = self.io().poll_write(cx, buf);
        self.activity.wrote(&wrote);
        if let (Some(frames), Poll::Ready(Ok(count))) = (&mut self.frames, &wrote) {
            frames.send(&buf[..*count]);
            self.activity.sent();
        }
        wrote
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = self.io().poll_write_vectored(cx, bufs);
        self.activity.wrote(&wrote);
        if let (Some(frames), Poll::Ready(Ok(count))) = (&mut self.frames, &wrote) {
            let mut left = *count;
            for buf in bufs {
                let part = left.min(buf.len());
                frames.send(&buf[..part]);
                left -= part;
                if left == 0 {
                    break;
                }
            }
            self.activity.sent();
        }
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
        self.write_closed = shut.is_ok();
        Poll::Ready(shut)
    }
}
