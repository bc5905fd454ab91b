//! The stop signal that every connection watches, and the count of connections that still run.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Creates a stop signal: the trigger initiates the stop, and each drain observes it.
pub fn channel() -> (Trigger, Drain) {
    let (sender, receiver) = watch::channel(Phase::Serving);
    let tracker = TaskTracker::new();
    (Trigger { sender, tracker: tracker.clone() }, Drain { receiver, tracker })
}

/// The phases of a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// Connections are still accepted, but not kept open for further requests.
    Closing,
    /// New connections are refused.
    Stopping,
}

/// The sending end of the stop signal.
#[derive(Debug)]
pub struct Trigger {
    sender: watch::Sender<Phase>,
    tracker: TaskTracker,
}

impl Trigger {
    /// Announces the stop: from now on HTTP/1 responses carry `Connection: close`, and open HTTP/2 connections get a
    /// GOAWAY, so that clients have moved on before the stop itself. New connections are still served.
    pub fn announce(&self) {
        self.sender.send_replace(Phase::Closing);
    }

    /// Signals the stop: listeners close, and connections finish the requests they have begun. Waits until all are done
    /// or the given time is over, and returns how many are left.
    pub async fn drain(self, patience: Duration) -> usize {
        self.sender.send_replace(Phase::Stopping);
        self.tracker.close();
        let _ = tokio::time::timeout(patience, self.tracker.wait()).await;
        self.tracker.len()
    }
}

/// The receiving end of the stop signal; cheap to clone.
#[derive(Debug, Clone)]
pub struct Drain {
    receiver: watch::Receiver<Phase>,
    tracker: TaskTracker,
}

impl Drain {
    /// Resolves when the stop has been signaled, or the trigger is dropped.
    pub async fn signaled(&mut self) {
        let _ = self.receiver.wait_for(|phase| *phase == Phase::Stopping).await;
    }

    /// Resolves when a stop has been announced or signaled, or the trigger is dropped.
    pub async fn announced(&mut self) {
        let _ = self.receiver.wait_for(|phase| *phase != Phase::Serving).await;
    }

    /// Returns true once a stop has been announced.
    pub fn is_announced(&self) -> bool {
        *self.receiver.borrow() != Phase::Serving
    }

    /// Returns true once a stop has been signaled.
    pub fn is_signaled(&self) -> bool {
        *self.receiver.borrow() == Phase::Stopping
    }

    /// Returns a token that the drain waits for until it is dropped.
    pub fn hold(&self) -> TaskTrackerToken {
        self.tracker.token()
    }
}
