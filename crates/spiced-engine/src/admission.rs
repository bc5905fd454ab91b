//! Admission control: which statements may run now, by slots for each role and a share of them for each caller.
//!
//! A slot belongs to the work, not to the caller that waits for the result. The engine holds it until the work has
//! really ended, even if the caller was answered long before, and releases it while a result waits for a slow reader.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::{EngineError, ErrorKind, Principal, Role};

/// How many results may be open for each statement that may run: most of them wait for their readers.
const OPEN_PER_RUNNING: usize = 4;

/// How many callers are remembered before those without a slot are dropped.
const MAX_CALLERS: usize = 1_024;

/// Limits how many statements run concurrently and how many may wait, separately for each role: readers never block
/// writers, nor writers readers. Clones are cheap and share the limits.
#[derive(Debug, Clone)]
pub struct AdmissionControl {
    readers: Arc<RoleQueue>,
    writers: Arc<RoleQueue>,
    queue_timeout: Duration,
}

/// The limits of one role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleLimits {
    /// The maximum number of running statements.
    pub running: usize,
    /// The maximum number of waiting statements.
    pub waiting: usize,
}

impl Default for RoleLimits {
    /// 64 running, 256 waiting.
    fn default() -> Self {
        Self { running: 64, waiting: 256 }
    }
}

impl RoleLimits {
    /// Returns the share of `all` that one caller may hold: three quarters, so that some remain for the others.
    fn share(all: usize) -> usize {
        all - all / 4
    }
}

/// A count for all callers of a role, and one for each caller.
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
    /// Creates a quota of `places`; one caller may hold three quarters of them.
    fn new(places: usize) -> Self {
        Self::of(places, RoleLimits::share(places))
    }

    fn of(places: usize, share: usize) -> Self {
        let [places, share] = [places, share].map(|count| count.min(Semaphore::MAX_PERMITS));
        Self { all: Arc::new(Semaphore::new(places)), share, callers: Mutex::default() }
    }

    fn own(&self, caller: &Arc<str>) -> Arc<Semaphore> {
        // A map of shared counts: no code here panics while it holds the lock.
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
            // One caller may use the whole configured number; a quarter more is added for the others.
            waiting: Quota::of(limits.waiting.saturating_add(limits.waiting / 4), limits.waiting),
            open: Quota::new(limits_open(limits)),
        }
    }
}

/// Returns the maximum number of open results.
fn limits_open(limits: RoleLimits) -> usize {
    limits.running.saturating_mul(OPEN_PER_RUNNING)
}

impl Default for AdmissionControl {
    /// The default limits for each role, and a queue timeout of 10 s.
    fn default() -> Self {
        Self::new(RoleLimits::default(), RoleLimits::default(), Duration::from_secs(10))
    }
}

impl AdmissionControl {
    /// Sets the limits for read-only callers and for callers that also write. A statement that waits longer than
    /// `queue_timeout` is refused.
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
        // A waiting statement has no open result yet.
        let slot = |running| {
            let Some(open) = queue.open.try_take(&caller) else {
                return Err(busy(format!(
                    "callers with the role {role} have the maximum number of unread results: {} in all, {} of one \
                     caller",
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
                "{running} statements of callers with the role {role}, or {share} of this caller, are running already, \
                 {more}"
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

/// The right of one statement to run. Dropping it lets another statement run.
///
/// An engine whose work outlives the call, for example in a separate task, takes the slot with it
/// ([`Slot::take_current`]). Otherwise, [`Guarded`](crate::Guarded) holds the slot until the result is dropped.
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
    /// Takes the slot of the current call to the engine, for work that outlives the call.
    pub fn take_current() -> Option<Self> {
        CURRENT.try_with(|slot| slot.borrow_mut().take()).ok().flatten()
    }

    /// Returns the slot to the statement, for its next step.
    pub fn release(self) {
        // Outside a call from `Guarded` there is no next step, and the slot becomes free.
        let _ = CURRENT.try_with(|slot| slot.replace(Some(self)));
    }

    /// Lets another statement run while this one waits for its reader.
    pub fn pause(&mut self) {
        self.running = None;
    }

    /// Waits until the statement may run again.
    pub async fn resume(&mut self) {
        if self.running.is_none() {
            self.running = self.queue.running.take(&self.caller).await;
        }
    }

    /// Makes `call` with `slot`; returns the slot if the call did not take it.
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
        // Without credentials, the address identifies the caller.
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
