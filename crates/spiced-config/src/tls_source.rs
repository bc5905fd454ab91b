//! Chooses the source of the TLS material, and whether TLS is on. This happens on the merged values, before anything is
//! read, so a broken source that is overridden has no effect.
//!
//! figment chooses between two layers that set the same key. It cannot choose between a file and text, which are two
//! keys.

use std::path::Path;

use tls_core::Origin;

use crate::problem::Problem;
use crate::problem::shown::may_be_secret;
use crate::raw::spicepod;
use crate::resolve::decode::unknown_key;
use crate::resolve::effective::{Effective, Node};
use crate::settings::Warning;

const TLS: &str = "runtime.tls";
const PAIR: [(&str, &str); 2] = [("certificate_file", "certificate"), ("key_file", "key")];
/// The key of additional pairs.
const MORE: &str = "certificates";
const PASSPHRASE: &str = "key_passphrase";
/// The client CA is not the server's own material: it does not turn TLS on.
const CLIENT_CA: (&str, &str) = ("client_auth_ca_file", "client_auth_ca");

/// The switches that are set, with their places.
#[derive(Debug, Default)]
pub(crate) struct Switches {
    pub(crate) enabled: Option<(bool, Origin)>,
    pub(crate) self_signed: Option<(bool, Origin)>,
}

/// Removes all material except that of the effective source, and all of it if TLS is off. Returns whether TLS is on.
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

/// Keeps the effective one of each file and its text, and a passphrase only with its own key.
fn keep_one_of_each(tree: &mut Effective<'_>) {
    let mut out_of_effect: Vec<String> = Vec::new();
    if let Some(tls) = tree.get(TLS) {
        out_of_effect.extend(PAIR.into_iter().chain([CLIENT_CA]).filter_map(|names| overridden(tree, &tls, names)));
        // The passphrase of an overridden key is not used for another one.
        let [_, (file, text)] = PAIR;
        let key = [file, text].iter().filter_map(|name| tls.get(name)).map(|node| tree.rank(&node)).min();
        let passphrase = tls.get(PASSPHRASE).filter(|node| key.is_some_and(|key| tree.rank(node) > key));
        out_of_effect.extend(passphrase.map(|node| node.pointer().to_owned()));
        for item in tls.get(MORE).and_then(|node| node.items()).unwrap_or_default() {
            out_of_effect.extend(PAIR.into_iter().filter_map(|names| overridden(tree, &item, names)));
        }
    }
    for pointer in out_of_effect {
        tree.remove_at(&pointer);
    }
}

/// Returns which of a file and its text is overridden. The order: the layers from the top; within the pod, a value with
/// a reference before a plain one; within one of these, a file before inline text.
fn overridden(tree: &Effective<'_>, place: &Node<'_>, (file, text): (&str, &str)) -> Option<String> {
    let given = |name| place.get(name).filter(|node| !node.is_null());
    let (file, text) = (given(file)?, given(text)?);
    let order = |node: &Node<'_>| (tree.rank(node), node.written().is_none());
    let overridden = if order(&file) <= order(&text) { text } else { file };
    Some(overridden.pointer().to_owned())
}

fn setting<'t>(tree: &'t Effective<'_>, name: &str) -> Option<Node<'t>> {
    tree.get(TLS)?.get(name)
}

/// The ways to provide material, for the hint of an error.
pub(crate) const WAYS: &str = "give a certificate and its key: --tls-certificate-file and --tls-key-file, \
    SPICED_RUNTIME__TLS__CERTIFICATE_FILE and SPICED_RUNTIME__TLS__KEY_FILE, or certificate_file and key_file (certificate \
    and key for PEM text) under runtime.tls in spicepod.yaml; or --tls-self-signed for development";

fn nothing_given(origin: Origin) -> Problem {
    Problem::new(origin, "TLS is switched on, and nothing gives a certificate").hint(WAYS)
}

/// Returns the problems with the keys of `runtime.tls`, by their pointers: unknown keys, and several files in place of
/// one.
pub(crate) fn misplaced(tree: &Effective<'_>, folder: &Path) -> Vec<(String, Problem)> {
    let Some(entries) = tree.get(TLS).and_then(|node| node.entries()) else { return Vec::new() };
    let wrong = |(name, value): (&str, Node<'_>)| {
        let problem = unknown_key::<spicepod::Tls>(name, &value);
        Some((value.pointer().to_owned(), problem.or_else(|| several_files(name, &value, folder))?))
    };
    entries.into_iter().filter_map(wrong).collect()
}

/// Reports a list in place of the path of one file: the files can be concatenated.
fn several_files(name: &str, value: &Node<'_>, folder: &Path) -> Option<Problem> {
    let items = value.items()?;
    let (targets, order) = match name {
        "certificate_file" => (
            ["fullchain.pem", "tls-chain.pem", "spiced-chain.pem"],
            "the server's own certificate first, then its intermediates",
        ),
        "client_auth_ca_file" => (["client-cas.pem", "clients-ca.pem", "spiced-client-cas.pem"], "in any order"),
        "key_file" => {
            let problem = Problem::new(value.origin(), "takes the path of one file, not a list");
            return Some(problem.hint("name the one file that holds the certificate's key"));
        }
        _ => return None,
    };
    let path = |item: &Node<'_>| item.literal().filter(|text| !may_be_secret(text)).map(|text| text.into_owned());
    let files: Option<Vec<String>> = items.iter().map(path).collect();
    let problem = Problem::new(value.origin(), "takes the path of one file, not a list");
    let one = |files: Vec<String>| {
        // The command works in any directory, and overwrites no existing file.
        let is_free =
            |target: &&&str| !files.iter().any(|file| file.ends_with(**target)) && !folder.join(target).exists();
        let target = targets.iter().find(is_free)?;
        let shell = |path: &str| quoted(&folder.join(path).to_string_lossy());
        let sources: Vec<String> = files.iter().map(|file| shell(file)).collect();
        let command = format!("`cat {} > {}`", sources.join(" "), shell(target));
        Some(format!("put them into one file, {order}: {command}; then write {name}: {target}"))
    };
    let hint = files.filter(|files| !files.is_empty()).and_then(one);
    Some(problem.hint(hint.unwrap_or_else(|| format!("put them into one file, {order}, and name that"))))
}

/// Returns a path as a shell word.
fn quoted(path: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%:,".contains(c);
    if !path.is_empty() && path.chars().all(is_plain) {
        path.to_owned()
    } else {
        format!("'{}'", path.replace('\'', "'\\''"))
    }
}
