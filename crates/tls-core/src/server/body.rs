//! Request bodies: their memory is accounted for, they have a deadline, and a body dropped before its end is drained
//! for a moment, so that over HTTP/2 an early response is not lost to a reset.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use metrics::counter;
use tokio::runtime::Handle;
use tokio::sync::{AcquireError, OwnedSemaphorePermit};
use tokio::time::{Instant, Sleep, sleep};

use super::idle::RequestGuard;
use super::lingering_close::{MAX_BYTES, TIMEOUT};
use super::request_memory::{ConnectionMemory, RequestCharge, Unread};

/// How long a body, or a gRPC message, may take to arrive. It may take another second for each `MIN_BYTES_PER_SECOND`
/// bytes that have arrived.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);
const MIN_BYTES_PER_SECOND: u64 = 64 << 10;

/// How often a waiting body is checked.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// After a stop: how long a body may make no progress.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// The flag and the length before each message ("Length-Prefixed-Message" in the gRPC protocol).
const GRPC_PREFIX: usize = 5;

/// The body of a request. If it is dropped before its end, it is drained for a moment, so that over HTTP/2 a response
/// that does not wait for the request (such as a refusal) reaches a client that is still sending.
///
/// Over HTTP/2 the body is complete only with its END_STREAM: if the client resets the stream, the body fails with
/// [`BodyError::Reset`].
pub struct RequestBody {
    body: Option<Incoming>,
    version: Version,
    turn: RequestGuard,
    /// `None` if the body is empty.
    meter: Option<Meter>,
    unread: Option<Unread>,
}

/// Why a body is incomplete.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The connection failed, or the received data is not a valid body.
    #[error(transparent)]
    Connection(#[from] hyper::Error),
    /// The client cancelled the request (RFC 9113 §8.1, RST_STREAM) before it had sent it completely.
    #[error("the client reset the stream before the end of its request")]
    Reset,
    /// The body, or a gRPC message, did not arrive in time.
    #[error("the request did not arrive within {0:?}")]
    Late(Duration),
    /// The bodies of the caller, or of all callers, have reached their memory limit.
    #[error("too many large requests at the same time; try again later")]
    Exhausted,
    /// The server is stopping, and the body makes no progress.
    #[error("the server is shutting down, and the rest of the request did not arrive")]
    Stopping,
}

impl BodyError {
    /// Finds the body error among the causes of `error`, however deeply it is wrapped.
    pub fn find<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
    }
}

impl RequestBody {
    /// Takes the body of a request. Its memory is charged to `memory` until both the charge in the request's extensions
    /// and the returned one are dropped.
    pub(crate) fn take(
        request: Request<Incoming>,
        turn: &RequestGuard,
        memory: &Arc<ConnectionMemory>,
    ) -> (Request<Self>, Option<RequestCharge>) {
        let version = request.version();
        let (mut parts, body) = request.into_parts();
        let meter = (!body.is_end_stream()).then(|| {
            let charge = memory.charge();
            parts.extensions.insert(charge.clone());
            let kind = parts.headers.get(CONTENT_TYPE);
            let is_grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
            Meter::new(charge, is_grpc)
        });
        let charge = meter.as_ref().map(|meter| meter.charge.clone());
        let unread = meter.as_ref().map(|_| Unread::new(memory));
        let body = Self { body: Some(body), version, turn: turn.clone(), meter, unread };
        (Request::from_parts(parts, body), charge)
    }

    fn inner(&self) -> &Incoming {
        self.body.as_ref().expect("taken only when dropped")
    }
}

/// The wait for permission to exceed the connection's share of memory.
type Room = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// Accounts for one body.
struct Meter {
    charge: RequestCharge,
    /// The position in the message framing of a gRPC request.
    messages: Option<Messages>,
    /// When the current message, or the body, began to arrive, and how many of its bytes have arrived.
    since: Instant,
    arrived: u64,
    /// When the last data arrived.
    last: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    waits: Option<Room>,
}

/// The framing of gRPC messages.
#[derive(Default)]
struct Messages {
    prefix: [u8; GRPC_PREFIX],
    filled: usize,
    left: u64,
}

impl Messages {
    /// Scans `bytes`. Returns how many of them belong to the current message, which is the incomplete one or the last
    /// one completed, or `None` if all of them continue the previous message.
    fn pass(&mut self, mut bytes: &[u8]) -> Option<usize> {
        let mut begun = None;
        while !bytes.is_empty() {
            if self.left == 0 {
                if self.filled == 0 {
                    begun = Some(bytes.len());
                }
                let count = (GRPC_PREFIX - self.filled).min(bytes.len());
                self.prefix[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
                self.filled += count;
                bytes = &bytes[count..];
                if self.filled == GRPC_PREFIX {
                    let [_, a, b, c, d] = self.prefix;
                    (self.left, self.filled) = (u32::from_be_bytes([a, b, c, d]).into(), 0);
                }
            }
            let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left -= count as u64;
            bytes = &bytes[count..];
        }
        begun
    }
}

impl Meter {
    fn new(charge: RequestCharge, is_grpc: bool) -> Self {
        let now = Instant::now();
        let messages = is_grpc.then(Messages::default);
        Self { charge, messages, since: now, arrived: 0, last: now, timer: None, waits: None }
    }

