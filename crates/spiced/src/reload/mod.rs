//! Runs reloads in the background, so that a file system or a store that hangs does not delay a shutdown.

pub(crate) mod state;

use std::time::Duration;

use futures::FutureExt;
use spiced_http::{ReloadHandle, ReloadOptions, ReloadReply, ReloadResult};
use spiced_secrets::StoreStatus;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::error;

use state::{Change, Follower, ReloadOutcome, ReloadableState};

/// While certificate and key do not match, their stores are polled again after this delay, which doubles up to
/// [`MAX_POLL`].
const FIRST_POLL: Duration = Duration::from_secs(1);
const MAX_POLL: Duration = Duration::from_secs(15);

/// A pod that was rejected is read again after this delay, which doubles up to [`MAX_RETRY`]: a store may be reachable
/// again, or a file may exist by then.
const FIRST_RETRY: Duration = Duration::from_secs(15);
const MAX_RETRY: Duration = Duration::from_secs(5 * 60);

/// The maximum number of waiting reload requests.
const MAX_REQUESTS: usize = 16;

/// Runs at most one reload at a time. Requests that arrive during a reload share the next one.
pub(crate) struct ReloadCoordinator {
    live: Option<ReloadableState>,
    follower: Follower,
    /// Publishes the current stores to the status document.
    stores: watch::Sender<watch::Receiver<Vec<StoreStatus>>>,
    running: Option<JoinHandle<ReloadOutcome>>,
    /// The requests that wait for the running reload.
    served_by_this: Vec<ReloadRequest>,
    asked: mpsc::Receiver<ReloadRequest>,
    /// The requests that wait for the next reload.
    waiting: Vec<ReloadRequest>,
    /// A reload was requested by a caller that does not wait for it, such as a signal.
    told: bool,
    /// Certificate and key do not match: when to poll again, and the delay after that.
    mismatch: Option<(Instant, Duration)>,
    /// The pod was rejected: when to try again, and the delay after that.
    refused: Option<(Instant, Duration)>,
    /// When material that is not valid yet becomes valid.
    held: Option<Instant>,
}

/// A request that waits for the end of a reload.
pub(crate) struct ReloadRequest {
    dry_run: bool,
    force: bool,
    answer: oneshot::Sender<ReloadResult>,
}

/// Returns the handle that requests reloads, and the channel that receives the requests. Both are created before the
/// endpoints, which hold the handle.
pub(crate) fn handle() -> (ReloadHandle, mpsc::Receiver<ReloadRequest>) {
    let (asks, asked) = mpsc::channel(MAX_REQUESTS);
    let handle = ReloadHandle::new(move |ReloadOptions { dry_run, force }| {
        let asks = asks.clone();
        async move {
            let (answer, answered) = oneshot::channel();
            if asks.try_send(ReloadRequest { dry_run, force, answer }).is_err() {
                return ReloadReply::Busy;
            }
            answered.await.map_or(ReloadReply::Lost, ReloadReply::Done)
        }
        .boxed()
    });
    (handle, asked)
}

impl ReloadCoordinator {
    pub(crate) fn new(
        live: ReloadableState,
        follower: Follower,
        stores: watch::Sender<watch::Receiver<Vec<StoreStatus>>>,
        asked: mpsc::Receiver<ReloadRequest>,
    ) -> Self {
        Self {
            live: Some(live),
            follower,
            stores,
            running: None,
            served_by_this: Vec::new(),
            asked,
            waiting: Vec::new(),
            told: false,
            mismatch: None,
            refused: None,
            held: None,
        }
    }

    /// Requests a full reload without waiting for it.
    pub(crate) fn told(&mut self) {
        self.told = true;
        self.begin();
    }

