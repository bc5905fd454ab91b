//! Loads one data set: once where it works, again and again where it does not.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use datafusion::catalog::TableProvider;
use datafusion::execution::context::SessionState;
use futures::FutureExt;
use spiced_engine::{DatasetState, DatasetStatus};
use tokio::sync::watch;

use crate::catalog::Slot;
use crate::connectors::Source;

/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long one attempt may take.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5 * 60);

/// The loader of one data set.
pub(crate) struct Loader {
    /// Its place among the statuses.
    pub(crate) index: usize,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) state: Arc<SessionState>,
    pub(crate) slot: watch::Sender<Slot>,
    pub(crate) statuses: watch::Sender<Vec<DatasetStatus>>,
}

impl Loader {
    /// Tries until the data set is loaded. It then stays loaded, so this ends.
    pub(crate) async fn run(self) {
        let name = self.statuses.borrow()[self.index].name.clone();
        let mut pause = FIRST_PAUSE;
        let mut last_error = None;
        loop {
            let error = match self.attempt().await {
                Ok(table) => {
                    // The slot first: whoever sees `Ready` can query it.
                    self.slot.send_replace(Slot::Ready(table));
                    self.publish(DatasetState::Ready);
                    tracing::info!(dataset = name, "data set loaded");
                    return;
                }
                Err(error) => error,
            };
            if last_error.as_ref() != Some(&error) {
                tracing::warn!(dataset = name, error, "data set not loaded; it is tried again until it is");
            }
            let wait = jittered(pause);
            self.slot.send_replace(Slot::Failed(error.clone()));
            self.publish(DatasetState::Failed { error: error.clone(), next_attempt: SystemTime::now() + wait });
            last_error = Some(error);
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self) -> Result<Arc<dyn TableProvider>, String> {
        let load = AssertUnwindSafe(self.source.load(&self.state)).catch_unwind();
        match tokio::time::timeout(ATTEMPT_LIMIT, load).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(_panic)) => Err("its reader failed; the server's log says where".to_owned()),
            Err(_) => Err(format!("it took longer than {ATTEMPT_LIMIT:?} to load")),
        }
    }

    fn publish(&self, state: DatasetState) {
        self.statuses.send_modify(|statuses| statuses[self.index].state = state);
    }
}

/// Between three quarters of `pause` and all of it, so that many data sets on one sick disk do not
/// all come back in the same instant.
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
