//! Streams that end early, at a deadline or on another signal.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, Stream, StreamExt};
use tokio::time::{Instant, sleep_until};

/// Completes once `at` has passed. It checks the clock on every poll, because the timer may not be driven while
/// something else is always ready.
pub async fn passed(at: Instant) {
    let mut timer = pin!(sleep_until(at));
    poll_fn(|cx| if at <= Instant::now() { Poll::Ready(()) } else { timer.as_mut().poll(cx) }).await;
}

/// Yields the items of `stream` up to its first error, or until `end` completes with an error. The stream is then
/// dropped, which cancels its producer.
pub fn until<T, E>(
    stream: BoxStream<'static, Result<T, E>>,
    end: impl Future<Output = E> + Send + 'static,
) -> BoxStream<'static, Result<T, E>>
where
    T: Send + 'static,
    E: Send + 'static,
{
    Until { stream: Some(stream), end: end.boxed() }.boxed()
}

struct Until<T, E> {
    stream: Option<BoxStream<'static, Result<T, E>>>,
    end: BoxFuture<'static, E>,
}

impl<T, E> Stream for Until<T, E> {
    type Item = Result<T, E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(stream) = &mut this.stream else { return Poll::Ready(None) };
        // The end is polled first, so that a stream that is always ready cannot outrun it.
        let next = match this.end.poll_unpin(cx) {
            Poll::Ready(error) => Poll::Ready(Some(Err(error))),
            Poll::Pending => stream.poll_next_unpin(cx),
        };
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            this.stream = None;
        }
        next
    }
}
