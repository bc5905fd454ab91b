//! Opens the stores that a pod declares, resolves references, and reports every failure at once.
//!
//! Answers are cached until [`Resolver::follow`] hands the stores over, so each secret is requested only once, no
//! matter how many references to it exist.

mod dependency_order;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tls_core::{Origin, Secret, Sourced};
use tokio::sync::{Mutex, watch};

use crate::refresh::{SecretsRefresh, WatchedSecrets};
use crate::report::{FailureKind, Resolution, ResolveError, ResolveErrors, Unresolved};
use crate::resolver::dependency_order::dependency_order;
use crate::store::cached_store::CachedStore;
use crate::store::store_chain::{ALL, Look, StoreChain};
use crate::store::{Declared, StoreEnv};
use crate::{Reference, SecretValue, Template, template};

/// The store that always exists.
const ENV: &str = "env";

/// A store as the pod declares it.
#[derive(Debug, Clone)]
pub struct DeclaredStore {
    /// The name that references use.
    pub name: String,
    /// The kind and its argument: `env`, `file:DIR`.
    pub from: String,
    /// The parameters of the kind; they may refer to other stores.
    pub params: BTreeMap<String, Sourced<Template>>,
    /// How often the store is read again; `None` for the kind's own interval.
    pub refresh_interval: Option<Duration>,
    /// Where the store is declared.
    pub origin: Origin,
}

/// The opened stores of a pod.
pub struct Resolver {
    names: Vec<String>,
    shelves: Mutex<StoreChain>,
    surroundings: StoreEnv,
    /// The errors in the declarations and their parameters.
    errors: Vec<ResolveError>,
    /// The values that are followed.
    subscribed: Vec<(Sourced<Template>, watch::Sender<Secret>)>,
}

impl Resolver {
    /// Opens the declared stores, and `env`, which is queried last unless the pod declares it. Only stores that the
    /// parameters of others refer to are queried.
    ///
    /// Errors in the declarations are part of the first report, together with all other failures.
    pub async fn open(declared: Vec<DeclaredStore>, surroundings: &StoreEnv) -> Self {
        let (mut shelves, mut errors) = shelve(declared);
        let needs: Vec<Vec<usize>> = (0..shelves.0.len())
            .map(|at| {
                let references = shelves.params(at).flat_map(|(_, value)| value.value.references());
                // A name that no store has is reported when it is looked up.
                let needs: BTreeSet<usize> = references.flat_map(|r| shelves.asked_by(r, Some(at))).collect();
                needs.into_iter().collect()
            })
            .collect();
        let (order, cycles) = dependency_order(&needs);
        for cycle in cycles {
            errors.push(in_a_circle(&shelves, &cycle));
        }
        for shelf in shelves.0.iter_mut().filter(|shelf| shelf.declared.is_some()) {
            shelf.fail("its params form a cycle".to_owned(), String::new(), false);
        }
        for at in order {
            let params: Vec<Sourced<Template>> = shelves.params(at).map(|(_, value)| value.clone()).collect();
            let references: Vec<&Reference> = params.iter().flat_map(|value| value.value.references()).collect();
            shelves.ask(&references, Some(at)).await;
            let Some(rendered) = shelves.render_params(at) else {
                errors.extend(failures(&shelves, &params, Some(at)));
                let hint = "see the error about its params".to_owned();
                shelves.0[at].fail("one of its params has no value".to_owned(), hint, false);
                continue;
            };
            let shelf = &mut shelves.0[at];
            if shelf.declared.is_some() {
                shelf.open(rendered, surroundings);
                if let Some(fault) = shelf.reported_fault() {
                    errors.push(ResolveError {
                        origin: shelf.origin.clone(),
                        subject: subject(&shelf.name),
                        problem: fault.problem,
                        hint: fault.hint,
                    });
                }
            }
        }
        let names = shelves.0.iter().map(|shelf| shelf.name.clone()).collect();
        let errors = unique(errors);
        Self { names, shelves: Mutex::new(shelves), surroundings: surroundings.clone(), errors, subscribed: Vec::new() }
    }

