//! Which statements run now: slots by role, and a share of them by caller.
//!
//! A slot belongs to work, not to whoever waits for its result: the engine holds it until the work has really ended,
//! also where the caller was answered long before, and gives it back while a result waits for a slow reader.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::{EngineError, ErrorKind, Principal, Role};

/// How many results may be open for each statement that may run: most wait for their readers.
const OPEN_PER_RUNNING: usize = 4;

/// How many callers are remembered before those without a slot are forgotten.
const MAX_CALLERS: usize = 1_024;

/// How many statements run at a time, and how many may wait for that, for each role: readers never keep writers from
/// running, nor the other way round. Cheap to clone; clones share.
#[derive(Debug, Clone)]
pub struct AdmissionControl {
    readers: Arc<RoleQueue>,
    writers: Arc<RoleQueue>,
    queue_timeout: Duration,
}

/// The statements of one role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleLimits {
    /// How many run at a time.
    pub running: usize,
    /// How many more may wait.
    pub waiting: usize,
}

impl Default for RoleLimits {
    /// 64 that run, 256 that wait.
    fn default() -> Self {
        Self { running: 64, waiting: 256 }
    }
}

impl RoleLimits {
    /// What one caller may have of `all`: three quarters, so that the others always find some.
    fn share(all: usize) -> usize {
        all - all / 4
    }
}

/// One count for all callers of a role, and one for each of them.
#[derive(Debug)]
struct Quota {
    all: Arc<Semaphore>,
    share: usize,
    callers: Mutex<HashMap<Arc<str>, Weak<Semaphore>>>,
}

/// A place within a [`Quota`].
#[derive(Debug)]
struct QueuePlace {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Quota {
    /// So many places, of which one caller may have three quarters.
    fn new(places: usize) -> Self {
        Self::of(places, RoleLimits::share(places))
    }

    fn of(places: usize, share: usize) -> Self {
        let [places, share] = [places, share].map(|count| count.min(Semaphore::MAX_PERMITS));
        Self { all: Arc::new(Semaphore::new(places)), share, callers: Mutex::default() }
    }

    fn own(&self, caller: &Arc<str>) -> Arc<Semaphore> {
        // A map of counts that are shared: nothing in between can panic.
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = callers.get(caller).and_then(Weak::upgrade) {
            return own;
        }
        if callers.len() >= MAX_CALLERS {
            callers.retain(|_, own| own.strong_count() > 0);
        }
        let own = Arc::new(Semaphore::new(self.share));
        callers.insert(caller.clone(), Arc::downgrade(&own));
        own
    }

    fn try_take(&self, caller: &Arc<str>) -> Option<QueuePlace> {
        let _own = self.own(caller).try_acquire_owned().ok()?;
        let _all = self.all.clone().try_acquire_owned().ok()?;
        Some(QueuePlace { _own, _all })
    }

    async fn take(&self, caller: &Arc<str>) -> Option<QueuePlace> {
        let _own = self.own(caller).acquire_owned().await.ok()?;
        let _all = self.all.clone().acquire_owned().await.ok()?;
        Some(QueuePlace { _own, _all })
    }
}

#[derive(Debug)]
struct RoleQueue {
    limits: RoleLimits,
    running: Quota,
    waiting: Quota,
    open: Quota,
}

impl RoleQueue {
    fn new(limits: RoleLimits) -> Self {
        Self {
            limits,
            running: Quota::new(limits.running),
            // All that are configured for one caller, and a quarter more for the others.
            waiting: Quota::of(limits.waiting.saturating_add(limits.waiting / 4), limits.waiting),
            open: Quota::new(limits_open(limits)),
        }
    }
}

/// How many results may be open at a time.
fn limits_open(limits: RoleLimits) -> usize {
    limits.running.saturating_mul(OPEN_PER_RUNNING)
}

impl Default for AdmissionControl {
    /// The default for each role, and a queue timeout of 10 s.
    fn default() -> Self {
        Self::new(RoleLimits::default(), RoleLimits::default(), Duration::from_secs(10))
    }
}

impl AdmissionControl {
    /// Limits for callers that read and for those that also write; one that waits for longer than `queue_timeout` is
    /// refused.
    pub fn new(readers: RoleLimits, writers: RoleLimits, queue_timeout: Duration) -> Self {
        let queue = |limits| Arc::new(RoleQueue::new(limits));
        Self { readers: queue(readers), writers: queue(writers), queue_timeout }
    }

    /// Waits for a slot.
    pub(crate) async fn admit(&self, principal: &Principal) -> Result<Slot, EngineError> {
        let queue = match principal.role() {
            Role::ReadOnly => &self.readers,
            Role::ReadWrite => &self.writers,
        };
        let caller = principal.share_key();
        let RoleLimits { running, waiting } = queue.limits;
        let role = principal.role();
        let busy = |why: String| EngineError::new(ErrorKind::Exhausted, format!("{why}; try again"));
        // What waits for its turn has no result yet.
        let slot = |running| {
            let Some(open) = queue.open.try_take(&caller) else {
                return Err(busy(format!(
                    "results of callers with the role {role} are open and wait to be read, as many as there may be: {} in \
                     all, {} of one caller",
                    limits_open(queue.limits),
                    queue.open.share
                )));
            };
            Ok(Slot { queue: queue.clone(), caller: caller.clone(), _open: open, running: Some(running) })
        };
        if let Some(running) = queue.running.try_take(&caller) {
            return slot(running);
        }
        let taken = |more: String| {
            let share = queue.running.share;
            busy(format!(
                "{running} statements of callers with the role {role}, or {share} of this caller, run already, {more}"
            ))
        };
        let Some(_waits) = queue.waiting.try_take(&caller) else {
            return Err(taken(format!("and {waiting} wait")));
        };
        match timeout(self.queue_timeout, queue.running.take(&caller)).await {
            Ok(Some(running)) => slot(running),
            _ => Err(taken(format!("and none ended within {:?}", self.queue_timeout))),
        }
    }
}

/// The right of one statement to run. Dropping it lets another one run.
///
/// An engine that works on beyond the future it was asked with, in a task of its own say, takes the slot with it
/// ([`Slot::take_current`]). Where it does not, [`Guarded`](crate::Guarded) holds the slot until the result is dropped.
pub struct Slot {
    queue: Arc<RoleQueue>,
    caller: Arc<str>,
    _open: QueuePlace,
    /// `None` while the result waits for its reader.
    running: Option<QueuePlace>,
}

tokio::task_local! {
    static CURRENT: RefCell<Option<Slot>>;
}

impl Slot {
    /// The slot of the call that is being made to the engine, for the work that outlives it.
    pub fn take_current() -> Option<Self> {
        CURRENT.try_with(|slot| slot.borrow_mut().take()).ok().flatten()
    }

