//! Throttles guessing: an address that fails too often must wait. All tables here are bounded.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Maximum number of addresses tracked separately; beyond it, further ones share one allowance.
const MAX_ADDRESSES: usize = 10_000;

/// How long a key counts as known from an address.
const KNOWN: Duration = Duration::from_secs(10 * 60);

/// Minimum time between two sweeps of a full table for expired entries.
const SWEEP: Duration = Duration::from_secs(1);

/// Counts failures by address, across all endpoints.
pub struct Throttle {
    failures: DefaultKeyedRateLimiter<Source>,
    clock: DefaultClock,
    /// When the wait of each address ends.
    waiting: RwLock<Table<Source>>,
    /// When a key no longer counts as known from an address.
    known: RwLock<Table<(Source, Arc<str>)>>,
    swept: Mutex<Option<Instant>>,
}

/// A counted address: an IPv6 network has 2^64 addresses (RFC 4291 §2.5.1), which count as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Source(Option<IpAddr>);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self(Some(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
            v4 => v4,
        }))
    }
}

impl Throttle {
    /// Allows an address `failures` failures at once, and the same number per minute after that.
    pub fn new(failures: NonZero<u32>) -> Self {
        Self {
            failures: RateLimiter::keyed(Quota::per_minute(failures)),
            clock: DefaultClock::default(),
            waiting: RwLock::default(),
            known: RwLock::default(),
            swept: Mutex::default(),
        }
    }

    /// Returns how long an address must still wait; `None` if it need not.
    pub(crate) fn wait(&self, source: Source) -> Option<Duration> {
        let waiting = self.waiting.read().unwrap_or_else(PoisonError::into_inner);
        waiting.until(&source).and_then(|until| until.checked_duration_since(Instant::now())).filter(|w| !w.is_zero())
    }

    /// Counts a failure. Returns whether the address must wait from now on.
    pub(crate) fn failed(&self, source: Source) -> bool {
        let now = Instant::now();
        if self.failures.len() >= MAX_ADDRESSES {
            let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
            if swept.is_none_or(|at| now.duration_since(at) >= SWEEP) {
                self.failures.retain_recent();
                *swept = Some(now);
            }
        }
        let counted = if self.failures.len() >= MAX_ADDRESSES { Source(None) } else { source };
        let Err(not_until) = self.failures.check_key(&counted) else { return false };
        let wait = not_until.wait_time_from(self.clock.now());
        self.waiting.write().unwrap_or_else(PoisonError::into_inner).insert(source, now + wait, now);
        true
    }

    /// Records that a key was accepted from an address.
    pub(crate) fn record_success(&self, source: Source, key: &Arc<str>) {
        let now = Instant::now();
        let entry = (source, key.clone());
        let is_fresh = |until: Instant| until > now + KNOWN / 2;
        if self.known.read().unwrap_or_else(PoisonError::into_inner).until(&entry).is_some_and(is_fresh) {
            return;
        }
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(entry, now + KNOWN, now);
    }

    /// Returns whether a key was recently accepted from an address.
    pub(crate) fn recently_authenticated(&self, source: Source, key: &Arc<str>) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.until(&(source, key.clone())).is_some_and(|until| until > Instant::now())
    }
}

/// Entries that expire. If the table is full of unexpired entries, new ones are dropped.
struct Table<K> {
    entries: HashMap<K, Instant>,
    swept: Option<Instant>,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { entries: HashMap::new(), swept: None }
    }
}

impl<K: Eq + Hash> Table<K> {
    fn until(&self, key: &K) -> Option<Instant> {
        self.entries.get(key).copied()
    }

    fn insert(&mut self, key: K, until: Instant, now: Instant) {
        let full = self.entries.len() >= MAX_ADDRESSES;
        if full && self.swept.is_none_or(|at| now.duration_since(at) >= SWEEP) {
            self.entries.retain(|_, until| *until > now);
            self.swept = Some(now);
        }
        if self.entries.len() < MAX_ADDRESSES || self.entries.contains_key(&key) {
            self.entries.insert(key, until);
        }
    }
}

impl std::fmt::Debug for Throttle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Throttle")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_fails_waits_and_no_other_does() {
        let throttle = Throttle::new(NonZero::new(3).unwrap());
        let source = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        let bad = source("192.0.2.1");
        assert_eq!([0; 4].map(|_| throttle.failed(bad)), [false, false, false, true]);
        assert!(throttle.wait(bad).is_some_and(|wait| wait <= Duration::from_secs(20)));
        assert!(throttle.wait(source("192.0.2.2")).is_none());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:192.0.2.1"), bad);
    }

    #[test]
    fn memory_is_bounded() {
        let throttle = Throttle::new(NonZero::new(1).unwrap());
        for n in 0..3 * MAX_ADDRESSES as u32 {
            let source = Source::from(IpAddr::V4(n.into()));
            throttle.failed(source);
            throttle.failed(source);
            throttle.record_success(source, &"k".into());
        }
        assert!(throttle.failures.len() <= MAX_ADDRESSES + 1);
        assert!(throttle.waiting.read().unwrap().entries.len() <= MAX_ADDRESSES);
        assert!(throttle.known.read().unwrap().entries.len() <= MAX_ADDRESSES);
    }
}
