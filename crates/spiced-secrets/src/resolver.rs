//! Which store is asked for a reference, and what happens when it has no answer: an error.
//!
//! `${name:KEY}` asks one store; `${secrets:KEY}` asks all, the last declared first. The first
//! store that knows KEY answers. An empty value is an answer, and an error; so is a store that
//! cannot be read: asking on would silently take a value that the pod ranks lower.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use tls_core::{Origin, Secret, Sourced};

use crate::report::{Answer, ResolveError, ResolveErrors};
use crate::store::{self, SecretStore, StoreError, Surroundings};
use crate::{Reference, Template, reference};

/// The name that stands for all stores.
const ALL: &str = "secrets";

/// The store that is always there.
const ENV: &str = "env";

/// How long one question to one store may take where nobody says otherwise.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// How many secrets are asked for at once.
const AT_ONCE: usize = 8;

/// A store as the pod declares it.
#[derive(Debug, Clone)]
pub struct DeclaredStore {
    /// What references call it.
    pub name: String,
    /// Its kind, and what the kind needs: `env`, `file:DIR`.
    pub from: String,
    /// The kind's parameters; literal, since they are read before any store.
    pub params: BTreeMap<String, Sourced<Template>>,
    /// Where it is declared.
    pub origin: Origin,
}

/// The stores of a pod, in the order in which they are asked.
#[derive(Debug)]
pub struct Resolver {
    /// The first is asked first.
    stores: Vec<(String, Arc<dyn SecretStore>)>,
    /// How long one question to one store may take.
    patience: Duration,
}

impl Resolver {
    /// Opens the declared stores, and `env`, which is asked last where the pod does not declare it.
    ///
    /// # Errors
    /// Every declaration that is wrong: a doubled or impossible name, an unknown kind or parameter,
    /// a kind that this version does not have.
    pub fn new(declared: Vec<DeclaredStore>, surroundings: &Surroundings) -> Result<Self, ResolveErrors> {
        let mut errors = Vec::new();
        let mut stores: Vec<(String, Arc<dyn SecretStore>)> = Vec::new();
        let mut names: HashMap<String, Origin> = HashMap::new();
        for DeclaredStore { name, from, params, origin } in declared {
            let mut fail = |problem: String, hint: &str| {
                let subject = format!("secret store `{name}`");
                errors.push(ResolveError { origin: origin.clone(), subject, problem, hint: hint.to_owned() });
            };
            if !reference::is_store_name(&name) {
                fail("no reference could name it".into(), "use letters, digits, `_` and `-` only");
            } else if name == ALL {
                fail(format!("`${{{ALL}:KEY}}` asks all stores"), "give this one another name");
            } else if name == ENV && from.trim() != ENV {
                fail(format!("this name is that of `from: {ENV}`"), "give this one another name");
            } else if let Some(first) = names.get(&name) {
                fail(format!("the name is taken by the store at {first}"), "give one of the two another name");
            } else {
                match store::open(&from, &params, surroundings) {
                    Ok(store) => stores.push((name.clone(), store)),
                    Err(error) => fail(error.to_string(), "change `from` or `params`, or take the store out"),
                }
            }
            names.entry(name).or_insert(origin);
        }
        if !errors.is_empty() {
            return Err(ResolveErrors(errors));
        }
        stores.reverse();
        if !stores.iter().any(|(name, _)| name == ENV) {
            let env = store::open(ENV, &BTreeMap::new(), surroundings).expect("`env` without parameters always opens");
            stores.push((ENV.to_owned(), env));
        }
        Ok(Self { stores, patience: ANSWER_WITHIN })
    }

