//! Work for a statement: where it runs, its deadline, and the accounting of work that exceeds it.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use spiced_engine::{EngineError, Role};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

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
    pub(crate) fn new(end: impl FnOnce(EngineError) + Send + 'static) -> Self {
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
