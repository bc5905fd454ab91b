//! The stop signal that every connection watches, and the count of those that still run.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Makes a stop signal: the trigger for who decides, the drain for who must hear.
pub fn channel() -> (Trigger, Drain) {
    let (sender, receiver) = watch::channel(Phase::Serving);
    let tracker = TaskTracker::new();
    (Trigger { sender, tracker: tracker.clone() }, Drain { receiver, tracker })
}

/// How far a stop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// Connections are still accepted, but none is kept for further requests.
    Closing,
    /// Nothing is accepted any more.
    Stopping,
}

/// The deciding end.
#[derive(Debug)]
pub struct Trigger {
    sender: watch::Sender<Phase>,
    tracker: TaskTracker,
}

impl Trigger {
    /// Announces the stop: from now on HTTP/1 answers carry `Connection: close`, and HTTP/2 connections that are open
    /// get a GOAWAY, so that clients have moved on before the stop itself. New connections are still served.
    pub fn announce(&self) {
        self.sender.send_replace(Phase::Closing);
    }

    /// Tells everybody: listeners close, connections finish what they have begun. Waits until all
    /// are done, or for `patience`; returns how many are left.
    pub async fn drain(self, patience: Duration) -> usize {
        self.sender.send_replace(Phase::Stopping);
        self.tracker.close();
        let _ = tokio::time::timeout(patience, self.tracker.wait()).await;
        self.tracker.len()
    }
}

/// The hearing end; cheap to clone.
#[derive(Debug, Clone)]
pub struct Drain {
    receiver: watch::Receiver<Phase>,
    tracker: TaskTracker,
}

impl Drain {
    /// Resolves when the stop has been called, or its trigger is gone.
    pub async fn signaled(&mut self) {
        let _ = self.receiver.wait_for(|phase| *phase == Phase::Stopping).await;
    }

    /// Resolves when a stop has been announced or called, or its trigger is gone.
    pub async fn announced(&mut self) {
        let _ = self.receiver.wait_for(|phase| *phase != Phase::Serving).await;
    }

    /// True once a stop has been announced.
    pub fn is_announced(&self) -> bool {
        *self.receiver.borrow() != Phase::Serving
    }

    /// True once a stop has been called.
    pub fn is_signaled(&self) -> bool {
        *self.receiver.borrow() == Phase::Stopping
    }

    /// While the token lives, the drain waits for it.
    pub fn hold(&self) -> TaskTrackerToken {
        self.tracker.token()
    }
}
