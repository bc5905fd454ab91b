//! The answers that are being sent, by ticket, so that `CancelFlightInfo` can end them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::signed_handle::Id;

/// What runs on this replica. As large as the number of running queries.
#[derive(Clone, Default)]
pub(crate) struct RunningQueries(Arc<Mutex<HashMap<Id, watch::Sender<bool>>>>);

/// One running answer; dropping it takes it off the list.
pub(crate) struct CancelGuard {
    id: Id,
    cancelled: Option<watch::Receiver<bool>>,
    running: RunningQueries,
}

impl RunningQueries {
    /// Lists an answer by its ticket. A ticket may run more than once at a time.
    pub(crate) fn enter(&self, id: Id) -> CancelGuard {
        let cancelled = self.by_id().entry(id).or_insert_with(|| watch::channel(false).0).subscribe();
        CancelGuard { id, cancelled: Some(cancelled), running: self.clone() }
    }

    /// Ends all answers to this ticket; says whether there was one.
    pub(crate) fn cancel(&self, id: &Id) -> bool {
        match self.by_id().remove(id) {
            Some(sender) => {
                sender.send_replace(true);
                true
            }
            None => false,
        }
    }

    fn by_id(&self) -> MutexGuard<'_, HashMap<Id, watch::Sender<bool>>> {
        // Nothing that runs under the lock panics, so what a poisoned lock guards is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CancelGuard {
    /// Waits until this answer is cancelled.
    pub(crate) async fn cancelled(&mut self) {
        if let Some(cancelled) = &mut self.cancelled {
            // An error says that the sender is gone, which it is only after it sent `true`.
            let _ = cancelled.wait_for(|cancelled| *cancelled).await;
        }
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        self.cancelled = None;
        let mut by_id = self.running.by_id();
        if by_id.get(&self.id).is_some_and(|sender| sender.receiver_count() == 0) {
            by_id.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cancel_ends_every_answer_to_the_ticket_and_no_other() {
        let running = RunningQueries::default();
        let (mut one, mut two, mut other) = (running.enter([1; 16]), running.enter([1; 16]), running.enter([2; 16]));
        assert!(running.cancel(&[1; 16]));
        one.cancelled().await;
        two.cancelled().await;
        assert!(futures::poll!(std::pin::pin!(other.cancelled())).is_pending());
        assert!(!running.cancel(&[1; 16]), "it has ended");
    }

    #[test]
    fn the_list_holds_what_runs_and_no_more() {
        let running = RunningQueries::default();
        let (one, two) = (running.enter([1; 16]), running.enter([1; 16]));
        drop(one);
        assert_eq!(running.by_id().len(), 1);
        drop(two);
        assert!(running.by_id().is_empty());
        assert!(!running.cancel(&[1; 16]));
    }
}
