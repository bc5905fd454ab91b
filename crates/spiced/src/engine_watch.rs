//! Whether the threads that run statements still run anything.
//!
//! Each of the two runtimes has a task that says every second that it was run. Where one was not for long, all its threads
//! are busy with work that never yields: then no statement of its callers completes, whatever the listeners answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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
    let runtimes = [(Role::ReadOnly, readers), (Role::ReadWrite, writers)];
    let mut pulses = runtimes.map(|(role, runtime)| {
        let ticks = Arc::new(AtomicU64::new(0));
        let ticked = ticks.clone();
        runtime.spawn(async move {
            loop {
                ticked.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(TICK).await;
            }
        });
        (role, ticks, Pulse::default())
    });
    let ((readiness, ready), (health, healthy)) = (watch::channel(true), watch::channel(true));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(TICK).await;
            let mut longest = Duration::ZERO;
            for (role, ticks, pulse) in &mut pulses {
                let stalled = pulse.look(ticks.load(Ordering::Relaxed));
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

/// What was seen of a runtime's ticks. Looks are counted and no clock is read: one that jumps, or a machine that slept,
/// stalls nobody.
#[derive(Default)]
struct Pulse {
    last: u64,
    /// How often in a row there was no new tick.
    missed: u32,
}

impl Pulse {
    /// For how long the runtime has not run, at a look that finds so many ticks; one may be missed by chance.
    fn look(&mut self, ticks: u64) -> Duration {
        self.missed = if ticks == self.last { self.missed.saturating_add(1) } else { 0 };
        self.last = ticks;
        TICK * self.missed.saturating_sub(1)
    }
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
        let mut pulse = Pulse::default();
        let looks = [1, 2, 2, 3, 3, 3, 3, 4].map(|ticks| pulse.look(ticks).as_secs());
        assert_eq!(looks, [0, 0, 0, 0, 0, 1, 2, 0]);
    }
}
