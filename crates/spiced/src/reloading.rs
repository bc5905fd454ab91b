//! Reloads beside everything else: a file system or a store that hangs holds up no stop.

use std::time::Duration;

use spiced_secrets::Refresher;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{error, info};

use crate::identity::{self, Reloaded, Served};

/// While certificate and key do not match, their stores are asked again after this long, then twice
/// as long, and so on up to the longest.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LONGEST_LOOK: Duration = Duration::from_secs(15);

/// At most one reload at a time; one that is asked for meanwhile follows.
pub(crate) struct Reloading {
    served: Option<Served>,
    refresher: Refresher,
    running: Option<JoinHandle<(Served, Reloaded)>>,
    again: bool,
    /// Certificate and key do not match: when to look again, and how long to wait after that.
    mismatch: Option<(Instant, Duration)>,
}

impl Reloading {
    pub(crate) fn new(served: Option<Served>, refresher: Refresher) -> Self {
        Self { served, refresher, running: None, again: false, mismatch: None }
    }

    /// Starts reading the secrets and the TLS material again, because somebody said so.
    pub(crate) fn told(&mut self) {
        if self.served.is_none() && self.running.is_none() {
            info!("SIGHUP: TLS is off; only secrets are read again");
            return self.refresher.hurry();
        }
        self.begin(true);
    }

    /// Goes on with what is to be done next: the end of the reload that runs, a change of a secret, or
    /// another look at a pair that does not match; for ever where there is nothing of the kind.
    pub(crate) async fn next(&mut self) {
        if let Some(running) = &mut self.running {
            let ended = running.await;
            self.running = None;
            match ended {
                Ok((served, reloaded)) => self.ended(served, reloaded),
                Err(error) => {
                    error!(%error, "the reload was lost; the certificate goes on serving and is not reloaded any more");
                }
            }
            return;
        }
        let Some(served) = &mut self.served else { return std::future::pending().await };
        let look = self.mismatch;
        tokio::select! {
            () = served.reloader.changed() => self.begin(false),
            () = async { match look {
                Some((at, _)) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            } } => {
                self.refresher.hurry();
                self.mismatch = look.map(|(at, pause)| (at + pause, (pause * 2).min(LONGEST_LOOK)));
            }
        }
    }

    /// `refresh`: the stores are asked first.
    fn begin(&mut self, refresh: bool) {
        let Some(mut served) = self.served.take() else {
            self.again |= refresh;
            return;
        };
        let refresher = refresh.then(|| self.refresher.clone());
        self.running = Some(tokio::spawn(async move {
            if let Some(refresher) = refresher {
                refresher.refresh().await;
            }
            let reload = move || {
                let reloaded = identity::reload(&mut served.reloader);
                (served, reloaded)
            };
            // A panic of it is this task's.
            tokio::task::spawn_blocking(reload)
                .await
                .unwrap_or_else(|lost| std::panic::resume_unwind(lost.into_panic()))
        }));
    }

    fn ended(&mut self, served: Served, reloaded: Reloaded) {
        self.mismatch = match (reloaded, self.mismatch) {
            (Reloaded::Mismatch, before) if served.reloader.is_watched() => {
                Some(before.unwrap_or_else(|| (Instant::now() + FIRST_LOOK, FIRST_LOOK)))
            }
            _ => None,
        };
        self.served = Some(served);
        if std::mem::take(&mut self.again) {
            self.begin(true);
        }
    }
}
