//! Refreshes the stores after startup. They are read again at an interval, when they report a change, or on request,
//! and values that refer to them are updated.
//!
//! If a store cannot be read, the last good values stay in use.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::OptionFuture;
use metrics::counter;
use tls_core::{Secret, Sourced};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::status::StoreStatus;
use crate::store::cached_store::CachedSecret;
use crate::store::jitter::jittered;
use crate::store::store_chain::StoreChain;
use crate::store::{Snapshot, StoreEnv, StoreError};
use crate::{Reference, Template};

/// The delay before a store is read again after a failure. It doubles with each further failure, up to the store's
/// interval.
const FIRST_RETRY: Duration = Duration::from_secs(2);

/// The longest delay for a watched store without an interval.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// The stores while they are followed.
pub struct WatchedSecrets {
    /// The status of the stores.
    pub status: watch::Receiver<Vec<StoreStatus>>,
    /// Requests an immediate refresh.
    pub refresher: Refresher,
    /// The refresh task. Nothing is updated until it runs.
    pub following: SecretsRefresh,
}

/// A handle that requests an immediate refresh.
#[derive(Debug, Clone)]
pub struct Refresher(mpsc::Sender<oneshot::Sender<()>>);

impl Refresher {
    /// Requests a refresh of every store in use, without waiting for it.
    pub fn refresh_now(&self) {
        // If the channel is full, a refresh has been requested already.
        let _ = self.0.try_send(oneshot::channel().0);
    }

    /// Reads every store in use, and returns once the values are updated.
    pub async fn refresh(&self) {
        let (done, wait) = oneshot::channel();
        if self.0.send(done).await.is_ok() {
            // The sender is dropped if the refresh task has ended; then there is nothing to wait for.
            let _ = wait.await;
        }
    }
}

/// The stores of a pod, and the values that depend on them. Dropping the future of [`run`](Self::run) ends the refresh.
pub struct SecretsRefresh {
    shelves: StoreChain,
    surroundings: StoreEnv,
    values: Vec<(Sourced<Template>, watch::Sender<Secret>)>,
    /// For each store, the keys that values need.
    keys: Vec<Vec<String>>,
    told: mpsc::Receiver<oneshot::Sender<()>>,
    status: watch::Sender<Vec<StoreStatus>>,
}

/// The work in progress.
#[derive(Default)]
struct Running {
    readings: JoinSet<(usize, Vec<String>, Result<Snapshot, StoreError>)>,
    words: JoinSet<usize>,
    /// The state of each store.
    state: Vec<State>,
    /// Callers that wait until all reads have finished.
    waiting: Vec<oneshot::Sender<()>>,
}

#[derive(Default, Clone)]
struct State {
    reading: bool,
    /// Whether the store must be read once more after the current read.
    again: bool,
    due: Option<Instant>,
    /// Consecutive failures.
    failures: u32,
    /// Aborts the task that waits for a change report from the store.
    listening: Option<tokio::task::AbortHandle>,
}

impl SecretsRefresh {
    /// Prepares to follow `values`, each of which has been resolved.
    pub(crate) fn start(
        mut shelves: StoreChain,
        values: Vec<(Sourced<Template>, watch::Sender<Secret>)>,
        surroundings: StoreEnv,
    ) -> WatchedSecrets {
        let keys = settle(&mut shelves, &values);
        let (status, watched) = watch::channel(shelves.0.iter().map(|shelf| shelf.status()).collect());
        let (refresher, told) = mpsc::channel(1);
        let following = Self { shelves, surroundings, values, keys, told, status };
        WatchedSecrets { status: watched, refresher: Refresher(refresher), following }
    }

    /// Refreshes the stores until the future is dropped.
    pub async fn run(mut self) {
        let mut running = Running { state: vec![State::default(); self.keys.len()], ..Running::default() };
        for at in self.followed() {
            self.listen(&mut running, at);
            self.plan(&mut running, at);
        }
        loop {
            let next = running.state.iter().filter_map(|state| state.due).min();
            let due = OptionFuture::from(next.map(tokio::time::sleep_until));
            tokio::select! {
                Some(()) = due => {
                    let now = Instant::now();
                    for at in self.followed() {
                        if running.state[at].due.is_some_and(|due| due <= now) {
                            self.read(&mut running, at);
                        }
                    }
                }
                Some(said) = running.words.join_next_with_id() => {
                    // Ignore a task that was aborted because its store was reopened.
                    if let Ok((id, at)) = said
                        && running.state[at].listening.take_if(|listening| listening.id() == id).is_some()
                    {
                        self.read(&mut running, at);
                    }
                }
                Some(ended) = running.readings.join_next() => match ended {
                    Ok((at, keys, reading)) => self.apply(&mut running, at, keys, reading),
                    Err(error) => warn!(%error, "a read of a secret store was lost"),
                },
                Some(done) = self.told.recv() => {
                    running.waiting.push(done);
                    for at in self.followed() {
                        self.read(&mut running, at);
                    }
                }
                else => return,
            }
            if running.state.iter().all(|state| !state.reading) {
                running.waiting.drain(..).for_each(|done| {
                    let _ = done.send(());
                });
            }
        }
    }

    /// Returns the stores that values need.
    fn followed(&self) -> Vec<usize> {
        (0..self.keys.len()).filter(|at| !self.keys[*at].is_empty()).collect()
    }

