//! The timer that ends queries at their deadline. It has its own thread, because a runtime's timer stops while all of
//! the runtime's threads compute, and queries compute.
//!
//! A timer entry costs one map entry. The thread is woken only for an entry that is earlier than all others. Entries
//! with the same limit arrive in the order of their deadlines, so few queries wake the thread.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Runs callbacks at given times. Dropping it ends its thread.
#[derive(Debug)]
pub(crate) struct Clock(Arc<DeadlineTimer>);

impl Clock {
    /// Starts the thread.
    ///
    /// # Errors
    /// Fails if the system cannot create another thread.
    pub(crate) fn start() -> io::Result<Self> {
        let alarms = Arc::new(DeadlineTimer::default());
        let watched = alarms.clone();
        std::thread::Builder::new().name("query-clock".to_owned()).spawn(move || watched.run())?;
        Ok(Self(alarms))
    }

    /// Calls `strike`, which must not block, at `when`, unless the guard is dropped before then.
    pub(crate) fn at(&self, when: Instant, strike: impl FnOnce() + Send + 'static) -> TimerGuard {
        let mut set = self.0.lock();
        let place = (when, set.next);
        set.next += 1;
        set.strikes.insert(place, Box::new(strike));
        let is_first = set.strikes.first_key_value().is_some_and(|(first, _)| *first == place);
        drop(set);
        if is_first {
            self.0.changed.notify_one();
        }
        TimerGuard { alarms: self.0.clone(), place }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_one();
    }
}

/// The time of an entry, and its sequence number among entries of the same time.
type TimerKey = (Instant, u64);

/// The pending callbacks, by time.
#[derive(Default)]
struct DeadlineTimer {
    set: Mutex<Set>,
    changed: Condvar,
}

#[derive(Default)]
struct Set {
    strikes: BTreeMap<TimerKey, Box<dyn FnOnce() + Send>>,
    next: u64,
    ended: bool,
}

impl DeadlineTimer {
    fn run(&self) {
        let mut set = self.lock();
        while !set.ended {
            let now = Instant::now();
            let Some(first) = set.strikes.first_entry() else {
                set = self.changed.wait(set).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let (when, _) = *first.key();
            if when <= now {
                let strike = first.remove();
                drop(set);
                strike();
                set = self.lock();
            } else {
                set = self.changed.wait_timeout(set, when - now).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Set> {
        // No code that can panic runs under the lock.
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for DeadlineTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarms").field("set", &self.lock().strikes.len()).finish_non_exhaustive()
    }
}

/// A pending callback. Dropping the guard cancels it.
#[derive(Debug)]
pub(crate) struct TimerGuard {
    alarms: Arc<DeadlineTimer>,
    place: TimerKey,
}

impl Drop for TimerGuard {
    fn drop(&mut self) {
        let strike = self.alarms.lock().strikes.remove(&self.place);
        // Dropped outside the lock: the callback may own something that sets timers.
        drop(strike);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn alarms_strike_in_their_order_unless_they_are_dropped() {
        let clock = Clock::start().unwrap();
        let (said, heard) = mpsc::channel();
        let alarm = |name: &'static str, after: u64| {
            let said = said.clone();
            clock.at(Instant::now() + Duration::from_millis(after), move || said.send(name).unwrap())
        };
        let (_late, dropped, _soon, _now) =
            (alarm("late", 60), alarm("dropped", 20), alarm("soon", 40), alarm("now", 0));
        drop(dropped);
        let order: Vec<_> = heard.iter().take(3).collect();
        assert_eq!(order, ["now", "soon", "late"]);
        let alarms = Arc::downgrade(&clock.0);
        drop((_late, _soon, _now, clock));
        // The thread ends and drops the last other reference.
        while alarms.strong_count() > 0 {
            std::thread::yield_now();
        }
    }
}
