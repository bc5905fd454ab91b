//! Who gives the TLS material, and whether TLS is on. Decided on the merged values, before anything is read: the
//! effective source is chosen first, and a broken overridden one does no harm.
//!
//! figment's merge decides between two layers that give the same key. Between a file and text it cannot decide: they are
//! two keys.

use tls_core::Origin;

use crate::problem::Problem;
use crate::resolve::effective::{Effective, Node};
use crate::settings::Warning;

const TLS: &str = "runtime.tls";
const PAIR: [(&str, &str); 2] = [("certificate_file", "certificate"), ("key_file", "key")];
/// More pairs.
const MORE: &str = "certificates";
const PASSPHRASE: &str = "key_passphrase";
/// No material of the server's own: it turns nothing on.
const CLIENT_CA: (&str, &str) = ("client_auth_ca_file", "client_auth_ca");

/// The switches, where they are given, with their places.
#[derive(Debug, Default)]
pub(crate) struct Switches {
    pub(crate) enabled: Option<(bool, Origin)>,
    pub(crate) self_signed: Option<(bool, Origin)>,
}

/// Leaves no material but that of the effective source, and none at all if TLS is off. Returns whether it is on.
pub(crate) fn choose(
    tree: &mut Effective<'_>,
    switches: Switches,
    warnings: &mut Vec<Warning>,
) -> Result<bool, Problem> {
    // Topmost first.
    let mut given: Vec<(usize, Origin)> = PAIR
        .iter()
        .flat_map(|(file, text)| [*file, *text])
        .chain([MORE])
        .filter_map(|name| setting(tree, name).filter(|node| !node.is_nothing()))
        .map(|node| (tree.rank(&node), node.origin()))
        .collect();
    given.sort_by_key(|(rank, _)| *rank);
    let rank_of = |name| setting(tree, name).map_or(usize::MAX, |node| tree.rank(&node));
    let (enabled_at, self_signed_at) = (rank_of("enabled"), rank_of("self_signed"));
    let first_material = given.first().cloned();
    let self_signed = switches.self_signed.filter(|(on, _)| *on).map(|(_, origin)| (self_signed_at, origin));
    let anything = first_material.clone().or(self_signed.clone());

    let on = match switches.enabled {
        None => anything.is_some(),
        Some((true, origin)) => {
            if anything.is_none() {
                return Err(nothing_given(origin));
            }
            true
        }
        Some((false, origin)) => {
            let above = [&first_material, &self_signed].into_iter().flatten().find(|(rank, _)| *rank < enabled_at);
            if let Some((_, above)) = above {
                return Err(Problem::new(
                    above.clone(),
                    format!(
                        "gives TLS material, and TLS is switched off at {origin}; it would be served in plain text"
                    ),
                )
                .hint(format!(
                    "take one of the two away, or switch TLS on where the material is given (beside {above})"
                )));
            }
            if let Some((_, beaten)) = anything {
                warnings.push(Warning {
                    origin: Some(origin),
                    message: format!("TLS is off, so {beaten} is not used and all endpoints speak plain text"),
                });
            }
            false
        }
    };
    if on {
        if let (Some((_, origin)), Some((_, other))) = (self_signed, first_material) {
            return Err(Problem::new(
                origin,
                format!("self_signed stands beside {other}; only one of them can be served"),
            )
            .hint("take one of the two away"));
        }
        keep_one_of_each(tree);
    } else if first_material.is_some() {
        for name in PAIR.into_iter().flat_map(|(file, text)| [file, text]).chain([MORE, PASSPHRASE]) {
            tree.remove(&format!("{TLS}.{name}"));
        }
    }
    Ok(on)
}

/// Keeps of each file and its text the effective one, and the passphrase only beside its key.
fn keep_one_of_each(tree: &mut Effective<'_>) {
    let mut overridden: Vec<String> = Vec::new();
    if let Some(tls) = tree.get(TLS) {
        overridden.extend(PAIR.into_iter().chain([CLIENT_CA]).filter_map(|names| beaten(tree, &tls, names)));
        // The passphrase of an overridden key is not used for another one.
        let [_, (file, text)] = PAIR;
        let key = [file, text].iter().filter_map(|name| tls.get(name)).map(|node| tree.rank(&node)).min();
        let passphrase = tls.get(PASSPHRASE).filter(|node| key.is_some_and(|key| tree.rank(node) > key));
        overridden.extend(passphrase.map(|node| node.pointer().to_owned()));
        for item in tls.get(MORE).and_then(|node| node.items()).unwrap_or_default() {
            overridden.extend(PAIR.into_iter().filter_map(|names| beaten(tree, &item, names)));
        }
    }
    for pointer in overridden {
        tree.remove_at(&pointer);
    }
}

/// Of a file and its text, the one that does not count. The order of the contract: the layers from the top; in the
/// pod's, a value with a reference before a plain one; within one of these, a file before inline text.
fn beaten(tree: &Effective<'_>, place: &Node<'_>, (file, text): (&str, &str)) -> Option<String> {
    let given = |name| place.get(name).filter(|node| !node.is_null());
    let (file, text) = (given(file)?, given(text)?);
    let order = |node: &Node<'_>| (tree.rank(node), node.written().is_none());
    let beaten = if order(&file) <= order(&text) { text } else { file };
    Some(beaten.pointer().to_owned())
}

fn setting<'t>(tree: &'t Effective<'_>, name: &str) -> Option<Node<'t>> {
    tree.get(TLS)?.get(name)
}

/// The ways to give material, for an operator who gave none.
pub(crate) const WAYS: &str = "give a certificate and its key: --tls-certificate-file and --tls-key-file, \
    SPICED_RUNTIME__TLS__CERTIFICATE_FILE and SPICED_RUNTIME__TLS__KEY_FILE, or certificate_file and key_file (certificate \
    and key for PEM text) under runtime.tls in spicepod.yaml; or --tls-self-signed for development";

fn nothing_given(origin: Origin) -> Problem {
    Problem::new(origin, "TLS is switched on, and nothing gives a certificate").hint(WAYS)
}
