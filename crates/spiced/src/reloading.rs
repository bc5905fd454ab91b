//! Reloads beside everything else: a file system or a store that hangs holds up no stop.

use std::time::Duration;

use futures::FutureExt;
use serde_json::{Value, json};
use spiced_certs::Outcome;
use spiced_http::{Reload, ReloadHandle};
use spiced_secrets::Refresher;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{error, info};

use crate::identity::{self, Served};

/// While certificate and key do not match, their stores are asked again after this long, then twice
/// as long, and so on up to the longest.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LONGEST_LOOK: Duration = Duration::from_secs(15);

/// Requests for a reload that may wait for one; they share it.
const MOST_ASKS: usize = 16;

/// At most one reload at a time; those that are asked for meanwhile are one more, after it.
pub(crate) struct Reloading {
    served: Option<Served>,
    refresher: Refresher,
    running: Option<JoinHandle<(Served, Outcome)>>,
    /// Who waits for the reload that runs.
    served_by_this: Vec<Ask>,
    asked: mpsc::Receiver<Ask>,
    /// Who waits for the next one.
    waiting: Vec<Ask>,
    again: bool,
    /// Certificate and key do not match: when to look again, and how long to wait after that.
    mismatch: Option<(Instant, Duration)>,
}

/// Somebody who waits for the end of a reload.
pub(crate) struct Ask {
    dry_run: bool,
    answer: oneshot::Sender<Value>,
}

/// What asks for a reload, and where it is asked: made before the doors are, which hold the former.
pub(crate) fn handle() -> (ReloadHandle, mpsc::Receiver<Ask>) {
    let (asks, asked) = mpsc::channel(MOST_ASKS);
    let handle = ReloadHandle::new(move |dry_run| {
        let asks = asks.clone();
        async move {
            let (answer, answered) = oneshot::channel();
            if asks.try_send(Ask { dry_run, answer }).is_err() {
                return Reload::Busy;
            }
            answered.await.map_or(Reload::Busy, Reload::Ended)
        }
        .boxed()
    });
    (handle, asked)
}

impl Reloading {
    pub(crate) fn new(served: Option<Served>, refresher: Refresher, asked: mpsc::Receiver<Ask>) -> Self {
        Self {
            served,
            refresher,
            running: None,
            served_by_this: Vec::new(),
            asked,
            waiting: Vec::new(),
            again: false,
            mismatch: None,
        }
    }

    /// Starts reading the secrets and the TLS material again, because somebody said so.
    pub(crate) fn told(&mut self) {
        if self.served.is_none() && self.running.is_none() {
            info!("SIGHUP: TLS is off; only secrets are read again");
            return self.refresher.hurry();
        }
        self.again = true;
        self.begin();
    }

    /// Goes on with what is to be done next: the end of the reload that runs, a request for one, a change
    /// of a secret, or another look at a pair that does not match; for ever where there is nothing of the kind.
    pub(crate) async fn next(&mut self) {
        if let Some(running) = &mut self.running {
            tokio::select! {
                ended = running => {
                    self.running = None;
                    match ended {
                        Ok((served, outcome)) => self.ended(served, &outcome),
                        Err(error) => {
                            error!(%error, "the reload was lost; the certificate goes on serving and is not reloaded any more");
                            self.served_by_this.clear();
                        }
                    }
                }
                Some(ask) = self.asked.recv() => self.waiting.push(ask),
            }
            return;
        }
        let look = self.mismatch;
        let changed = async {
            match &mut self.served {
                Some(served) => served.reloader.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed => {
                self.again = true;
                self.begin();
            }
            Some(ask) = self.asked.recv() => {
                self.waiting.push(ask);
                self.begin();
            }
            () = async { match look {
                Some((at, _)) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            } } => {
                self.refresher.hurry();
                self.mismatch = look.map(|(at, pause)| (at + pause, (pause * 2).min(LONGEST_LOOK)));
            }
        }
    }

    /// Begins the next reload, where none runs: one that counts, or else one that only looks.
    fn begin(&mut self) {
        if self.running.is_some() {
            return;
        }
        let Some(mut served) = self.served.take() else {
            self.refresher.hurry();
            let detail = "TLS is off; secrets are read again";
            self.waiting.drain(..).for_each(|ask| ask.tell(json!({ "result": "unchanged", "detail": detail })));
            return;
        };
        let (real, dry): (Vec<Ask>, Vec<Ask>) = self.waiting.drain(..).partition(|ask| !ask.dry_run);
        let counts = self.again || !real.is_empty();
        (self.served_by_this, self.waiting) = if counts { (real, dry) } else { (dry, real) };
        // What changes by itself has been read already; whoever asks wants the stores asked.
        let refresher = (self.again || !self.served_by_this.is_empty()).then(|| self.refresher.clone());
        self.again = false;
        self.running = Some(tokio::spawn(async move {
            if let Some(refresher) = refresher {
                refresher.refresh().await;
            }
            let reload = move || {
                let outcome = if counts { identity::reload(&mut served.reloader) } else { served.reloader.check() };
                (served, outcome)
            };
            // A panic of it is this task's.
            tokio::task::spawn_blocking(reload)
                .await
                .unwrap_or_else(|lost| std::panic::resume_unwind(lost.into_panic()))
        }));
    }

    fn ended(&mut self, served: Served, outcome: &Outcome) {
        self.mismatch = match (identity::is_mismatch(outcome), self.mismatch) {
            (true, before) if served.reloader.is_watched() => {
                Some(before.unwrap_or_else(|| (Instant::now() + FIRST_LOOK, FIRST_LOOK)))
            }
            _ => None,
        };
        self.served = Some(served);
        let answer = answer(outcome);
        self.served_by_this.drain(..).for_each(|ask| ask.tell(answer.clone()));
        if self.again || !self.waiting.is_empty() {
            self.begin();
        }
    }
}

impl Ask {
    fn tell(self, mut answer: Value) {
        answer["dry_run"] = self.dry_run.into();
        // Whoever asked may have gone.
        let _ = self.answer.send(answer);
    }
}

fn answer(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Swapped(findings) => json!({ "result": "swapped", "findings": findings }),
        Outcome::Unchanged => json!({ "result": "unchanged" }),
        Outcome::Rejected(reason) => {
            json!({ "result": "rejected", "reason": reason.to_string(), "fix": reason.hint() })
        }
    }
}