    /// Waits for the next event and handles it: the end of the running reload, a request, a change of a file or secret,
    /// or a scheduled retry. Waits forever if nothing can happen.
    pub(crate) async fn next(&mut self) {
        if let Some(running) = &mut self.running {
            tokio::select! {
                ended = running => {
                    self.running = None;
                    match ended {
                        Ok(ended) => self.ended(ended),
                        Err(error) => {
                            error!(%error, "the reload was lost; the current configuration stays in use and can no \
                                            longer be reloaded");
                            self.served_by_this.clear();
                        }
                    }
                }
                Some(ask) = self.asked.recv(), if self.waiting.len() < MAX_REQUESTS => self.waiting.push(ask),
            }
            return;
        }
        let (look, again, held) = (self.mismatch, self.refused, self.held);
        let changed = async {
            match &mut self.live {
                Some(live) => live.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            change = changed => match (change, self.live.take()) {
                // The pod's configuration may be valid with the new material.
                (Change::Material, Some(live)) if again.is_none() => {
                    self.running = Some(tokio::spawn(live.reread(true)));
                }
                (Change::Development(made), Some(live)) => self.running = Some(tokio::spawn(live.renew(made))),
                (Change::Nothing, live) => self.live = live,
                (_, live) => {
                    self.live = live;
                    self.told();
                }
            },
            Some(ask) = self.asked.recv() => {
                self.waiting.push(ask);
                self.begin();
            }
            () = at(again.map(|(at, _)| at)) => self.told(),
            () = at(held) => self.told(),
            () = at(look.map(|(at, _)| at)) => {
                self.follower.refresher.refresh_now();
                self.mismatch = look.map(|(at, pause)| (at + pause, (pause * 2).min(MAX_POLL)));
            }
        }
    }

    /// Starts the next reload unless one is running: a real one first, otherwise a dry run.
    fn begin(&mut self) {
        if self.running.is_some() {
            return;
        }
        // A reload task that was lost has taken the reloadable state with it; later requests get no answer.
        let Some(live) = self.live.take() else { return self.waiting.clear() };
        let (real, dry): (Vec<ReloadRequest>, Vec<ReloadRequest>) =
            self.waiting.drain(..).partition(|ask| !ask.dry_run);
        let counts = std::mem::take(&mut self.told) || !real.is_empty();
        let (now, later) = if counts { (real, dry) } else { (dry, real) };
        // Requests with the same `force` share a reload; forced ones go first.
        let force = now.iter().any(|ask| ask.force);
        let (now, other): (Vec<ReloadRequest>, Vec<ReloadRequest>) =
            now.into_iter().partition(|ask| ask.force == force);
        self.served_by_this = now;
        self.waiting = later.into_iter().chain(other).collect();
        let refresher = counts.then(|| self.follower.refresher.clone());
        self.running = Some(tokio::spawn(live.reload(refresher, !counts, force)));
    }

    /// Schedules the retries after a reload that was not a dry run.
    fn wait_for(&mut self, mismatch: bool, refused: bool, held: Option<Duration>, live: &ReloadableState) {
        self.held = held.map(|left| Instant::now() + left.max(FIRST_POLL));
        self.refused = match self.refused {
            _ if !refused => None,
            None => Some((Instant::now() + FIRST_RETRY, 2 * FIRST_RETRY)),
            Some((_, pause)) => Some((Instant::now() + pause, (2 * pause).min(MAX_RETRY))),
        };
        let is_watched = live.served.as_ref().is_some_and(|served| served.reloader.is_watched());
        self.mismatch = match self.mismatch {
            before if mismatch && is_watched => {
                Some(before.unwrap_or_else(|| (Instant::now() + FIRST_POLL, FIRST_POLL)))
            }
            _ => None,
        };
    }

    fn ended(&mut self, ReloadOutcome { live, result, follower, dry, mismatch, refused, held }: ReloadOutcome) {
        if !dry {
            self.wait_for(mismatch, refused, held, &live);
        }
        self.live = Some(live);
        if let Some(follower) = follower {
            self.stores.send_replace(follower.status.clone());
            self.follower = follower;
        }
        // The callers may have gone.
        self.served_by_this.drain(..).for_each(|request| drop(request.answer.send(result.clone())));
        if self.told || !self.waiting.is_empty() {
            self.begin();
        }
    }
}

/// Waits until `when`, or forever if there is no such time.
async fn at(when: Option<Instant>) {
    match when {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
