//! The responses being sent, by ticket, so that `CancelFlightInfo` can end them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::handles::signed_handle::Id;

/// The queries that run on this replica. The map is as large as the number of running queries.
#[derive(Clone, Default)]
pub(crate) struct RunningQueries(Arc<Mutex<HashMap<Id, watch::Sender<bool>>>>);

/// The entry of one running query. Dropping it removes the entry.
pub(crate) struct CancelGuard {
    id: Id,
    cancelled: Option<watch::Receiver<bool>>,
    running: RunningQueries,
}

impl RunningQueries {
    /// Registers a query by its ticket. Several queries may run under one ticket at the same time.
    pub(crate) fn enter(&self, id: Id) -> CancelGuard {
        let cancelled = self.by_id().entry(id).or_insert_with(|| watch::channel(false).0).subscribe();
        CancelGuard { id, cancelled: Some(cancelled), running: self.clone() }
    }

    /// Cancels all queries that run under this ticket. Returns whether there was one.
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
        // No code panics while it holds the lock, so the data of a poisoned lock is consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CancelGuard {
    /// Waits until this query is cancelled.
    pub(crate) async fn cancelled(&mut self) {
        if let Some(cancelled) = &mut self.cancelled {
            // `wait_for` fails if the sender is dropped, which happens only after it has sent `true`.
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