    /// The names of the stores, in the order in which `${secrets:KEY}` asks them.
    pub fn store_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.stores.iter().map(|(name, _)| name.as_str())
    }

    /// The values with their references replaced, in order. Each secret is asked for once, however
    /// many references to it there are.
    ///
    /// # Errors
    /// Every reference of every value that has no value of its own.
    pub async fn resolve_all(&self, values: &[Sourced<Template>]) -> Result<Vec<Secret>, ResolveErrors> {
        let outcomes = self.ask_all(values).await;
        let errors: Vec<ResolveError> = each_reference(values)
            .filter_map(|(origin, reference)| Some(outcomes[reference].as_ref().err()?.at(origin, reference)))
            .collect();
        if !errors.is_empty() {
            return Err(ResolveErrors(errors));
        }
        let lookup = |reference: &Reference| match &outcomes[reference] {
            Ok(answer) => answer.secret.clone(),
            Err(_) => unreachable!("every failure has been reported above"),
        };
        Ok(values.iter().map(|value| value.value.render(lookup)).collect())
    }

    /// Asks the same questions as [`resolve_all`](Self::resolve_all), and tells for each reference,
    /// in order, who answered or why nobody did.
    pub async fn check(&self, values: &[Sourced<Template>]) -> Vec<Answer> {
        let outcomes = self.ask_all(values).await;
        each_reference(values)
            .map(|(origin, reference)| Answer {
                origin: origin.clone(),
                reference: reference.clone(),
                outcome: match &outcomes[reference] {
                    Ok(answer) => Ok(answer.store.clone()),
                    Err(failure) => Err(failure.at(origin, reference)),
                },
            })
            .collect()
    }

    async fn ask_all<'v>(&self, values: &'v [Sourced<Template>]) -> HashMap<&'v Reference, Result<Found, Failure>> {
        let mut wanted: Vec<&Reference> = each_reference(values).map(|(_, reference)| reference).collect();
        wanted.sort_unstable();
        wanted.dedup();
        stream::iter(wanted)
            .map(|reference| async move { (reference, self.ask(reference).await) })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await
    }

    async fn ask(&self, reference: &Reference) -> Result<Found, Failure> {
        let key = reference.key();
        let mut places = Vec::new();
        let mut known = reference.store() == ALL;
        for (name, store) in &self.stores {
            if reference.store() != ALL && reference.store() != name {
                continue;
            }
            known = true;
            let answer = match tokio::time::timeout(self.patience, store.get(key)).await {
                Ok(answer) => answer,
                Err(_) => Err(StoreError::Timeout(self.patience)),
            };
            match answer {
                Ok(Some(secret)) if secret.is_blank() => {
                    return Err(Failure {
                        problem: format!("its value in store `{name}` is empty"),
                        hint: format!("give it a value there, or take it away; looked at: {}", store.places(key)),
                    });
                }
                Ok(Some(secret)) => return Ok(Found { secret, store: name.clone() }),
                Ok(None) => places.push(store.places(key)),
                Err(error) => {
                    return Err(Failure {
                        problem: format!("store `{name}` cannot answer: {error}"),
                        hint: "make it answer, or refer to another store".to_owned(),
                    });
                }
            }
        }
        Err(if known {
            Failure {
                problem: format!("there is no `{key}`"),
                hint: format!("set it in one of: {}", places.join("; ")),
            }
        } else {
            let known = self.store_names().chain([ALL]);
            Failure {
                problem: format!("no secret store is called `{}`", reference.store()),
                hint: format!("{}; or declare it under `secrets`", store::nearest(reference.store(), known)),
            }
        })
    }
}

struct Found {
    secret: Secret,
    store: String,
}

struct Failure {
    problem: String,
    hint: String,
}

impl Failure {
    fn at(&self, origin: &Origin, reference: &Reference) -> ResolveError {
        ResolveError {
            origin: origin.clone(),
            subject: reference.to_string(),
            problem: self.problem.clone(),
            hint: self.hint.clone(),
        }
    }
}

fn each_reference(values: &[Sourced<Template>]) -> impl Iterator<Item = (&Origin, &Reference)> {
    values.iter().flat_map(|value| value.value.references().map(|reference| (&value.origin, reference)))
}

#[cfg(test)]
mod tests;
