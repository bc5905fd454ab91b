//! The secret stores that a pod declares. Their parameters may hold references to each other; their
//! names, kinds and intervals may not, since they are needed to know the stores at all.

use std::collections::BTreeMap;
use std::time::Duration;

use spiced_secrets::Template;
use tls_core::Sourced;

use crate::decode::{Spanned, decode};
use crate::error::{ConfigError, Problem};
use crate::settings::Store;
use crate::shown::may_be_secret;
use crate::spicepod;
use crate::tree::{Kind, Node, Text};

/// More often than this no store is read.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Reads the entries of `secrets`.
pub(crate) fn read(mut node: Node) -> Result<Vec<Store>, ConfigError> {
    let params = take_params(&mut node);
    let mut problems = Vec::new();
    node.each_text(&mut |origin, text| {
        if matches!(text, Text::Written(template) if !template.is_literal()) {
            problems.push(
                Problem::new(origin.clone(), "only the params of a store may hold references")
                    .hint("write the value itself"),
            );
        }
    });
    if !problems.is_empty() {
        return Err(ConfigError(problems));
    }
    let stores: Vec<Spanned<spicepod::Store>> = decode(node)?;
    let stores = stores.into_iter().zip(params).map(|(Spanned(store), params)| {
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
        // What the schema took for a literal is what the tree has.
        let literal = store.params.into_iter().map(|(name, Spanned(value))| (name, value.map(Template::literal)));
        let params = literal.chain(params).collect();
        Store { name: store.name, from: store.from, params, refresh_interval, origin }
    });
    let stores = stores.collect();
    if problems.is_empty() { Ok(stores) } else { Err(ConfigError(problems)) }
}

/// Takes those parameters out, of each store, that hold references.
fn take_params(node: &mut Node) -> Vec<BTreeMap<String, Sourced<Template>>> {
    let Kind::List(stores) = &mut node.kind else { return Vec::new() };
    let take = |store: &mut Node| {
        let mut taken = BTreeMap::new();
        if let Some(Node { kind: Kind::Map(params), .. }) = store.get_mut(&["params"]) {
            params.retain(|(name, value)| match &value.kind {
                Kind::Text(Text::Written(template)) if !template.is_literal() => {
                    taken.insert(name.name.clone(), Sourced::new(template.clone(), value.origin.clone()));
                    false
                }
                _ => true,
            });
        }
        taken
    };
    stores.iter_mut().map(take).collect()
}