    /// Leaves the slot to the statement's next step.
    pub fn release(self) {
        // Outside a call of `Guarded`'s there is no next step, and the slot is free.
        let _ = CURRENT.try_with(|slot| slot.replace(Some(self)));
    }

    /// Lets another statement run while this one waits for its reader.
    pub fn pause(&mut self) {
        self.running = None;
    }

    /// Runs again; waits until it may.
    pub async fn resume(&mut self) {
        if self.running.is_none() {
            self.running = self.queue.running.take(&self.caller).await;
        }
    }

    /// Makes `call` with `slot`; gives back the slot where nobody took it.
    pub(crate) async fn within<T>(slot: Option<Self>, call: impl Future<Output = T>) -> (T, Option<Self>) {
        CURRENT
            .scope(RefCell::new(slot), async {
                let done = call.await;
                (done, Self::take_current())
            })
            .await
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("runs", &self.running.is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::RequestContext;

    fn limits(running: usize, waiting: usize) -> RoleLimits {
        RoleLimits { running, waiting }
    }

    fn reader(name: &str) -> Principal {
        Principal::new(name, Role::ReadOnly)
    }

    #[tokio::test]
    async fn a_caller_without_a_place_is_refused_and_the_other_role_is_not() {
        let control = AdmissionControl::new(limits(1, 1), limits(1, 0), Duration::from_secs(60));
        let first = control.admit(&reader("a")).await.unwrap();
        let second = tokio::spawn({
            let control = control.clone();
            async move { control.admit(&reader("b")).await.map(|_| ()) }
        });
        while control.readers.waiting.all.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(control.admit(&reader("c")).await.unwrap_err().kind(), ErrorKind::Exhausted);
        assert!(control.admit(&Principal::new("w", Role::ReadWrite)).await.is_ok());
        drop(first);
        assert!(second.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_caller_that_waits_too_long_is_refused() {
        let control = AdmissionControl::new(limits(0, 1), RoleLimits::default(), Duration::from_millis(1));
        assert_eq!(control.admit(&reader("a")).await.unwrap_err().kind(), ErrorKind::Exhausted);
    }

    #[tokio::test]
    async fn no_caller_has_all_slots() {
        let control = AdmissionControl::new(limits(8, 0), RoleLimits::default(), Duration::ZERO);
        let mut held = Vec::new();
        for _ in 0..6 {
            held.push(control.admit(&reader("greedy")).await.unwrap());
        }
        assert_eq!(control.admit(&reader("greedy")).await.unwrap_err().kind(), ErrorKind::Exhausted);
        let other = control.admit(&reader("other")).await.unwrap();
        // Without credentials, an address is a caller.
        let from = |last| {
            let address = Some(Ipv4Addr::new(127, 0, 0, last).into());
            Principal::anonymous(Role::ReadOnly).with_context(RequestContext { address, ..RequestContext::default() })
        };
        drop(held);
        let mut held = Vec::new();
        for _ in 0..6 {
            held.push(control.admit(&from(1)).await.unwrap());
        }
        assert!(control.admit(&from(1)).await.is_err());
        assert!(control.admit(&from(2)).await.is_ok());
        drop(other);
    }

    #[tokio::test]
    async fn a_result_that_waits_for_its_reader_lets_others_run_up_to_a_bound() {
        let control = AdmissionControl::new(limits(1, 0), RoleLimits::default(), Duration::ZERO);
        let mut stalled = Vec::new();
        for _ in 0..RoleLimits::share(OPEN_PER_RUNNING) {
            let mut slot = control.admit(&reader("slow")).await.unwrap();
            assert!(control.admit(&reader("other")).await.is_err());
            slot.pause();
            stalled.push(slot);
        }
        assert!(control.admit(&reader("slow")).await.is_err(), "as many results as one caller may leave open");
        let running = control.admit(&reader("other")).await.unwrap();
        let resumed = stalled[0].resume();
        tokio::pin!(resumed);
        assert!(futures::poll!(&mut resumed).is_pending());
        drop(running);
        resumed.await;
        assert!(control.admit(&reader("other")).await.is_err());
    }

    #[tokio::test]
    async fn the_slot_of_a_call_is_for_whoever_takes_it() {
        let control = AdmissionControl::default();
        let slot = || async { Some(control.admit(&reader("a")).await.unwrap()) };
        let (taken, left) = Slot::within(slot().await, async { Slot::take_current() }).await;
        assert!(taken.is_some() && left.is_none());
        let call = async { Slot::take_current().unwrap().release() };
        assert!(Slot::within(slot().await, call).await.1.is_some());
        assert!(Slot::take_current().is_none());
    }
}
