//! The secret stores that a pod declares. Their parameters may refer to each other's secrets; their names, kinds and
//! intervals may not, because these are needed before any store is opened.

use std::collections::BTreeMap;
use std::time::Duration;

use spiced_secrets::{DeclaredStore, Template};
use tls_core::Sourced;

use crate::problem::shown::may_be_secret;
use crate::problem::{ConfigError, Problem};
use crate::raw::spanned::Spanned;
use crate::raw::spicepod;
use crate::resolve::decode::decode;
use crate::resolve::effective::Effective;

/// The key of the stores.
pub(crate) const SECRETS: &str = "secrets";

/// The minimum interval at which a store is read.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Reads the entries of `secrets`.
pub(crate) fn read(tree: &mut Effective<'_>) -> Result<Vec<DeclaredStore>, ConfigError> {
    let mut params = take_params(tree);
    let mut problems = Vec::new();
    let Some(stores) = tree.get(SECRETS) else { return Ok(Vec::new()) };
    stores.each_scalar(&mut |node| {
        if node.reference().is_some() {
            problems.push(
                Problem::new(node.origin(), "only the params of a store may hold references")
                    .hint("write the value itself"),
            );
        }
    });
    if !problems.is_empty() {
        return Err(ConfigError(problems));
    }
    let stores: Vec<Spanned<spicepod::Store>> = decode(stores)?;
    let stores = stores.into_iter().enumerate().map(|(at, Spanned(store))| {
        let Sourced { value: store, origin } = store;
        for (what, text) in [("name", &store.name), ("from", &store.from)] {
            if may_be_secret(text) {
                let message = format!("the `{what}` of the secret store is none; it is not shown: it may be a secret");
                problems
                    .push(Problem::new(origin.clone(), message).hint("every store has a name, and a from: env, say"));
            }
        }
        let refresh_interval = match store.refresh_interval {
            Some(Spanned(interval)) if interval.value.0 < SHORTEST_INTERVAL => {
                problems.push(
                    Problem::new(interval.origin, "takes a duration of a second or more").hint("write 60s or 5m, say"),
                );
                None
            }
            interval => interval.map(|interval| interval.0.value.0),
        };
        // The tree has the literals that the schema has accepted.
        let literal = store.params.into_iter().map(|(name, Spanned(value))| (name, value.map(Template::literal)));
        let params = literal.chain(params.remove(&at).unwrap_or_default()).collect();
        DeclaredStore { name: store.name, from: store.from, params, refresh_interval, origin }
    });
    let stores = stores.collect();
    if problems.is_empty() { Ok(stores) } else { Err(ConfigError(problems)) }
}

type Params = BTreeMap<String, Sourced<Template>>;

/// Removes the parameters that contain references, by the index of their store.
fn take_params(tree: &mut Effective<'_>) -> BTreeMap<usize, Params> {
    let (mut taken, mut pointers) = (BTreeMap::new(), Vec::new());
    for (at, store) in tree.get(SECRETS).and_then(|node| node.items()).unwrap_or_default().iter().enumerate() {
        let mut params = Params::new();
        for (name, value) in store.get("params").and_then(|node| node.entries()).unwrap_or_default() {
            if let Some(template) = value.reference() {
                params.insert(name.to_owned(), Sourced::new(template, value.origin()));
                pointers.push(value.pointer().to_owned());
            }
        }
        taken.insert(at, params);
    }
    for pointer in pointers {
        tree.remove_at(&pointer);
    }
    taken
}
