//! What a connection does, and when it does nothing: an HTTP/1 connection between two requests needs none of the buffers
//! that hyper has for it, and is not to take forever over the next one's head.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// What happens on one connection. Clones are of the same.
///
/// All of it is said and asked by the one task of the connection, but for the end of a turn.
#[derive(Debug, Clone)]
pub(crate) struct Activity(Arc<State>);

impl Default for Activity {
    fn default() -> Self {
        Self(Arc::new(State { idle_since: AtomicU64::new(now()), ..State::default() }))
    }
}

#[derive(Debug, Default)]
struct State {
    /// Requests that have begun.
    begun: AtomicUsize,
    /// Those of which a body is left, the request's or the answer's.
    open: AtomicUsize,
    /// How often one of these went.
    ended: AtomicUsize,
    /// Bytes came that are no request yet.
    heard: AtomicBool,
    /// The last read found nothing.
    waits: AtomicBool,
    /// The last write found no room.
    stuck: AtomicBool,
    /// How often bytes were read or written.
    moved: AtomicUsize,
    /// The connection takes no further request after the current ones.
    closing: AtomicBool,
    /// When the last request ended, in milliseconds of [`uptime`]; when the connection began, where there was none.
    idle_since: AtomicU64,
}

/// Time since the first call.
pub(crate) fn uptime() -> Duration {
    static START: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
    START.elapsed()
}

fn now() -> u64 {
    u64::try_from(uptime().as_millis()).unwrap_or(u64::MAX)
}

/// A request that has begun, until the last clone of this is dropped.
#[derive(Debug)]
pub(crate) struct RequestGuard(Activity);

/// Why a connection is taken from hyper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idle {
    /// It has nothing to do.
    Nothing,
    /// It took too long over a request's head.
    TooLong,
}

impl Activity {
    /// A request begins.
    pub(crate) fn begin(&self) -> RequestGuard {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        self.0.heard.store(false, Ordering::Relaxed);
        RequestGuard::new(self.clone())
    }

    /// Whether there was a request.
    pub(crate) fn has_begun(&self) -> bool {
        self.0.begun.load(Ordering::Relaxed) > 0
    }

    /// Whether a request is in progress.
    pub(crate) fn is_busy(&self) -> bool {
        self.0.open.load(Ordering::Acquire) > 0
    }

    /// Since when no request has been in progress; of no meaning while one is.
    pub(crate) fn idle_since(&self) -> Duration {
        Duration::from_millis(self.0.idle_since.load(Ordering::Relaxed))
    }

    /// The connection is idle from now on.
    pub(crate) fn touch(&self) {
        self.0.idle_since.store(now(), Ordering::Relaxed);
    }

    /// The connection takes no further request.
    pub(crate) fn close(&self) {
        self.0.closing.store(true, Ordering::Relaxed);
    }

    /// What a read gave: how many bytes.
    pub(crate) fn read<E>(&self, read: &Poll<Result<usize, E>>) {
        self.0.waits.store(read.is_pending(), Ordering::Relaxed);
        if matches!(read, Poll::Ready(Ok(1..))) {
            self.0.heard.store(true, Ordering::Relaxed);
            self.0.moved.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Bytes were written.
    pub(crate) fn sent(&self) {
        self.0.moved.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until nothing has been read or written for `patience`, and no request is in progress.
    pub(crate) async fn silence(&self, patience: Duration) {
        let mut seen = self.0.moved.load(Ordering::Relaxed);
        loop {
            sleep(patience).await;
            let now = self.0.moved.load(Ordering::Relaxed);
            if now == seen && !self.is_busy() {
                return;
            }
            seen = now;
        }
    }

    /// What a write, or a flush, gave.
    pub(crate) fn wrote<T>(&self, wrote: &Poll<T>) {
        self.0.stuck.store(wrote.is_pending(), Ordering::Relaxed);
    }

    /// Waits until nothing has been asked and answered from one look to the next, or a head is not whole within `patience`.
    /// To be asked after the connection itself, when that can do no more.
    /// `since` is when it was last seen to do something, over all lulls: no rest prolongs the patience.
    pub(crate) async fn wait_idle(&self, since: &mut Instant, look: Duration, patience: Duration) -> Idle {
        let mut seen = (self.0.begun.load(Ordering::Relaxed), self.0.ended.load(Ordering::Relaxed));
        loop {
            // Not for no time: that would be to look without a rest.
            sleep(look.min(patience).max(Duration::from_millis(1))).await;
            let State { begun, open, ended, heard, waits, stuck, .. } = &*self.0;
            // In this order: who sees none open sees that they ended. hyper is to have a look of its own after that.
            let open = open.load(Ordering::Acquire) > 0;
            let now = (begun.load(Ordering::Relaxed), ended.load(Ordering::Relaxed));
            if now != seen || open || stuck.load(Ordering::Relaxed) {
                (seen, *since) = (now, Instant::now());
            } else if since.elapsed() >= patience {
                return Idle::TooLong;
            } else if waits.load(Ordering::Relaxed) && !heard.load(Ordering::Relaxed) {
                return Idle::Nothing;
            }
        }
    }
}

impl RequestGuard {
    fn new(activity: Activity) -> Self {
        activity.0.open.fetch_add(1, Ordering::Relaxed);
        Self(activity)
    }

    /// Whether the connection takes no further request.
    pub(crate) fn is_last(&self) -> bool {
        self.0.0.closing.load(Ordering::Relaxed)
    }
}

impl Clone for RequestGuard {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        // What came since it began was its body. What was read of a next request is read again after a lull.
        self.0.0.heard.store(false, Ordering::Relaxed);
        self.0.0.ended.fetch_add(1, Ordering::Relaxed);
        if self.0.0.open.load(Ordering::Relaxed) == 1 {
            self.0.0.idle_since.store(now(), Ordering::Relaxed);
        }
        self.0.0.open.fetch_sub(1, Ordering::Release);
    }
}
