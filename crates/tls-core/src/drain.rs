//! The stop signal that every connection watches, and the count of those that still run.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Makes a stop signal: the trigger for who decides, the drain for who must hear.
pub fn channel() -> (Trigger, Drain) {
    let (sender, receiver) = watch::channel(false);
    let tracker = TaskTracker::new();
    (Trigger { sender, tracker: tracker.clone() }, Drain { receiver, tracker })
}

/// The deciding end.
#[derive(Debug)]
pub struct Trigger {
    sender: watch::Sender<bool>,
    tracker: TaskTracker,
}

impl Trigger {
    /// Tells everybody: listeners close, connections finish what they have begun. Waits until all
    /// are done, or for `patience`; returns how many are left.
    pub async fn drain(self, patience: Duration) -> usize {
        self.sender.send_replace(true);
        self.tracker.close();
        let _ = tokio::time::timeout(patience, self.tracker.wait()).await;
        self.tracker.len()
    }
}

/// The hearing end; cheap to clone.
#[derive(Debug, Clone)]
pub struct Drain {
    receiver: watch::Receiver<bool>,
    tracker: TaskTracker,
}

impl Drain {
    /// Resolves when the stop has been called, or its trigger is gone.
    pub async fn signaled(&mut self) {
        let _ = self.receiver.wait_for(|stop| *stop).await;
    }

    /// While the token lives, the drain waits for it.
    pub fn hold(&self) -> TaskTrackerToken {
        self.tracker.token()
    }
}
