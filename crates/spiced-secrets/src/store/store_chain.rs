//! The stores of a pod in query order, and how a reference is looked up in them.
//!
//! `${name:KEY}` queries one store; `${secrets:KEY}` queries every store, in order, until one has KEY. An empty value,
//! or a store that cannot be read, fails the reference and ends the search: continuing would silently use a value that
//! the pod ranks lower.

use std::collections::{BTreeMap, HashSet};

use futures::future::join_all;
use tls_core::{Secret, Sourced};

use crate::report::{FailureKind, Unresolved};
use crate::store::cached_store::{CachedSecret, CachedStore};
use crate::store::nearest;
use crate::{Reference, Template};

/// The name that means every store.
pub(crate) const ALL: &str = "secrets";

/// The stores; the first is queried first.
pub(crate) struct StoreChain(pub(crate) Vec<CachedStore>);

/// The result of looking up a reference in the cached answers.
pub(crate) enum Look {
    /// The store at this index must be queried first.
    Ask(usize),
    Found {
        secret: Secret,
        at: usize,
    },
    Failed {
        why: Unresolved,
        /// The store that cannot be queried at all, if that is the reason.
        fault: Option<usize>,
    },
}

impl StoreChain {
    /// Looks up `reference`. `asker` is the store whose parameters contain the reference; that store is skipped for
    /// `${secrets:KEY}`.
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

    /// Returns the indices of the stores that `reference` may query, in order.
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

    /// Queries the stores until every reference has a result. Each round queries a store at most once, and no answer is
    /// requested twice.
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

    /// Returns the value of `template`; `None` if one of its references has no value.
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

    /// Returns the values of the parameters of the store at index `at`.
    pub(crate) fn render_params(&self, at: usize) -> Option<BTreeMap<String, Secret>> {
        let params = self.params(at);
        params.map(|(name, value)| Some((name.clone(), self.render(&value.value, Some(at))?))).collect()
    }

    /// Returns the parameters of the store at index `at`, as written in the pod file.
    pub(crate) fn params(&self, at: usize) -> impl Iterator<Item = (&String, &Sourced<Template>)> {
        self.0[at].declared.iter().flat_map(|declared| &declared.params)
    }
}
