//! Detects that the threads that run statements are stuck.
//!
//! Each of the two runtimes has a task that ticks every second. If a runtime stops ticking, all its threads are busy
//! with work that never yields: no statement of its callers completes, although the listeners still answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::gauge;
use spiced_engine::Role;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{error, info};

/// The interval of ticks, and of checks for them.
const TICK: Duration = Duration::from_secs(1);

/// Without a tick for this long, the server is not ready.
const UNREADY_AFTER: Duration = Duration::from_secs(10);

/// Without a tick for this long, `/health` fails too, so that a supervisor may restart the process.
const UNHEALTHY_AFTER: Duration = Duration::from_secs(60);

/// The Prometheus metric for how long no statement could run.
const STALLED_METRIC: &str = "spiced_statements_stalled_seconds";

/// The result of the watch.
#[derive(Debug)]
pub struct Responsive {
    /// False if a runtime has been stalled for 10 s.
    pub ready: watch::Receiver<bool>,
    /// False if a runtime has been stalled for 60 s.
    pub healthy: watch::Receiver<bool>,
}

/// Watches the runtimes of statements, from the runtime that calls this.
pub fn watch_for_stalls(readers: &Handle, writers: &Handle) -> Responsive {
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

/// The ticks seen from a runtime. Counts polls instead of reading a clock: a clock that jumps, or a machine that slept,
/// causes no false alarm.
#[derive(Default)]
struct Pulse {
    last: u64,
    /// How many polls in a row found no new tick.
    missed: u32,
}

impl Pulse {
    /// Takes the current tick count and returns how long the runtime has been stalled. One missed tick is tolerated.
    fn look(&mut self, ticks: u64) -> Duration {
        self.missed = if ticks == self.last { self.missed.saturating_add(1) } else { 0 };
        self.last = ticks;
        TICK * self.missed.saturating_sub(1)
    }
}

/// Publishes `value` and returns whether it changed.
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
