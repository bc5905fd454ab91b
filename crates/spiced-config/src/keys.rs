//! API keys in the tree: each is split into the key and its role, by what was written and never by what
//! a reference gives.

use spiced_secrets::{Part, Template};
use tls_core::Secret;

use crate::error::Problem;
use crate::tree::{Key, Kind, Node, Text};

/// Where the keys are.
pub(crate) const KEYS: [&str; 4] = ["runtime", "auth", "api_key", "keys"];

const ROLES: [&str; 2] = ["ro", "rw"];

/// Suffixes that look like a role and are not one: they would become a part of the key.
const NOT_ROLES: [&str; 17] = [
    "ro",
    "rw",
    "r",
    "w",
    "wr",
    "r/w",
    "read",
    "write",
    "readonly",
    "read-only",
    "read_only",
    "readwrite",
    "read-write",
    "read_write",
    "admin",
    "user",
    "rd",
];

/// Makes of each key that is text a map of `key` and `role`. What is no text stays, so that the schema
/// can say so. Returns a problem for each role that is nearly right.
pub(crate) fn split(root: &mut Node) -> Vec<Problem> {
    let mut problems = Vec::new();
    let Some(node) = root.get_mut(&KEYS) else { return problems };
    if let Kind::Text(Text::Final { value, secret, list: true }) = &node.kind {
        let text = value.expose_text().unwrap_or_default().trim();
        // A key that is left out between two commas is a mistake, as an empty one is anywhere; and so is a variable
        // without any: `enabled` is what switches keys off.
        let items = text.split(',').map(str::trim).map(|item| Node {
            kind: Kind::Text(Text::Final { value: item.into(), secret: *secret, list: false }),
            origin: node.origin.clone(),
        });
        node.kind = Kind::List(items.collect());
    }
    let Kind::List(items) = &mut node.kind else { return problems };
    for item in items {
        let Kind::Text(text) = &item.kind else { continue };
        let (key, role) = match text {
            Text::Written(template) => match strip(|suffix| template.strip_suffix(suffix)) {
                Some((role, rest)) => (Text::Written(rest), Some(role)),
                None => (text.clone(), None),
            },
            Text::Final { value, secret, list } => {
                let stripped = strip(|suffix| {
                    value.expose().strip_suffix(suffix.as_bytes()).map(|rest| Secret::new(rest.to_vec()))
                });
                match stripped {
                    Some((role, rest)) => (Text::Final { value: rest, secret: *secret, list: *list }, Some(role)),
                    None => (text.clone(), None),
                }
            }
        };
        let origin = item.origin.clone();
        if role.is_none() && ends_with_no_role(&key) {
            let message = "what stands after the last colon of the API key is no role, and would be a part of the key";
            problems.push(Problem::new(origin.clone(), message).hint("write :ro or :rw at its end, in small letters"));
        }
        let entry = |name: &str, text| {
            (
                Key { name: name.to_owned(), origin: origin.clone() },
                Node { kind: Kind::Text(text), origin: origin.clone() },
            )
        };
        let role = role.map(|role| entry("role", Text::Written(Template::literal(role))));
        item.kind = Kind::Map([entry("key", key)].into_iter().chain(role).collect());
    }
    problems
}

/// Returns true where the text that was written ends with a colon and a word for a role.
fn ends_with_no_role(text: &Text) -> bool {
    let last = match text {
        Text::Written(template) => match template.parts().last() {
            Some(Part::Literal(text)) => text,
            _ => return false,
        },
        Text::Final { secret: true, .. } => return false,
        Text::Final { value, .. } => value,
    };
    let word =
        last.expose_text().ok().and_then(|text| text.rsplit_once(':')).map(|(_, word)| word.trim().to_lowercase());
    word.is_some_and(|word| NOT_ROLES.contains(&word.as_str()))
}

/// Each key as it was written, where it holds references.
pub(crate) fn written(root: &Node) -> Vec<Option<Template>> {
    let Some(Node { kind: Kind::List(items), .. }) = root.get(&KEYS) else { return Vec::new() };
    let referring = |item: &Node| match &item.get(&["key"])?.kind {
        Kind::Text(Text::Written(template)) if !template.is_literal() => Some(template.clone()),
        _ => None,
    };
    items.iter().map(referring).collect()
}

/// `api-key`, as Spice writes it, becomes `api_key`.
pub(crate) fn rename(pod: &mut Node) {
    let Some(Node { kind: Kind::Map(entries), .. }) = pod.get_mut(&["runtime", "auth"]) else { return };
    for (key, _) in entries.iter_mut().filter(|(key, _)| key.name == "api-key") {
        key.name = "api_key".to_owned();
    }
}

fn strip<T>(strip: impl Fn(&str) -> Option<T>) -> Option<(&'static str, T)> {
    ROLES.into_iter().find_map(|role| Some((role, strip(&format!(":{role}"))?)))
}
