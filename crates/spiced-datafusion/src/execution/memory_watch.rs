//! Watches the memory of the whole process: functions and operators allocate more than they report to the memory pool.
//!
//! Above the limit, statements are ended one after the other, starting with those during which the process grew most.
//! This does not attribute individual allocations, but a statement that runs while nothing grows is never blamed.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use spiced_engine::{EngineError, ErrorKind};

use crate::execution::work::Ender;

/// The interval between measurements.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The number of measurements for which an ended statement may release its memory, and the allocator return it, before
/// another statement is ended; fewer if the process grows by another eighth of the limit.
const GRACE: u32 = 30;

/// How long a reader may leave its result unread while others run out of memory.
const PATIENCE: Duration = Duration::from_secs(1);

/// The Prometheus metric of statements ended because of the memory of the process or of unread results.
pub(crate) const ENDED_METRIC: &str = "spiced_statements_ended_for_memory_total";

/// The running statements under watch. Dropping it stops the watch.
#[derive(Clone, Default)]
pub(crate) struct MemoryWatch(Arc<Running>);

#[derive(Default)]
struct Running {
    statements: Mutex<HashMap<u64, Suspect>>,
    next: AtomicU64,
}

struct Suspect {
    ender: Ender,
    /// How much the process grew during the statement, divided among the statements that ran.
    grew: usize,
    /// Since when the result has been left unread; `None` while the reader waits for it.
    unread: Arc<Mutex<Option<Instant>>>,
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Suspect>> {
        // No code that holds the lock can panic.
        self.statements.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running statement, until it is dropped.
pub(crate) struct Watched {
    running: Arc<Running>,
    number: u64,
    unread: Arc<Mutex<Option<Instant>>>,
}

impl Watched {
    /// Records whether the reader waits for the result from now on.
    pub(crate) fn is_awaited(&self, is_awaited: bool) {
        let since = if is_awaited { None } else { Some(Instant::now()) };
        *self.unread.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let gone = self.running.lock().remove(&self.number);
        // Outside the lock: it may own a watched statement itself.
        drop(gone);
    }
}

impl MemoryWatch {
    /// Starts a watch that ends statements if the process exceeds `limit` bytes.
    ///
    /// # Errors
    /// Fails if the system cannot create a thread.
    pub(crate) fn start(limit: Option<usize>) -> io::Result<Self> {
        let started = Self::default();
        if let (Some(limit), true) = (limit, resident().is_some()) {
            let running = Arc::downgrade(&started.0);
            std::thread::Builder::new().name("memory-watch".to_owned()).spawn(move || watch(&running, limit))?;
        }
        Ok(started)
    }

    /// Watches a new statement.
    pub(crate) fn watch(&self, ender: Ender) -> Watched {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let unread = Arc::<Mutex<Option<Instant>>>::default();
        self.0.lock().insert(number, Suspect { ender, grew: 0, unread: unread.clone() });
        Watched { running: self.0.clone(), number, unread }
    }

    /// Ends the statement whose result has been unread for longest, if that is too long; returns whether it ended one.
    pub(crate) fn end_stalled(&self) -> bool {
        self.end_unread_before(Instant::now().checked_sub(PATIENCE))
    }

    fn end_unread_before(&self, before: Option<Instant>) -> bool {
        let mut statements = self.0.lock();
        let since = |suspect: &Suspect| *suspect.unread.lock().unwrap_or_else(PoisonError::into_inner);
        let stalled = statements.iter().filter_map(|(number, suspect)| Some((since(suspect)?, *number))).min();
        let Some((since, number)) = stalled.filter(|(since, _)| before.is_some_and(|before| *since <= before)) else {
            return false;
        };
        let suspect = statements.remove(&number);
        drop(statements);
        let Some(Suspect { ender, .. }) = suspect else { return false };
        let unread = since.elapsed();
        tracing::info!(?unread, "a result that nobody reads is ended, as others find no memory");
        metrics::counter!(ENDED_METRIC, "reason" => "unread").increment(1);
        ender.end(EngineError::new(
            ErrorKind::Exhausted,
            "the result was left unread while other statements found no memory, so it was ended; \
             read it as it comes, or ask for less at once",
        ));
        true
    }
}

fn watch(running: &Weak<Running>, limit: usize) {
    let (mut before, mut grace, mut at_last_end) = (0, 0_u32, 0_usize);
    loop {
        std::thread::sleep(POLL_INTERVAL);
        let Some(running) = running.upgrade() else { return };
        let Some(now) = resident() else { continue };
        let mut statements = running.lock();
        share(now.saturating_sub(before), &mut statements);
        before = now;
        grace = grace.saturating_sub(1);
        let grows_on = now > at_last_end.saturating_add(limit / 8);
        if now <= limit || (grace > 0 && !grows_on) {
            continue;
        }
        let Some(number) = most_suspect(&statements) else { continue };
        let suspect = statements.remove(&number);
        drop(statements);
        (grace, at_last_end) = (GRACE, now);
        if let Some(Suspect { ender, grew, .. }) = suspect {
            tracing::warn!(
                resident = now,
                limit,
                grew,
                "the process has more memory than its limit; a statement is ended"
            );
            metrics::counter!(ENDED_METRIC, "reason" => "process").increment(1);
            ender.end(EngineError::new(
                ErrorKind::Exhausted,
                "the server has more memory in use than it may, and this statement ran while it grew; ask for less at once",
            ));
        }
    }
}

/// Adds to each statement its share of the growth of the process.
fn share(grown: usize, statements: &mut HashMap<u64, Suspect>) {
    let each = grown / statements.len().max(1);
    statements.values_mut().for_each(|suspect| suspect.grew = suspect.grew.saturating_add(each));
}

/// Returns the statement to end first; among equal growth, the one that began last.
fn most_suspect(statements: &HashMap<u64, Suspect>) -> Option<u64> {
    statements.iter().max_by_key(|(number, suspect)| (suspect.grew, **number)).map(|(number, _)| *number)
}

/// Returns the resident memory of the process in bytes; `None` if the system does not report it.
fn resident() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_that_ran_while_memory_grew_is_ended_first() {
        let watch = MemoryWatch::default();
        let begin = || watch.watch(Ender::idle());
        let (first, second) = (begin(), begin());
        share(1000, &mut watch.0.lock());
        let third = begin();
        share(300, &mut watch.0.lock());
        assert_eq!(most_suspect(&watch.0.lock()), Some(second.number), "of equals, the later one");
        drop(second);
        assert_eq!(most_suspect(&watch.0.lock()), Some(first.number));
        share(10_000, &mut HashMap::new());
        drop(first);
        assert_eq!(most_suspect(&watch.0.lock()), Some(third.number));
        drop(third);
        assert_eq!(most_suspect(&watch.0.lock()), None);
    }

    #[test]
    fn the_result_that_was_left_alone_longest_is_ended_first() {
        let watch = MemoryWatch::default();
        let begin = || watch.watch(Ender::idle());
        let (computing, first, second, read) = (begin(), begin(), begin(), begin());
        for unread in [&first, &second, &read] {
            unread.is_awaited(false);
        }
        read.is_awaited(true);
        let numbers = || watch.0.lock().keys().copied().collect::<std::collections::BTreeSet<_>>();
        assert!(!watch.end_stalled(), "none has waited for so long");
        assert!(watch.end_unread_before(Some(Instant::now())));
        assert_eq!(numbers(), [computing.number, second.number, read.number].into());
        assert!(watch.end_unread_before(Some(Instant::now())));
        assert!(!watch.end_unread_before(Some(Instant::now())), "of the others, one computes and one is read");
        assert_eq!(numbers(), [computing.number, read.number].into());
    }

    #[test]
    fn the_process_is_measured() {
        assert!(!cfg!(target_os = "linux") || resident().is_some_and(|bytes| bytes > 100_000));
    }
}
