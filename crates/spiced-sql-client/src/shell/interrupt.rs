//! Ctrl-C while statements run, including between two statements.

use std::future::Future;
use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Whether Ctrl-C has been pressed since this was created.
pub(crate) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Starts to listen for Ctrl-C. Must be called from within a Tokio runtime.
    pub(crate) fn listen() -> io::Result<Self> {
        let mut signals = signal(SignalKind::interrupt())?;
        let (send, seen) = watch::channel(false);
        tokio::spawn(async move {
            tokio::select! {
                _ = signals.recv() => {
                    send.send_replace(true);
                }
                () = send.closed() => {}
            }
        });
        Ok(Self(seen))
    }

    /// Runs `work`, unless Ctrl-C comes first. Ctrl-C is checked each time `work` is polled.
    pub(crate) async fn or<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut seen = self.0.clone();
        tokio::select! {
            biased;
            Ok(_) = seen.wait_for(|seen| *seen) => None,
            done = work => Some(done),
        }
    }
}
