//! A store of the pod, with a cache of its last answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tls_core::{Origin, Secret};

use crate::report::{FailureKind, Unresolved};
use crate::status::{Refresh, StoreStatus, StoreTrouble};
use crate::store::{Declared, SecretStore, Snapshot, StoreEnv, StoreError};

/// The timeout of one query to one store.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// A declared store, possibly open, and its cached answers.
pub(crate) struct CachedStore {
    pub(crate) name: String,
    /// Where the store is declared.
    pub(crate) origin: Origin,
    /// The declaration; `None` if it is invalid.
    pub(crate) declared: Option<Declared>,
    /// The refresh interval that the pod sets.
    interval: Option<Duration>,
    store: Option<Arc<dyn SecretStore>>,
    /// The parameters that the store was opened with.
    params: BTreeMap<String, Secret>,
    /// Why the store cannot be queried at all.
    fault: Option<Fault>,
    answers: BTreeMap<String, CachedSecret>,
    /// Whether the answers are complete: a key that is not among them does not exist.
    whole: bool,
    /// Whether the set of keys is fixed: only those keys are queried and kept.
    settled: bool,
    last_read: Option<SystemTime>,
    trouble: Option<StoreTrouble>,
    patience: Duration,
}

/// The answer of a store for one key.
#[derive(Clone)]
pub(crate) enum CachedSecret {
    Value(Secret),
    Absent,
    Fault(Unresolved),
}

/// Why a store cannot be queried at all.
#[derive(Clone)]
pub(crate) struct Fault {
    pub(crate) problem: String,
    pub(crate) hint: String,
    /// False if the fault results from another failure, which has its own line in the report.
    pub(crate) own: bool,
}

/// The result of applying a read.
pub(crate) struct ReadOutcome {
    pub(crate) changed: bool,
    /// The first problem, and its fix.
    pub(crate) trouble: Option<(String, String)>,
    /// Whether the problem has just begun or just ended.
    pub(crate) turned: bool,
}

impl CachedStore {
    pub(crate) fn new(name: String, origin: Origin, interval: Option<Duration>) -> Self {
        Self {
            name,
            origin,
            declared: None,
            interval,
            store: None,
            params: BTreeMap::new(),
            fault: None,
            answers: BTreeMap::new(),
            whole: false,
            settled: false,
            last_read: None,
            trouble: None,
            patience: ANSWER_WITHIN,
        }
    }

    /// Creates an open store for tests.
    #[cfg(test)]
    pub(crate) fn with(
        name: &str,
        store: Arc<dyn SecretStore>,
        interval: Option<Duration>,
        patience: Duration,
    ) -> Self {
        let declared = Declared::read("env", BTreeMap::new()).ok();
        Self { store: Some(store), declared, patience, ..Self::new(name.to_owned(), Origin::Default, interval) }
    }

    /// Opens the store, or reopens it with other parameters. The cached answers stay until the next read.
    pub(crate) fn open(&mut self, params: BTreeMap<String, Secret>, surroundings: &StoreEnv) {
        let Some(declared) = &self.declared else { return };
        match declared.open(&params, surroundings) {
            Ok(store) => (self.store, self.fault) = (Some(store), None),
            Err(error) => self.fail(error.to_string(), error.hint().to_owned(), true),
        }
        self.params = params;
    }

    /// Marks the store as one that cannot be queried.
    pub(crate) fn fail(&mut self, problem: String, hint: String, own: bool) {
        self.fault = Some(Fault { problem, hint, own });
    }

    pub(crate) fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// Returns the store's own fault, and marks it as reported.
    pub(crate) fn reported_fault(&mut self) -> Option<Fault> {
        let fault = self.fault.as_mut().filter(|fault| fault.own)?;
        let reported = fault.clone();
        fault.own = false;
        Some(reported)
    }

    pub(crate) fn store(&self) -> Option<&Arc<dyn SecretStore>> {
        self.store.as_ref()
    }

    /// Returns true if the store was opened with exactly these parameters.
    pub(crate) fn was_opened_with(&self, params: &BTreeMap<String, Secret>) -> bool {
        self.params.len() == params.len()
            && self.params.iter().zip(params).all(|((a, x), (b, y))| a == b && x.expose() == y.expose())
    }

    /// Returns the cached answer for `key`; `None` if the store must be queried.
    pub(crate) fn answer(&self, key: &str) -> Option<CachedSecret> {
        if let Some(known) = self.answers.get(key) {
            return Some(known.clone());
        }
        if self.whole {
            return Some(CachedSecret::Absent);
        }
        let fault = self.fault.as_ref()?;
        Some(CachedSecret::Fault(Unresolved {
            kind: FailureKind::Unreachable,
            problem: format!("store `{}` cannot answer: {}", self.name, fault.problem),
            hint: fault.hint.clone(),
        }))
    }

    /// Describes where the store looks for `key`.
    pub(crate) fn places(&self, key: &str) -> String {
        self.store.as_ref().map_or_else(|| format!("store `{}`", self.name), |store| store.places(key))
    }

