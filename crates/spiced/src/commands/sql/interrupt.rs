//! Ctrl-C, from the moment that statements run to the moment that they have ended: one that comes
//! between two of them counts too.

use std::future::Future;
use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Whether Ctrl-C has come since it was made.
pub(crate) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Listens from now on. Must be called in a runtime.
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

    /// Does `work`, unless Ctrl-C comes first; `work` is looked at again each time that it waits.
    pub(crate) async fn or<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut seen = self.0.clone();
        tokio::select! {
            biased;
            Ok(_) = seen.wait_for(|seen| *seen) => None,
            done = work => Some(done),
        }
    }
}
