//! One store of the pod, and what it said last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tls_core::{Origin, Secret};

use crate::report::{FailureKind, Unresolved};
use crate::status::{Refresh, StoreStatus, StoreTrouble};
use crate::store::{Declared, SecretStore, Snapshot, StoreEnv, StoreError};

/// How long one question to one store may take.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// A store, declared and perhaps open, with its answers.
pub(crate) struct CachedStore {
    pub(crate) name: String,
    /// Where it is declared.
    pub(crate) origin: Origin,
    /// `None` where the declaration is wrong.
    pub(crate) declared: Option<Declared>,
    /// How often the pod wants it read again.
    interval: Option<Duration>,
    store: Option<Arc<dyn SecretStore>>,
    /// The parameters it was opened with.
    params: BTreeMap<String, Secret>,
    /// Why it cannot be asked at all.
    fault: Option<Fault>,
    answers: BTreeMap<String, CachedSecret>,
    /// What is not among the answers is not there.
    whole: bool,
    /// Nothing more is asked for than there are answers to, and nothing more is kept.
    settled: bool,
    last_read: Option<SystemTime>,
    trouble: Option<StoreTrouble>,
    patience: Duration,
}

/// What a store said of a key.
#[derive(Clone)]
pub(crate) enum CachedSecret {
    Value(Secret),
    Absent,
    Fault(Unresolved),
}

/// Why a store cannot be asked at all.
#[derive(Clone)]
pub(crate) struct Fault {
    pub(crate) problem: String,
    pub(crate) hint: String,
    /// False where it follows from another failure, which has its own line in the report.
    pub(crate) own: bool,
}

/// What came of a reading.
pub(crate) struct ReadOutcome {
    pub(crate) changed: bool,
    /// The first thing that is not well, and the way out.
    pub(crate) trouble: Option<(String, String)>,
    /// True where that has just begun, or has just ended.
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

    /// An open store, for tests.
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

    /// Opens it, or opens it again with other parameters; what it said stays until it is asked again.
    pub(crate) fn open(&mut self, params: BTreeMap<String, Secret>, surroundings: &StoreEnv) {
        let Some(declared) = &self.declared else { return };
        match declared.open(&params, surroundings) {
            Ok(store) => (self.store, self.fault) = (Some(store), None),
            Err(error) => self.fail(error.to_string(), error.hint().to_owned(), true),
        }
        self.params = params;
    }

    /// It cannot be asked.
    pub(crate) fn fail(&mut self, problem: String, hint: String, own: bool) {
        self.fault = Some(Fault { problem, hint, own });
    }

    pub(crate) fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// A fault of its own, which from now on has its line in the report.
    pub(crate) fn reported_fault(&mut self) -> Option<Fault> {
        let fault = self.fault.as_mut().filter(|fault| fault.own)?;
        let reported = fault.clone();
        fault.own = false;
        Some(reported)
    }

    pub(crate) fn store(&self) -> Option<&Arc<dyn SecretStore>> {
        self.store.as_ref()
    }

    /// True where it was opened with these very parameters.
    pub(crate) fn was_opened_with(&self, params: &BTreeMap<String, Secret>) -> bool {
        self.params.len() == params.len()
            && self.params.iter().zip(params).all(|((a, x), (b, y))| a == b && x.expose() == y.expose())
    }

    /// What it says of `key`; `None` where it has to be asked.
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

    /// Where it looks for `key`.
    pub(crate) fn places(&self, key: &str) -> String {
        self.store.as_ref().map_or_else(|| format!("store `{}`", self.name), |store| store.places(key))
    }

    /// The question to it about `keys`; apart from the shelf, so that several are asked at a time.
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

    /// Takes in what it said of `keys`. A value that it had is kept where it now has trouble with it.
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
                hint: format!("give it a value there, or take it away; looked at: {}", self.places(&key)),
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
            // What it had is kept: a slip of the pen in the store must not end what serves.
            CachedSecret::Absent => {
                let hint = format!("put it back; looked at: {}", self.places(&key));
                learned.trouble.get_or_insert((format!("`{key}` is not there any more"), hint));
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

    /// From now on only `keys` are asked for; all else is forgotten.
    pub(crate) fn settle(&mut self, keys: &[String]) {
        let kept = keys.iter().filter_map(|key| Some((key.clone(), self.answer(key)?))).collect();
        self.answers = kept;
        (self.whole, self.settled) = (false, true);
    }

    /// True where it tells of changes by itself.
    pub(crate) fn watches(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.watches())
    }

    /// How often it is read again by itself.
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
