//! Reloads beside everything else: a file system that hangs holds up no stop.

use tokio::task::JoinHandle;
use tracing::{error, info};

use crate::identity::{self, Served};

/// At most one reload at a time; one that is asked for meanwhile follows.
pub(crate) struct Reloading {
    served: Option<Served>,
    running: Option<JoinHandle<Served>>,
    again: bool,
}

impl Reloading {
    pub(crate) fn new(served: Option<Served>) -> Self {
        Self { served, running: None, again: false }
    }

    /// Starts reading the TLS material again.
    pub(crate) fn begin(&mut self) {
        if self.running.is_some() {
            self.again = true;
            return;
        }
        let Some(mut served) = self.served.take() else {
            info!("SIGHUP: TLS is off, there is nothing to reload");
            return;
        };
        self.running = Some(tokio::task::spawn_blocking(move || {
            identity::reload(&mut served.reloader);
            served
        }));
    }

    /// Waits for the end of the reload that runs; for ever where none does.
    pub(crate) async fn ended(&mut self) {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        match running.await {
            Ok(served) => self.served = Some(served),
            Err(error) => {
                error!(%error, "the reload was lost; the certificate goes on serving and is not reloaded any more")
            }
        }
        self.running = None;
        if std::mem::take(&mut self.again) {
            self.begin();
        }
    }
}
