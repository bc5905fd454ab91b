//! The state that all sessions of an engine share, and the limits on their work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::execution::context::SessionState;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use futures::future::BoxFuture;
use spiced_engine::{EngineError, Role, Slot};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::catalog::policy::CatalogPolicy;
use crate::engine::plan_cache::PlanCache;
use crate::error::{ended, engine_error, timed_out};
use crate::execution::deadline::DeadlineGuard;
use crate::execution::deadline_timer::Clock;
use crate::execution::memory_watch::MemoryWatch;
use crate::execution::spill::SpillDirectory;
use crate::execution::work::{Ender, Overdue, Runtimes, uninterrupted};
use crate::proven::Proven;

/// The state that all sessions share.
pub(crate) struct EngineShared {
    /// The initial state of each session.
    pub(crate) state: Proven<SessionState>,
    pub(crate) rules: CatalogPolicy,
    pub(crate) query_timeout: Duration,
    /// The maximum length of a statement, in bytes.
    pub(crate) max_statement: usize,
    pub(crate) runtimes: Runtimes,
    pub(crate) overdue: Overdue,
    pub(crate) memory_watch: MemoryWatch,
    pub(crate) clock: Clock,
    pub(crate) plans: Arc<PlanCache>,
    /// The loader tasks; dropping the set ends them.
    pub(super) _loaders: JoinSet<()>,
    /// Removed when the engine ends.
    pub(super) _spill: Option<SpillDirectory>,
}

impl EngineShared {
    /// Counts `bytes` against the shared memory until the returned reservation is dropped.
    ///
    /// # Errors
    /// Fails if not enough memory is left.
    pub(crate) fn reserve(&self, who: &str, bytes: usize) -> Result<MemoryReservation, EngineError> {
        let reservation = MemoryConsumer::new(who).register(&self.state.runtime_env().memory_pool);
        reservation.try_grow(bytes).map_err(engine_error)?;
        Ok(reservation)
    }

    /// Returns whether `state` is the initial state of every session, with no setting changed.
    pub(crate) fn is_unset(&self, state: &Proven<SessionState>) -> bool {
        state.is_same(&self.state)
    }

    /// Calls `end`, which ends some work and must not block, at `when`, or sooner if the process exceeds its memory
    /// limit, unless the returned guard is dropped first.
    pub(crate) fn strike(&self, when: Instant, end: impl FnOnce() + Send + 'static) -> DeadlineGuard {
        let (strike, struck) = oneshot::channel();
        let ender = Ender::new(move |why| {
            end();
            // The receiver is gone if the work has just finished.
            let _ = strike.send(why);
        });
        let (limit, at_deadline) = (self.query_timeout, ender.clone());
        let alarm = self.clock.at(when, move || at_deadline.end(timed_out(limit)));
        DeadlineGuard { struck, why: None, _alarm: alarm, watched: self.memory_watch.watch(ender) }
    }

    /// Runs `work`, which plans, for a caller with `role` within the time limit. The work owns the slot of the call and
    /// releases it when it ends, which may be after the caller got its response.
    ///
    /// # Errors
    /// Fails if the deadline expires or the work panics.
    pub(crate) async fn within_limit<T: Send + 'static>(
        &self,
        role: Role,
        work: BoxFuture<'static, T>,
    ) -> Result<T, EngineError> {
        let limit = self.query_timeout;
        let (slot, begun) = (Slot::take_current(), self.overdue.begin());
        let (stop, is_late) = (CancellationToken::new(), begun.deadline());
        let end = stop.clone();
        let mut strike = self.strike(Instant::now() + limit, move || {
            end.cancel();
            is_late();
        });
        // A caller that disconnects stops the work, too.
        let _stops = stop.clone().drop_guard();
        let task = async move {
            let _begun = begun;
            (uninterrupted(&stop, work), slot)
        };
        let mut task = AbortOnDropHandle::new(self.runtimes.of(role).spawn(task));
        let done = tokio::select! {
            biased;
            done = &mut task => done,
            // Running work cannot be aborted; it stops at its next check, and keeps its slot until then.
            why = strike.comes() => return Err(why),
        };
        match done {
            Ok((Some(done), slot)) => {
                if let Some(slot) = slot {
                    slot.release();
                }
                Ok(done)
            }
            Ok((None, _)) => Err(strike.has_come().unwrap_or_else(|| timed_out(limit))),
            Err(failure) => Err(strike.has_come().unwrap_or_else(|| ended(failure))),
        }
    }
}
