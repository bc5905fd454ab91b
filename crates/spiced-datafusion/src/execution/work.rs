//! Work for a statement: where it runs, its deadline, and the accounting of work that exceeds it.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::future::BoxFuture;
use spiced_engine::{EngineError, Role, Slot};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::engine::EngineShared;
use crate::engine::session::ended;
use crate::execution::deadline_timer::TimerGuard;
use crate::execution::memory_watch::Watched;
use crate::execution::timed_out;

/// The runtimes that statements run on. Callers that only read never take a thread from callers that write.
#[derive(Debug, Clone)]
pub(crate) struct Runtimes {
    pub(crate) readers: Handle,
    pub(crate) writers: Handle,
}

impl Runtimes {
    pub(crate) fn of(&self, role: Role) -> &Handle {
        match role {
            Role::ReadOnly => &self.readers,
            Role::ReadWrite => &self.writers,
        }
    }
}

/// The number of units of work that continue past their deadline because they compute without checking it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overdue(Arc<AtomicUsize>);

/// The name of the Prometheus gauge of overdue work.
pub(crate) const OVERDUE_METRIC: &str = "spiced_statements_overdue";

const RUNNING: u8 = 0;
const OVERDUE: u8 = 1;
const ENDED: u8 = 2;

impl Overdue {
    /// Registers a unit of work. It ends when the returned value is dropped.
    pub(crate) fn begin(&self) -> Work {
        Work { state: Arc::new(AtomicU8::new(RUNNING)), count: self.clone() }
    }

    fn add(&self, more: isize) {
        let count = match more {
            1 => self.0.fetch_add(1, Ordering::Relaxed) + 1,
            _ => self.0.fetch_sub(1, Ordering::Relaxed) - 1,
        };
        metrics::gauge!(OVERDUE_METRIC).set(u32::try_from(count).unwrap_or(u32::MAX));
    }
}

/// A running unit of work.
pub(crate) struct Work {
    state: Arc<AtomicU8>,
    count: Overdue,
}

impl Work {
    /// Returns the function to call when the deadline of the work expires.
    pub(crate) fn deadline(&self) -> impl FnOnce() + Send + 'static {
        let (state, count) = (self.state.clone(), self.count.clone());
        move || {
            if state.compare_exchange(RUNNING, OVERDUE, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                count.add(1);
            }
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if self.state.swap(ENDED, Ordering::AcqRel) == OVERDUE {
            self.count.add(-1);
        }
    }
}

/// Runs `work`, which may compute for a long time without a point at which it can be stopped, such as planning; another
/// thread takes over the runtime's tasks meanwhile. Returns `None` if `stop` fires first and the work yields.
///
/// Must be called in a task of a multi-threaded runtime.
pub(crate) fn uninterrupted<T>(stop: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::task::block_in_place(|| Handle::current().block_on(stop.run_until_cancelled(work)))
}

/// Ends a statement from outside, with the error for its caller. Cheap to clone; only the first error takes effect.
#[derive(Clone)]
pub(crate) struct Ender(Arc<Mutex<Option<EndWith>>>);

/// The function that ends a statement.
type EndWith = Box<dyn FnOnce(EngineError) + Send>;

impl Ender {
    fn new(end: impl FnOnce(EngineError) + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(end)))))
    }

    /// Ends the statement; does not block.
    pub(crate) fn end(&self, error: EngineError) {
        let end = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(end) = end {
            end(error);
        }
    }

    #[cfg(test)]
    pub(crate) fn idle() -> Self {
        Self::new(|_| {})
    }
}

/// Reports that a statement was ended from outside: by its deadline, or by the memory limit of the process. The work
/// may compute for a while before it notices; its caller need not wait for that.
pub(crate) struct DeadlineGuard {
    struck: oneshot::Receiver<EngineError>,
    why: Option<EngineError>,
    _alarm: TimerGuard,
    pub(crate) watched: Watched,
}

impl DeadlineGuard {
    /// Waits for the end of the statement.
    pub(crate) async fn comes(&mut self) -> EngineError {
        if self.why.is_none() && !self.struck.is_terminated() {
            self.why = (&mut self.struck).await.ok();
        }
        match &self.why {
            Some(why) => why.clone(),
            // It can no longer arrive: the engine is gone, and its timer with it.
            None => std::future::pending().await,
        }
    }

    /// Returns why the statement was ended, if it was.
    pub(crate) fn has_come(&mut self) -> Option<EngineError> {
        if self.why.is_none() {
            self.why = self.struck.try_recv().ok();
        }
        self.why.clone()
    }
}

impl EngineShared {
    /// Calls `end`, which ends some work and must not block, at `when`, or sooner if the process exceeds its memory
    /// limit, unless the returned guard is dropped first.
    pub(crate) fn strike(&self, when: Instant, end: impl FnOnce() + Send + 'static) -> DeadlineGuard {
        let (strike, struck) = oneshot::channel();
        let ender = Ender::new(move |why| {
            end();
            // The receiver is gone if the work has just finished.
            let _ = strike.send(why);
        });
        let (limit, at_deadline) = (self.query_timeout, ender.clone());
        let alarm = self.clock.at(when, move || at_deadline.end(timed_out(limit)));
        DeadlineGuard { struck, why: None, _alarm: alarm, watched: self.memory_watch.watch(ender) }
    }

    /// Runs `work`, which plans, for a caller with `role` within the time limit. The work owns the slot of the call and
    /// releases it when it ends, which may be after the caller got its response.
    ///
    /// # Errors
    /// Fails if the deadline expires or the work panics.
    pub(crate) async fn within_limit<T: Send + 'static>(
        &self,
        role: Role,
        work: BoxFuture<'static, T>,
    ) -> Result<T, EngineError> {
        let limit = self.query_timeout;
        let (slot, begun) = (Slot::take_current(), self.overdue.begin());
        let (stop, is_late) = (CancellationToken::new(), begun.deadline());
        let end = stop.clone();
        let mut strike = self.strike(Instant::now() + limit, move || {
            end.cancel();
            is_late();
        });
        // A caller that disconnects stops the work, too.
        let _stops = stop.clone().drop_guard();
        let task = async move {
            let _begun = begun;
            (uninterrupted(&stop, work), slot)
        };
        let mut task = AbortOnDropHandle::new(self.runtimes.of(role).spawn(task));
        let done = tokio::select! {
            biased;
            done = &mut task => done,
            // Running work cannot be aborted; it stops at its next check, and keeps its slot until then.
            why = strike.comes() => return Err(why),
        };
        match done {
            Ok((Some(done), slot)) => {
                if let Some(slot) = slot {
                    slot.release();
                }
                Ok(done)
            }
            Ok((None, _)) => Err(strike.has_come().unwrap_or_else(|| timed_out(limit))),
            Err(failure) => Err(strike.has_come().unwrap_or_else(|| ended(failure))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_overdue_between_its_deadline_and_its_end() {
        let overdue = Overdue::default();
        let count = || overdue.0.load(Ordering::Relaxed);
        let (late, in_time) = (overdue.begin(), overdue.begin());
        let (first, second) = (late.deadline(), in_time.deadline());
        drop(in_time);
        first();
        second();
        assert_eq!(count(), 1);
        drop(late);
        assert_eq!(count(), 0);
    }
}
