//! Tracks the activity of a connection and detects when it is idle: an idle HTTP/1 connection does not need hyper's
//! buffers, and the time for the next request's head is limited.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The activity of one connection. Clones share the state.
///
/// Only the connection's task reads and updates it, except that a request may end elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Activity(Arc<State>);

impl Default for Activity {
    fn default() -> Self {
        Self(Arc::new(State { idle_since: AtomicU64::new(now()), ..State::default() }))
    }
}

#[derive(Debug, Default)]
struct State {
    /// Number of requests that have begun.
    begun: AtomicUsize,
    /// Number of requests whose body, or whose response's body, is still in use.
    open: AtomicUsize,
    /// Number of times that an open request or body was released.
    ended: AtomicUsize,
    /// Bytes arrived that are not a complete request head yet.
    heard: AtomicBool,
    /// The last read would have blocked.
    waits: AtomicBool,
    /// The last write would have blocked.
    stuck: AtomicBool,
    /// Number of successful reads and writes.
    moved: AtomicUsize,
    /// The connection takes no further requests after the current ones.
    closing: AtomicBool,
    /// When the last request ended, or the connection began if there was none, in milliseconds of [`uptime`].
    idle_since: AtomicU64,
}

/// Returns the time since the first call.
pub(crate) fn uptime() -> Duration {
    static START: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
    START.elapsed()
}

fn now() -> u64 {
    u64::try_from(uptime().as_millis()).unwrap_or(u64::MAX)
}

/// A request in progress; it ends when the last clone is dropped.
#[derive(Debug)]
pub(crate) struct RequestGuard(Activity);

/// Why hyper must release the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idle {
    /// The connection is idle.
    Nothing,
    /// The request's head took too long.
    TooLong,
}

impl Activity {
    /// Records that a request begins.
    pub(crate) fn begin(&self) -> RequestGuard {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        self.0.heard.store(false, Ordering::Relaxed);
        RequestGuard::new(self.clone())
    }

    /// Returns whether any request has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.0.begun.load(Ordering::Relaxed) > 0
    }

    /// Returns whether a request is in progress.
    pub(crate) fn is_busy(&self) -> bool {
        self.0.open.load(Ordering::Acquire) > 0
    }

    /// Returns since when no request has been in progress; meaningless while one is.
    pub(crate) fn idle_since(&self) -> Duration {
        Duration::from_millis(self.0.idle_since.load(Ordering::Relaxed))
    }

    /// Restarts the idle time.
    pub(crate) fn touch(&self) {
        self.0.idle_since.store(now(), Ordering::Relaxed);
    }

    /// Marks the connection as closing: it takes no further requests.
    pub(crate) fn close(&self) {
        self.0.closing.store(true, Ordering::Relaxed);
    }

    /// Records the result of a read: the number of bytes.
    pub(crate) fn read<E>(&self, read: &Poll<Result<usize, E>>) {
        self.0.waits.store(read.is_pending(), Ordering::Relaxed);
        if matches!(read, Poll::Ready(Ok(1..))) {
            self.0.heard.store(true, Ordering::Relaxed);
            self.0.moved.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records that bytes were written.
    pub(crate) fn sent(&self) {
        self.0.moved.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until no bytes have been read or written for the given time and no request is in progress.
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

    /// Records the result of a write or a flush.
    pub(crate) fn wrote<T>(&self, wrote: &Poll<T>) {
        self.0.stuck.store(wrote.is_pending(), Ordering::Relaxed);
    }

    /// Waits until the connection has been idle between two checks, or until a request's head takes too long. Poll it
    /// after the connection itself. `since` is the time of the last activity, kept across calls, so that idle time does
    /// not extend the deadline.
    pub(crate) async fn wait_idle(&self, since: &mut Instant, look: Duration, patience: Duration) -> Idle {
        let mut seen = (self.0.begun.load(Ordering::Relaxed), self.0.ended.load(Ordering::Relaxed));
        loop {
            // A zero interval would be a busy loop.
            sleep(look.min(patience).max(Duration::from_millis(1))).await;
            let State { begun, open, ended, heard, waits, stuck, .. } = &*self.0;
            // The order matters: once `open` is zero, `ended` is up to date. hyper must be polled once more after that.
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

    /// Returns whether the connection takes no further requests.
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
        // Bytes that arrived since the request began belong to its body. Bytes of a next request are read again after
        // the idle period.
        self.0.0.heard.store(false, Ordering::Relaxed);
        self.0.0.ended.fetch_add(1, Ordering::Relaxed);
        if self.0.0.open.load(Ordering::Relaxed) == 1 {
            self.0.0.idle_since.store(now(), Ordering::Relaxed);
        }
        self.0.0.open.fetch_sub(1, Ordering::Release);
    }
}