    /// Returns the names of the stores, in the order in which `${secrets:KEY}` queries them.
    pub fn store_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.names.iter().map(String::as_str)
    }

    /// Returns the values with their references replaced, in order.
    ///
    /// # Errors
    /// Returns every store that cannot be used, and every other reference without a value.
    pub async fn resolve_all(&self, values: &[Sourced<Template>]) -> Result<Vec<Secret>, ResolveErrors> {
        let mut shelves = self.shelves.lock().await;
        shelves.ask(&references(values), None).await;
        let mut errors = self.errors.clone();
        errors.extend(failures(&shelves, values, None));
        let rendered: Option<Vec<Secret>> = values.iter().map(|value| shelves.render(&value.value, None)).collect();
        match rendered {
            Some(rendered) if errors.is_empty() => Ok(rendered),
            _ => Err(ResolveErrors(unique(errors))),
        }
    }

    /// Runs the same queries as [`resolve_all`](Self::resolve_all), including those for the parameters of the stores.
    /// For each reference, in order, returns the store that answered or why none did.
    pub async fn check(&self, values: &[Sourced<Template>]) -> Vec<Resolution> {
        let mut shelves = self.shelves.lock().await;
        shelves.ask(&references(values), None).await;
        let of_params = (0..shelves.0.len()).flat_map(|at| {
            let references = shelves.params(at).flat_map(|(_, v)| v.value.references().map(|r| (&v.origin, r)));
            references.map(move |(origin, reference)| (origin, reference, Some(at)))
        });
        let of_values = values.iter().flat_map(|v| v.value.references().map(|r| (&v.origin, r, None)));
        of_params
            .chain(of_values)
            .map(|(origin, reference, asker)| answer(&shelves, origin, reference, asker))
            .collect()
    }

    /// Returns the errors in the stores' declarations, which are part of every report of
    /// [`resolve_all`](Self::resolve_all).
    pub fn declaration_errors(&self) -> &[ResolveError] {
        &self.errors
    }

    /// Returns a receiver of the value, which changes with the stores once [`follow`](Self::follow) is running; `None` if
    /// the value refers to no secret.
    pub fn subscribe(&mut self, value: &Sourced<SecretValue>) -> Option<watch::Receiver<Secret>> {
        let template = value.value.template()?.clone();
        let (sender, receiver) = watch::channel(value.value.current().clone());
        self.subscribed.push((Sourced::new(template, value.origin.clone()), sender));
        Some(receiver)
    }

    /// Hands the stores over to a refresh task, which keeps the subscribed values up to date. All other cached answers
    /// are dropped.
    pub fn follow(self) -> WatchedSecrets {
        SecretsRefresh::start(self.shelves.into_inner(), self.subscribed, self.surroundings)
    }
}

/// Checks the declarations against the known kinds. The store that is queried first comes first.
fn shelve(declared: Vec<DeclaredStore>) -> (StoreChain, Vec<ResolveError>) {
    let (mut shelves, mut errors) = (Vec::new(), Vec::new());
    let mut names: HashMap<String, Origin> = HashMap::new();
    for DeclaredStore { name, from, params, refresh_interval, origin } in declared {
        let refuse = |problem: String, hint: &str| ResolveError {
            origin: origin.clone(),
            subject: subject(&name),
            problem,
            hint: hint.to_owned(),
        };
        let wrong = if !template::is_store_name(&name) {
            Some(refuse("no reference can name it".into(), "use letters, digits, `_` and `-` only"))
        } else if name == ALL {
            Some(refuse(format!("`${{{ALL}:KEY}}` queries all stores"), "give this one another name"))
        } else if name == ENV && from.trim() != ENV {
            Some(refuse(format!("this name is that of `from: {ENV}`"), "give this one another name"))
        } else {
            let taken = |first| {
                refuse(format!("the name is taken by the store at {first}"), "give one of the two another name")
            };
            names.get(&name).map(taken)
        };
        names.entry(name.clone()).or_insert_with(|| origin.clone());
        let mut shelf = CachedStore::new(name.clone(), origin.clone(), refresh_interval);
        match wrong.map_or_else(|| Declared::read(&from, params).map_err(|e| refuse(e.to_string(), e.hint())), Err) {
            Ok(declared) => shelf.declared = Some(declared),
            Err(error) => {
                errors.push(error);
                shelf.fail("its declaration is invalid".to_owned(), "see the error about it".to_owned(), false);
            }
        }
        // A reference means the first store of that name.
        if !shelves.iter().any(|other: &CachedStore| other.name == name) {
            shelves.push(shelf);
        }
    }
    shelves.reverse();
    if !shelves.iter().any(|shelf| shelf.name == ENV) {
        let mut env = CachedStore::new(ENV.to_owned(), Origin::Default, None);
        env.declared = Declared::read(ENV, BTreeMap::new()).ok();
        shelves.push(env);
    }
    (StoreChain(shelves), errors)
}

