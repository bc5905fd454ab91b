//! The stores of a pod in the order in which they are asked, and who answers a reference.
//!
//! `${name:KEY}` asks one store; `${secrets:KEY}` asks all, the first shelf first. The first store
//! that knows KEY answers. An empty value is an answer, and a failure; so is a store that cannot be
//! read: asking on would silently take a value that the pod ranks lower.

use std::collections::{BTreeMap, HashSet};

use futures::future::join_all;
use tls_core::{Secret, Sourced};

use crate::cached_store::{CachedSecret, CachedStore};
use crate::report::{FailureKind, Unresolved};
use crate::store::nearest;
use crate::{Reference, Template};

/// The name that stands for all stores.
pub(crate) const ALL: &str = "secrets";

/// The stores; the first is asked first.
pub(crate) struct StoreChain(pub(crate) Vec<CachedStore>);

/// What a reference gives, as far as the stores were asked.
pub(crate) enum Look {
    /// The store at this place has to be asked.
    Ask(usize),
    Found {
        secret: Secret,
        at: usize,
    },
    Failed {
        why: Unresolved,
        /// The store that cannot be asked at all, where that is why.
        fault: Option<usize>,
    },
}

impl StoreChain {
    /// What `reference` gives. `asker` is the store in whose parameters it stands, which is not asked
    /// itself.
    pub(crate) fn look(&self, reference: &Reference, asker: Option<usize>) -> Look {
        let key = reference.key();
        let mut places = Vec::new();
        for at in self.asked_by(reference, asker) {
            let shelf = &self.0[at];
            match shelf.answer(key) {
                None => return Look::Ask(at),
                Some(CachedSecret::Value(secret)) => return Look::Found { secret, at },
                Some(CachedSecret::Absent) => places.push(shelf.places(key)),
                Some(CachedSecret::Fault(why)) => {
                    let fault = shelf.fault().map(|_| at);
                    return Look::Failed { why, fault };
                }
            }
        }
        let (problem, hint) = if places.is_empty() && reference.store() != ALL {
            let known = self.0.iter().map(|shelf| shelf.name.as_str()).chain([ALL]);
            let hint = format!("{}; or declare it under `secrets`", nearest(reference.store(), known));
            (format!("no secret store is called `{}`", reference.store()), hint)
        } else {
            (format!("there is no `{key}`"), format!("set it in one of: {}", places.join("; ")))
        };
        Look::Failed { why: Unresolved { kind: FailureKind::Missing, problem, hint }, fault: None }
    }

    /// The places of the stores that `reference` may come to, in order.
    pub(crate) fn asked_by(&self, reference: &Reference, asker: Option<usize>) -> impl Iterator<Item = usize> {
        self.0
            .iter()
            .enumerate()
            .filter(move |(at, shelf)| match reference.store() {
                ALL => Some(*at) != asker,
                name => shelf.name == name,
            })
            .map(|(at, _)| at)
    }

    /// Asks the stores until every reference has its answer: each store at most once a wave, and none
    /// twice for what it has said.
    pub(crate) async fn ask(&mut self, references: &[&Reference], asker: Option<usize>) {
        loop {
            let mut wanted: BTreeMap<usize, (Vec<String>, HashSet<&str>)> = BTreeMap::new();
            for reference in references {
                if let Look::Ask(at) = self.look(reference, asker) {
                    let (keys, seen) = wanted.entry(at).or_default();
                    if seen.insert(reference.key()) {
                        keys.push(reference.key().to_owned());
                    }
                }
            }
            if wanted.is_empty() {
                return;
            }
            let questions = wanted.into_iter().map(|(at, (keys, _))| {
                let question = self.0[at].question(keys);
                async move { (at, question.await) }
            });
            for (at, (keys, reading)) in join_all(questions).await {
                self.0[at].apply(keys, reading);
            }
        }
    }

    /// The value of `template`; `None` where a reference has none.
    pub(crate) fn render(&self, template: &Template, asker: Option<usize>) -> Option<Secret> {
        let found: Option<Vec<Secret>> = template
            .references()
            .map(|reference| match self.look(reference, asker) {
                Look::Found { secret, .. } => Some(secret),
                _ => None,
            })
            .collect();
        let mut found = found?.into_iter();
        Some(template.render(|_| found.next().unwrap_or_default()))
    }

    /// The values of the parameters of the store at `at`.
    pub(crate) fn render_params(&self, at: usize) -> Option<BTreeMap<String, Secret>> {
        let params = self.params(at);
        params.map(|(name, value)| Some((name.clone(), self.render(&value.value, Some(at))?))).collect()
    }

    /// The parameters of the store at `at`, as the pod writes them.
    pub(crate) fn params(&self, at: usize) -> impl Iterator<Item = (&String, &Sourced<Template>)> {
        self.0[at].declared.iter().flat_map(|declared| &declared.params)
    }
}