    /// Waits until more may be read.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waits.is_none() {
            let Some(semaphore) = self.charge.wait_for() else { return Poll::Ready(()) };
            self.waits = Some(Box::pin(semaphore.acquire_owned()));
        }
        if let Some(waits) = &mut self.waits {
            if let Ok(permit) = ready!(waits.as_mut().poll(cx)) {
                self.charge.overdraw(permit);
            }
            self.waits = None;
        }
        Poll::Ready(())
    }

    /// Accounts for received data.
    fn count(&mut self, data: &[u8]) -> Result<(), BodyError> {
        self.last = Instant::now();
        match self.messages.as_mut().and_then(|messages| messages.pass(data)) {
            Some(of_this_message) => {
                self.charge.release();
                (self.since, self.arrived) = (self.last, of_this_message as u64);
            }
            None => self.arrived += data.len() as u64,
        }
        if self.charge.add(data.len()) {
            return Ok(());
        }
        self.charge.release();
        Err(BodyError::Exhausted)
    }

    /// Resolves to the error of a body that makes no progress: at its deadline, or after a stop.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        loop {
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(POLL_INTERVAL)));
            ready!(timer.as_mut().poll(cx));
            let limit = MESSAGE_TIMEOUT + Duration::from_secs(self.arrived / MIN_BYTES_PER_SECOND);
            // No deadline applies between two messages of a stream.
            let is_due = self.messages.as_ref().is_none_or(|messages| {
                messages.left > 0 || messages.filled > 0 || self.arrived == 0 || self.charge.is_unary()
            });
            if is_due && self.since.elapsed() >= limit {
                return Poll::Ready(BodyError::Late(limit));
            }
            if self.charge.drain().is_signaled() && self.last.elapsed() >= STOP_TIMEOUT {
                return Poll::Ready(BodyError::Stopping);
            }
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(POLL_INTERVAL)));
            timer.as_mut().reset(Instant::now() + POLL_INTERVAL);
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        if let Ok(runtime) = Handle::try_current() {
            let (turn, unread) = (self.turn.clone(), self.unread.take());
            runtime.spawn(tokio::time::timeout(TIMEOUT, async move {
                // Keeps the request in progress until the drain is over.
                let _turn = turn;
                // Keeps the accounting of unread data until the drain is over.
                let unread = unread;
                let mut body = body;
                let mut left = MAX_BYTES;
                while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                    let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                    if let Some(unread) = &unread {
                        unread.read(frame.data_ref().map_or(0, Bytes::len));
                    }
                    match left.checked_sub(length) {
                        // After the response, hyper reports the end of a body only with the next request.
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
        let this = &mut *self;
        let body = this.body.as_mut().expect("taken only when dropped");
        let Some(meter) = &mut this.meter else {
            return Pin::new(body).poll_frame(cx).map_err(BodyError::from);
        };
        let frame = match meter.poll_room(cx) {
            Poll::Ready(()) => Pin::new(&mut *body).poll_frame(cx),
            Poll::Pending => Poll::Pending,
        };
        let Poll::Ready(frame) = frame else {
            let late = ready!(meter.poll_late(cx));
            let reason = match late {
                BodyError::Stopping => "stopping",
                _ => "late",
            };
            counter!("spiced_request_bodies_refused_total", "reason" => reason).increment(1);
            return Poll::Ready(Some(Err(late)));
        };
        // hyper reports a reset with NO_ERROR or CANCEL as the end of the body, but the request is incomplete.
        if frame.is_none() && this.version == Version::HTTP_2 && !body.is_end_stream() {
            return Poll::Ready(Some(Err(BodyError::Reset)));
        }
        let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
        if let (Some(unread), Some(data)) = (&this.unread, data) {
            unread.read(data.len());
        }
        if let Some(data) = data
            && let Err(error) = meter.count(data)
        {
            counter!("spiced_request_bodies_refused_total", "reason" => "exhausted").increment(1);
            return Poll::Ready(Some(Err(error)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart_however_they_are_cut() {
        let message = |length: usize| {
            let mut message = vec![0, 0, 0, (length >> 8) as u8, length as u8];
            message.resize(GRPC_PREFIX + length, 7);
            message
        };
        let bytes: Vec<u8> = [300, 0, 1, 5, 260].into_iter().flat_map(message).collect();
        for size in [1, 2, 3, 4, 5, 6, 64, 1000] {
            let mut messages = Messages::default();
            let mut current = 0;
            for chunk in bytes.chunks(size) {
                current = messages.pass(chunk).unwrap_or(current + chunk.len());
            }
            assert_eq!(current, GRPC_PREFIX + 260, "{size}");
            assert!(messages.left == 0 && messages.filled == 0);
        }
        let mut messages = Messages::default();
        assert_eq!(messages.pass(&bytes[..100]), Some(100));
        assert_eq!(messages.pass(&bytes[100..200]), None);
        assert_eq!(messages.left, 105);
    }
}
