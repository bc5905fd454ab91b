//! The memory pool that all queries and memory tables share.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, human_readable_size,
};

/// A common limit under which consumers that can work with less memory leave a part to the others.
///
/// A consumer that cannot work with less may take all that is left, and gets an error if that is too little. The others
/// may hold a multiple of what is then left ([`share`]), so some memory always remains: with a factor of two, a single
/// consumer holds two thirds of the memory, and two consumers hold two fifths each. The remainder is needed: a sort
/// whose memory is full merges its data before it spills, which takes as much again, and a concurrent sort reserves
/// memory before it has a row. (DataFusion's own pool gives spilling consumers equal parts of everything, and merges of
/// spilled data everything: the next consumer finds nothing.) The rule is that of dynamic thresholds, by which switches
/// share their buffers among queues.
pub(crate) struct SharedPool {
    limit: usize,
    used: AtomicUsize,
    /// Frees memory if the pool is exhausted; returns whether it did.
    relief: Box<dyn Fn() -> bool + Send + Sync>,
}

/// Returns the multiple of the remaining memory that a consumer may hold, as a fraction; `None` if it cannot work with
/// less.
///
/// The names are those of DataFusion's sort. If DataFusion renames a consumer, the default for its kind applies.
fn share(consumer: &MemoryConsumer) -> Option<(usize, usize)> {
    match consumer.name() {
        // Before it spills it needs memory for the keys and the batches that it merges.
        name if name.starts_with("ExternalSorter[") => Some((1, 2)),
        // With less memory it merges fewer files at once.
        name if name.starts_with("ExternalSorterMerge[") => Some((1, 1)),
        _ => consumer.can_spill().then_some((2, 1)),
    }
}

impl SharedPool {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0), relief: Box::new(|| false) }
    }

    /// Calls `relief` if there is no memory left, repeatedly while it frees some.
    pub(crate) fn with_relief(self, relief: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { relief: Box::new(relief), ..self }
    }

    /// Returns how much more a consumer may reserve.
    fn available(&self, used: usize, reservation: &MemoryReservation) -> usize {
        let left = self.limit.saturating_sub(used);
        match share(reservation.consumer()) {
            None => left,
            // The largest value for which size + value <= times / of * (left - value).
            Some((times, of)) => {
                left.saturating_mul(times).saturating_sub(reservation.size().saturating_mul(of)) / (times + of)
            }
        }
    }
}

impl MemoryPool for SharedPool {
    fn name(&self) -> &'static str {
        "shared"
    }

    fn grow(&self, _: &MemoryReservation, additional: usize) {
        self.used.fetch_add(additional, Ordering::Relaxed);
    }

    fn shrink(&self, _: &MemoryReservation, shrink: usize) {
        self.used.fetch_sub(shrink, Ordering::Relaxed);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let grown = |used| (additional <= self.available(used, reservation)).then(|| used + additional);
        let used = loop {
            let Err(used) = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown) else { return Ok(()) };
            // A consumer with enough to spill can work with less. A request that can never be met must not cost other
            // results.
            let spills = share(reservation.consumer()).is_some() && reservation.size() >= additional;
            if spills || additional > self.limit.saturating_sub(reservation.size()) || !(self.relief)() {
                break used;
            }
        };
        let available = self.available(used, reservation);
        let [additional, held, available] = [additional, reservation.size(), available].map(human_readable_size);
        let who = reservation.consumer().name();
        Err(DataFusionError::ResourcesExhausted(format!(
            "{who} has {held}, needs {additional} more, and could have {available} more of {self}"
        )))
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}

impl fmt::Display for SharedPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [limit, used] = [self.limit, self.reserved()].map(human_readable_size);
        write!(f, "{limit}, of which {used} are in use")
    }
}

