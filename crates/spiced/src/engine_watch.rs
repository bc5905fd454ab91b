//! Whether the threads that run statements still run anything.
//!
//! Each of the two runtimes has a task that says every second that it was run. Where one was not for long, all its threads
//! are busy with work that never yields: then no statement of its callers completes, whatever the listeners answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metrics::gauge;
use spiced_engine::Role;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{error, info};

/// How often a runtime says that it runs, and is looked at.
const TICK: Duration = Duration::from_secs(1);

/// After so long without a tick the server is not ready.
const UNREADY_AFTER: Duration = Duration::from_secs(10);

/// After so long `/health` says so too, and whoever supervises the process may restart it.
const UNHEALTHY_AFTER: Duration = Duration::from_secs(60);

/// For how long no statement could run, as Prometheus knows it.
pub(crate) const STALLED_METRIC: &str = "spiced_statements_stalled_seconds";

/// What the watch found.
pub(crate) struct Responsive {
    /// False where statements have not run for [`UNREADY_AFTER`].
    pub(crate) ready: watch::Receiver<bool>,
    /// False where they have not for [`UNHEALTHY_AFTER`].
    pub(crate) healthy: watch::Receiver<bool>,
}

/// Watches the runtimes of statements from the runtime that this is called in.
pub(crate) fn start(readers: &Handle, writers: &Handle) -> Responsive {
    let begun = Instant::now();
    let runtimes = [(Role::ReadOnly, readers), (Role::ReadWrite, writers)];
    let ticks = runtimes.map(|(role, runtime)| {
        let last = Arc::new(AtomicU64::new(0));
        let ticked = last.clone();
        runtime.spawn(async move {
            loop {
                ticked.store(since(begun), Ordering::Relaxed);
                tokio::time::sleep(TICK).await;
            }
        });
        (role, last)
    });
    let ((readiness, ready), (health, healthy)) = (watch::channel(true), watch::channel(true));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(TICK).await;
            let mut longest = Duration::ZERO;
            for (role, last) in &ticks {
                let stalled = stalled(since(begun), last.load(Ordering::Relaxed));
                gauge!(STALLED_METRIC, "role" => role.name()).set(stalled.as_secs_f64());
                longest = longest.max(stalled);
            }
            if publish(&readiness, longest < UNREADY_AFTER) {
                match *readiness.borrow() {
                    true => info!("statements run again"),
                    false => error!(
                        stalled = ?longest,
                        "no statement runs: every thread is busy with work that does not end; the server is not ready, and \
                         /health fails after {UNHEALTHY_AFTER:?}. runtime.queries and the audit log show the last statements"
                    ),
                }
            }
            publish(&health, longest < UNHEALTHY_AFTER);
        }
    });
    Responsive { ready, healthy }
}

/// Milliseconds since `begun`.
fn since(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// For how long a runtime that ticked `last` has not run at `now`, in milliseconds, beyond the time between two ticks.
fn stalled(now: u64, last: u64) -> Duration {
    Duration::from_millis(now.saturating_sub(last)).saturating_sub(2 * TICK)
}

/// Whether that is a change.
fn publish(to: &watch::Sender<bool>, value: bool) -> bool {
    to.send_if_modified(|before| std::mem::replace(before, value) != value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_stalled_from_its_second_tick_that_did_not_come() {
        assert_eq!(stalled(10_000, 9_000), Duration::ZERO);
        assert_eq!(stalled(10_000, 8_000), Duration::ZERO);
        assert_eq!(stalled(72_000, 8_000), Duration::from_secs(62));
        assert_eq!(stalled(1, 2), Duration::ZERO);
    }
}
