//! The end of a statement from outside, for the one who waits for it.

use spiced_engine::EngineError;
use tokio::sync::oneshot;

use crate::execution::deadline_timer::TimerGuard;
use crate::execution::memory_watch::Watched;

/// Reports that a statement was ended from outside: by its deadline, or by the memory limit of the process. The work
/// may compute for a while before it notices; its caller need not wait for that.
pub(crate) struct DeadlineGuard {
    pub(crate) struck: oneshot::Receiver<EngineError>,
    pub(crate) why: Option<EngineError>,
    pub(crate) _alarm: TimerGuard,
    pub(crate) watched: Watched,
}

impl DeadlineGuard {
    /// Waits for the end of the statement.
    pub(crate) async fn comes(&mut self) -> EngineError {
        if self.why.is_none() && !self.struck.is_terminated() {
            self.why = (&mut self.struck).await.ok();
        }
        match &self.why {
            Some(why) => why.clone(),
            // It can no longer arrive: the engine is gone, and its timer with it.
            None => std::future::pending().await,
        }
    }

    /// Returns why the statement was ended, if it was.
    pub(crate) fn has_come(&mut self) -> Option<EngineError> {
        if self.why.is_none() {
            self.why = self.struck.try_recv().ok();
        }
        self.why.clone()
    }
}