impl fmt::Debug for SharedPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1 << 20;

    fn pool() -> Arc<dyn MemoryPool> {
        Arc::new(SharedPool::new(LIMIT))
    }

    fn reservation(pool: &Arc<dyn MemoryPool>, can_spill: bool) -> MemoryReservation {
        MemoryConsumer::new("it").with_can_spill(can_spill).register(pool)
    }

    /// Reserves as much as possible, down to the byte.
    fn fill(reservation: &MemoryReservation) {
        let mut step = LIMIT;
        while step > 0 {
            if reservation.try_grow(step).is_err() {
                step /= 2;
            }
        }
    }

    #[test]
    fn those_that_can_spill_leave_a_part() {
        let pool = pool();
        let (first, second, third) = (reservation(&pool, true), reservation(&pool, true), reservation(&pool, false));
        fill(&first);
        assert_eq!(first.size(), LIMIT * 2 / 3);
        fill(&second);
        assert_eq!(second.size(), (LIMIT - first.size()) * 2 / 3);
        // It spills, and finds what the other one leaves.
        first.free();
        fill(&first);
        fill(&second);
        assert!(first.size() > LIMIT * 2 / 5 && second.size() < LIMIT * 2 / 5);
        let left = LIMIT - pool.reserved();
        assert!(left > LIMIT / 10, "{left}");
        // A consumer that cannot spill takes the rest; then no reservation succeeds.
        fill(&third);
        assert_eq!(third.size(), left);
        assert!(first.try_grow(1).is_err() && second.try_grow(1).is_err() && third.try_grow(1).is_err());
    }

    #[test]
    fn a_sort_leaves_room_for_its_merge() {
        let pool = pool();
        let named = |name: &str, can_spill| MemoryConsumer::new(name).with_can_spill(can_spill).register(&pool);
        let (rows, merge) = (named("ExternalSorter[0]", true), named("ExternalSorterMerge[0]", false));
        fill(&rows);
        assert_eq!(rows.size(), LIMIT / 3);
        fill(&merge);
        assert!(merge.size() >= rows.size() && pool.reserved() < LIMIT * 4 / 5);
    }

    #[test]
    fn relief_is_asked_for_until_there_is_room_or_it_makes_none() {
        let held = Arc::new(std::sync::Mutex::new(Vec::<MemoryReservation>::new()));
        let gives = held.clone();
        let relief = move || gives.lock().unwrap().pop().is_some();
        let pool: Arc<dyn MemoryPool> = Arc::new(SharedPool::new(LIMIT).with_relief(relief));
        let spills = reservation(&pool, true);
        spills.try_grow(LIMIT / 4).unwrap();
        for _ in 0..3 {
            let one = reservation(&pool, false);
            one.try_grow(LIMIT / 4).unwrap();
            held.lock().unwrap().push(one);
        }
        let left = || held.lock().unwrap().len();
        let it = reservation(&pool, false);
        assert!(it.try_grow(LIMIT + 1).is_err(), "it could never be had");
        assert!(spills.try_grow(LIMIT / 8).is_err(), "it can spill what it has");
        assert_eq!(left(), 3);
        it.try_grow(LIMIT / 2).unwrap();
        assert_eq!(left(), 1);
        reservation(&pool, true).try_grow(LIMIT / 8).unwrap();
        assert_eq!(left(), 0, "who has nothing yet has nothing to spill");
        assert!(it.try_grow(LIMIT / 2).is_err());
    }

    #[test]
    fn what_is_said() {
        let pool = pool();
        let (keeps, spills) = (reservation(&pool, false), reservation(&pool, true));
        keeps.try_grow(LIMIT / 2).unwrap();
        spills.try_grow(1024).unwrap();
        let said = |reservation: &MemoryReservation| reservation.try_grow(LIMIT).unwrap_err().strip_backtrace();
        for (who, expected) in [
            (
                &keeps,
                "it has 512.0 KB, needs 1024.0 KB more, and could have 511.0 KB more of 1024.0 KB, of which 513.0 KB are in use",
            ),
            (
                &spills,
                "it has 1024.0 B, needs 1024.0 KB more, and could have 340.3 KB more of 1024.0 KB, of which 513.0 KB are in use",
            ),
        ] {
            assert!(said(who).ends_with(expected), "{}", said(who));
        }
    }

    proptest! {
        /// The total always equals the sum of the reservations and never exceeds the limit.
        #[test]
        fn the_sum_is_right(steps in proptest::collection::vec((0_usize..4, 0..LIMIT / 2, any::<bool>()), 1..200)) {
            let pool = pool();
            let all: Vec<_> = (0..4).map(|at| reservation(&pool, at % 2 == 0)).collect();
            for (at, size, grows) in steps {
                let (it, before) = (&all[at], all[at].size());
                if grows {
                    let grew = it.try_grow(size).is_ok();
                    prop_assert_eq!(it.size(), before + if grew { size } else { 0 });
                    prop_assert!(at % 2 == 1 || !grew || it.size() <= 2 * (LIMIT - pool.reserved()));
                } else {
                    it.shrink(size.min(before));
                }
                prop_assert_eq!(pool.reserved(), all.iter().map(MemoryReservation::size).sum::<usize>());
                prop_assert!(pool.reserved() <= LIMIT);
            }
        }
    }
}