    /// Returns a future that queries the store about `keys`. It does not borrow the cache, so several stores can be
    /// queried concurrently.
    pub(crate) fn question(
        &self,
        keys: Vec<String>,
    ) -> impl Future<Output = (Vec<String>, Result<Snapshot, StoreError>)> + Send + 'static {
        let (store, patience) = (self.store.clone(), self.patience);
        async move {
            let Some(store) = store else {
                return (keys, Err(StoreError::declaration("the store is not open")));
            };
            let reading = match tokio::time::timeout(patience, store.read(&keys)).await {
                Ok(reading) => reading,
                Err(_) => Err(StoreError::Timeout { within: patience, endpoint: store.endpoint() }),
            };
            (keys, reading)
        }
    }

    /// Applies the result of a read of `keys`. If a key can no longer be read, its previous value is kept.
    pub(crate) fn apply(&mut self, keys: Vec<String>, reading: Result<Snapshot, StoreError>) -> ReadOutcome {
        let mut learned = ReadOutcome { changed: false, trouble: None, turned: false };
        match reading {
            Err(error) => {
                learned.trouble = Some((error.to_string(), error.hint().to_owned()));
                if !self.settled {
                    self.fail(error.to_string(), error.hint().to_owned(), true);
                }
            }
            Ok(Snapshot::Whole(mut all)) => {
                self.fault = None;
                for key in keys {
                    let answer = Ok(all.remove(&key));
                    self.keep(key, answer, &mut learned);
                }
                if !self.settled {
                    self.whole = true;
                    for (key, secret) in all {
                        self.keep(key, Ok(Some(secret)), &mut learned);
                    }
                }
            }
            Ok(Snapshot::Each(mut answers)) => {
                self.fault = None;
                for key in keys {
                    let answer = answers.remove(&key).unwrap_or(Ok(None));
                    self.keep(key, answer, &mut learned);
                }
            }
        }
        let now = SystemTime::now();
        learned.turned = learned.trouble.is_some() != self.trouble.is_some();
        self.trouble = match (&learned.trouble, self.trouble.take()) {
            (None, _) => {
                self.last_read = Some(now);
                None
            }
            (Some((problem, _)), before) => {
                Some(StoreTrouble { since: before.map_or(now, |t| t.since), problem: problem.clone() })
            }
        };
        learned
    }

    fn keep(&mut self, key: String, answer: Result<Option<Secret>, StoreError>, learned: &mut ReadOutcome) {
        let before = self.answers.get(&key);
        let had = match before {
            Some(CachedSecret::Value(value)) => Some(value),
            _ => None,
        };
        let known = match answer {
            Ok(Some(secret)) if !secret.is_blank() => {
                learned.changed |= had.is_none_or(|value| value.expose() != secret.expose());
                CachedSecret::Value(secret)
            }
            Ok(Some(_)) => CachedSecret::Fault(Unresolved {
                kind: FailureKind::Missing,
                problem: format!("its value in store `{}` is empty", self.name),
                hint: format!("give it a value there, or remove it; searched: {}", self.places(&key)),
            }),
            Ok(None) => CachedSecret::Absent,
            Err(error) => CachedSecret::Fault(Unresolved {
                kind: FailureKind::Unreachable,
                problem: format!("store `{}` cannot answer: {error}", self.name),
                hint: error.hint().to_owned(),
            }),
        };
        match known {
            CachedSecret::Value(_) => {}
            CachedSecret::Absent if had.is_none() => {}
            // Keep the previous value: a typo in the store must not disable a working configuration.
            CachedSecret::Absent => {
                let hint = format!("put it back; searched: {}", self.places(&key));
                learned.trouble.get_or_insert((format!("`{key}` no longer exists"), hint));
                return;
            }
            CachedSecret::Fault(ref why) if self.settled => {
                learned.trouble.get_or_insert((format!("`{key}`: {}", why.problem), why.hint.clone()));
                if had.is_some() {
                    return;
                }
            }
            CachedSecret::Fault(_) => {}
        }
        self.answers.insert(key, known);
    }

    /// Limits queries to `keys` from now on, and forgets every other answer.
    pub(crate) fn settle(&mut self, keys: &[String]) {
        let kept = keys.iter().filter_map(|key| Some((key.clone(), self.answer(key)?))).collect();
        self.answers = kept;
        (self.whole, self.settled) = (false, true);
    }

    /// Returns true if the store reports changes.
    pub(crate) fn watches(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.watches())
    }

    /// Returns the interval at which the store is read again.
    pub(crate) fn every(&self) -> Option<Duration> {
        self.interval.or_else(|| self.store.as_ref()?.interval())
    }

    pub(crate) fn status(&self) -> StoreStatus {
        StoreStatus {
            name: self.name.clone(),
            kind: self.declared.as_ref().map_or("unknown", Declared::kind),
            refresh: match self.every() {
                _ if self.watches() => Refresh::Watch,
                Some(every) => Refresh::Every(every),
                None => Refresh::Told,
            },
            last_read: self.last_read,
            trouble: self.trouble.clone(),
        }
    }
}
