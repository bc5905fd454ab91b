//! Loads one data set, and retries until that succeeds.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use datafusion::catalog::TableProvider;
use datafusion::execution::context::SessionState;
use futures::FutureExt;
use spiced_engine::{DatasetState, DatasetStatus};
use tokio::sync::watch;

use crate::catalog::LoadState;
use crate::connectors::{LoadError, Source};
use crate::engine::plan_cache::PlanCache;
use crate::proven::Proven;

/// The pause after the first failure; it doubles with each further failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The maximum pause.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// The time limit of one attempt.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5 * 60);

/// The loader of one data set.
pub(crate) struct Loader {
    /// The index of the data set in the statuses.
    pub(crate) index: usize,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) state: Proven<SessionState>,
    pub(crate) slot: watch::Sender<LoadState>,
    pub(crate) statuses: watch::Sender<Vec<DatasetStatus>>,
    pub(crate) reloads: Reloads,
}

/// Announces data sets that were loaded again because their source changed. Cached plans and views that read them are
/// then stale.
#[derive(Clone)]
pub(crate) struct Reloads {
    count: watch::Sender<u64>,
    plans: Arc<PlanCache>,
}

impl Reloads {
    pub(crate) fn new(plans: Arc<PlanCache>) -> Self {
        Self { count: watch::Sender::new(0), plans }
    }

    /// Reports that a data set was loaded again, or that loading it failed.
    fn tell(&self) {
        drop(self.plans.forgets());
        self.count.send_modify(|count| *count += 1);
    }
}

impl Loader {
    /// Loads the data set, and loads it again whenever its source or, for a view, another data set has changed.
    pub(crate) async fn run(self) {
        let mut others = self.reloads.count.subscribe();
        let mut is_first = true;
        loop {
            others.mark_unchanged();
            self.load(is_first).await;
            is_first = false;
            let reads_others = self.source.reads_others();
            tokio::select! {
                () = self.source.outdated() => {}
                told = others.changed(), if reads_others => {
                    if told.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Retries until the data set is loaded.
    async fn load(&self, is_first: bool) {
        let name = self.statuses.borrow()[self.index].name.clone();
        let mut pause = FIRST_PAUSE;
        let mut last_error = None;
        loop {
            let error = match self.attempt().await {
                Ok(table) => {
                    let schema = table.schema();
                    // The slot is set first, so that a data set reported as `Ready` can be queried.
                    let before = self.slot.send_replace(LoadState::Ready(table));
                    self.publish(DatasetState::Ready);
                    match before {
                        LoadState::Loading => tracing::info!(dataset = name, "data set loaded"),
                        // At debug level, because a caller can request refreshes and must not fill the log.
                        LoadState::Ready(before) if before.schema() == schema => {
                            tracing::debug!(dataset = name, "no change")
                        }
                        _ if self.source.reads_others() => tracing::debug!(dataset = name, "view planned again"),
                        _ => tracing::info!(dataset = name, "data set loaded again"),
                    }
                    self.told(is_first);
                    return;
                }
                Err(error) => error.to_string(),
            };
            if last_error.as_ref() != Some(&error) {
                tracing::warn!(dataset = name, error, "data set not loaded; it is tried again until it is");
            }
            let wait = jittered(pause);
            self.slot.send_replace(LoadState::Failed(error.clone()));
            self.publish(DatasetState::Failed { error: error.clone(), next_attempt: SystemTime::now() + wait });
            if last_error.is_none() {
                self.told(is_first);
            }
            last_error = Some(error);
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    async fn attempt(&self) -> Result<Arc<dyn TableProvider>, LoadError> {
        let load = AssertUnwindSafe(self.source.load(&self.state)).catch_unwind();
        match tokio::time::timeout(ATTEMPT_LIMIT, load).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(_panic)) => Err("its reader failed; the server's log says where".into()),
            Err(_) => Err(format!("it took longer than {ATTEMPT_LIMIT:?} to load").into()),
        }
    }

    /// Drops cached plans and, except after the first load, notifies views of the change. A view does not notify
    /// others: the data sets that it reads do.
    fn told(&self, is_first: bool) {
        match self.source.reads_others() {
            false if !is_first => self.reloads.tell(),
            _ => drop(self.reloads.plans.forgets()),
        }
    }

    fn publish(&self, state: DatasetState) {
        self.statuses.send_modify(|statuses| statuses[self.index].state = state);
    }
}

/// Returns a random duration between three quarters of `pause` and `pause`, so that many data sets on one failing disk
/// do not all retry at the same instant.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    let quarter = pause / 4;
    pause - quarter.mul_f64(random as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_is_never_longer_nor_much_shorter() {
        for _ in 0..1000 {
            let pause = jittered(FIRST_PAUSE);
            assert!(pause <= FIRST_PAUSE && pause >= FIRST_PAUSE * 3 / 4, "{pause:?}");
        }
    }
}