fn in_a_circle(shelves: &StoreChain, cycle: &[usize]) -> ResolveError {
    let first = &shelves.0[cycle[0]];
    let steps: Vec<&str> = cycle.iter().chain(&cycle[..1]).map(|at| shelves.0[*at].name.as_str()).collect();
    ResolveError {
        origin: first.origin.clone(),
        subject: subject(&first.name),
        problem: format!("the params of stores refer to each other in a cycle: {}", steps.join(" -> ")),
        hint: format!("give one of them its value from another store, such as `${{{ENV}:KEY}}`"),
    }
}

fn references(values: &[Sourced<Template>]) -> Vec<&Reference> {
    values.iter().flat_map(|value| value.value.references()).collect()
}

/// Returns an error for each store that leaves references without a value, once, then one for each other reference
/// without a value.
fn failures(shelves: &StoreChain, values: &[Sourced<Template>], asker: Option<usize>) -> Vec<ResolveError> {
    let mut by_store: BTreeMap<usize, (Vec<&Origin>, HashSet<&Origin>)> = BTreeMap::new();
    let mut of_references: Vec<(ResolveError, usize)> = Vec::new();
    // One cause, such as a file that cannot be read, is one error for all references that it leaves without a value.
    let mut by_cause: HashMap<(String, String), usize> = HashMap::new();
    for value in values {
        for reference in value.value.references() {
            let Look::Failed { why, fault } = shelves.look(reference, asker) else { continue };
            match fault {
                Some(at) => {
                    let (places, seen) = by_store.entry(at).or_default();
                    if seen.insert(&value.origin) {
                        places.push(&value.origin);
                    }
                }
                None => {
                    let at = match why.kind {
                        FailureKind::Unreachable => {
                            let cause = (why.problem.clone(), why.hint.clone());
                            *by_cause.entry(cause).or_insert(of_references.len())
                        }
                        FailureKind::Missing => of_references.len(),
                    };
                    if let Some((first, others)) = of_references.get_mut(at) {
                        *others += usize::from(first.origin != value.origin || first.subject != reference.to_string());
                        continue;
                    }
                    let (origin, subject) = (value.origin.clone(), reference.to_string());
                    of_references.push((ResolveError { origin, subject, problem: why.problem, hint: why.hint }, 0));
                }
            }
        }
    }
    let of_stores = by_store.into_iter().filter_map(|(at, (places, _))| {
        let shelf = &shelves.0[at];
        let fault = shelf.fault().filter(|fault| fault.own)?;
        let asked_for = match places.as_slice() {
            [] => String::new(),
            [one] => format!(" (needed by {one})"),
            [one, rest @ ..] => format!(" (needed by {one} and {} more)", rest.len()),
        };
        Some(ResolveError {
            origin: shelf.origin.clone(),
            subject: subject(&shelf.name),
            problem: format!("{}{asked_for}", fault.problem),
            hint: fault.hint.clone(),
        })
    });
    let of_references = of_references.into_iter().map(|(mut error, others)| {
        if others > 0 {
            let references = if others == 1 { "reference" } else { "references" };
            error.problem.push_str(&format!(" (and {others} more {references} with the same cause)"));
        }
        error
    });
    of_stores.chain(of_references).collect()
}

fn answer(shelves: &StoreChain, origin: &Origin, reference: &Reference, asker: Option<usize>) -> Resolution {
    let asked = |until: Option<usize>| {
        let places = shelves.asked_by(reference, asker).take_while(move |at| until.is_none_or(|until| *at <= until));
        places.map(|at| shelves.0[at].name.clone()).collect()
    };
    let (asked, outcome) = match shelves.look(reference, asker) {
        Look::Found { at, .. } => (asked(Some(at)), Ok(shelves.0[at].name.clone())),
        Look::Failed { why, fault } => (asked(fault), Err(why)),
        // The store is in a cycle, so it is never queried.
        Look::Ask(at) => {
            let problem = format!("store `{}` cannot be queried", shelves.0[at].name);
            (Vec::new(), Err(Unresolved { kind: FailureKind::Unreachable, problem, hint: String::new() }))
        }
    };
    Resolution { origin: origin.clone(), reference: reference.clone(), asked, outcome }
}

fn subject(name: &str) -> String {
    format!("secret store `{name}`")
}

/// Removes duplicate errors; keeps the order.
fn unique(errors: Vec<ResolveError>) -> Vec<ResolveError> {
    let mut seen = HashSet::with_capacity(errors.len());
    errors.into_iter().filter(|error| seen.insert(error.clone())).collect()
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("names", &self.names).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