    /// Starts to read a store. At most one read per store runs at a time.
    fn read(&self, running: &mut Running, at: usize) {
        let state = &mut running.state[at];
        state.due = None;
        if std::mem::replace(&mut state.reading, true) {
            state.again = true;
            return;
        }
        let question = self.shelves.0[at].question(self.keys[at].clone());
        running.readings.spawn(async move {
            let (keys, reading) = question.await;
            (at, keys, reading)
        });
    }

    /// Waits for a change report from the store.
    fn listen(&self, running: &mut Running, at: usize) {
        if running.state[at].listening.is_some() {
            return;
        }
        let Some(store) = self.shelves.0[at].store().cloned() else { return };
        running.state[at].listening = Some(running.words.spawn(async move {
            store.changed().await;
            at
        }));
    }

    /// Schedules the next read.
    fn plan(&self, running: &mut Running, at: usize) {
        let (state, shelf) = (&mut running.state[at], &self.shelves.0[at]);
        let wait = pause(state.failures, shelf.every(), shelf.watches());
        state.due = wait.map(|wait| Instant::now() + jittered(wait));
    }

    /// Applies the result of a read.
    fn apply(&mut self, running: &mut Running, at: usize, keys: Vec<String>, reading: Result<Snapshot, StoreError>) {
        let learned = self.shelves.0[at].apply(keys, reading);
        let name = self.shelves.0[at].name.clone();
        let result = match (&learned.trouble, learned.changed) {
            (Some(_), _) => "failed",
            (None, true) => "changed",
            (None, false) => "unchanged",
        };
        counter!("spiced_secret_refresh_total", "store" => name.clone(), "result" => result).increment(1);
        match &learned.trouble {
            Some((problem, hint)) if learned.turned => {
                warn!(store = name, problem, hint, "a secret store cannot be read; the last good values are kept");
            }
            None if learned.turned => info!(store = name, "the secret store can be read again"),
            _ => {}
        }
        let state = &mut running.state[at];
        state.reading = false;
        state.failures = if learned.trouble.is_some() { state.failures.saturating_add(1) } else { 0 };
        if std::mem::take(&mut state.again) {
            self.read(running, at);
        } else {
            self.plan(running, at);
        }
        self.listen(running, at);
        if learned.changed {
            self.reopen(running, at);
            self.render();
        }
        let now: Vec<StoreStatus> = self.shelves.0.iter().map(|shelf| shelf.status()).collect();
        self.status.send_if_modified(|status| std::mem::replace(status, now.clone()) != now);
    }

    /// Reopens the stores whose parameters were changed by the store at index `changed`.
    fn reopen(&mut self, running: &mut Running, changed: usize) {
        for at in self.followed().into_iter().filter(|at| *at != changed) {
            let Some(params) = self.shelves.render_params(at) else { continue };
            let shelf = &mut self.shelves.0[at];
            if shelf.was_opened_with(&params) {
                continue;
            }
            info!(store = shelf.name, "the parameters of the secret store have changed; it is reopened");
            shelf.open(params, &self.surroundings);
            if let Some(fault) = shelf.fault() {
                let (problem, hint) = (&fault.problem, &fault.hint);
                warn!(
                    store = shelf.name,
                    problem, hint, "the secret store cannot be reopened; the previous one stays in use"
                );
            }
            if let Some(listening) = running.state[at].listening.take() {
                listening.abort();
            }
            self.read(running, at);
        }
    }

    /// Publishes every value that has changed.
    fn render(&self) {
        for (value, sender) in &self.values {
            let Some(rendered) = self.shelves.render(&value.value, None) else { continue };
            let changed = sender.send_if_modified(|before| {
                let changed = before.expose() != rendered.expose();
                if changed {
                    *before = rendered;
                }
                changed
            });
            if changed {
                info!(origin = %value.origin, "a secret has changed");
            }
        }
    }
}

/// Returns the delay until the next read; `None` if the store is read only on request.
fn pause(failures: u32, every: Option<Duration>, watches: bool) -> Option<Duration> {
    if failures == 0 {
        return every;
    }
    let longest = every.or_else(|| watches.then_some(MAX_RETRY))?;
    Some(longest.min(FIRST_RETRY.saturating_mul(1 << (failures - 1).min(10))))
}

/// Forgets everything that no value needs. Returns the keys that are needed of each store.
fn settle(shelves: &mut StoreChain, values: &[(Sourced<Template>, watch::Sender<Secret>)]) -> Vec<Vec<String>> {
    let mut needed: Vec<BTreeSet<String>> = vec![BTreeSet::new(); shelves.0.len()];
    let mut next: Vec<(Reference, Option<usize>)> =
        values.iter().flat_map(|(value, _)| value.value.references().cloned().map(|r| (r, None))).collect();
    let mut seen = BTreeSet::new();
    while let Some((reference, asker)) = next.pop() {
        for at in shelves.asked_by(&reference, asker).collect::<Vec<_>>() {
            if seen.insert(at) {
                let of_params = shelves.params(at).flat_map(|(_, value)| value.value.references());
                next.extend(of_params.cloned().map(|r| (r, Some(at))));
            }
            let answer = shelves.0[at].answer(reference.key());
            if answer.is_some() {
                needed[at].insert(reference.key().to_owned());
            }
            // The stores after the one that has the value are not queried.
            if matches!(answer, Some(CachedSecret::Value(_))) {
                break;
            }
        }
    }
    let needed: Vec<Vec<String>> = needed.into_iter().map(|keys| keys.into_iter().collect()).collect();
    for (shelf, keys) in shelves.0.iter_mut().zip(&needed) {
        shelf.settle(keys);
    }
    needed
}

#[cfg(test)]
mod tests;
