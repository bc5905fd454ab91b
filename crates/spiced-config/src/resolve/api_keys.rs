//! API keys in the tree: splits each into the key and its role, by the text as written, never by the value of a
//! reference.

use figment::value::{Dict, Value};

use crate::problem::Problem;
use crate::resolve::effective::Effective;

/// The path of the keys.
const KEYS: &str = "runtime.auth.api_key.keys";

const ROLES: [&str; 2] = ["ro", "rw"];

/// Suffixes that look like a role but are not one: they would become a part of the key.
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

/// Turns each key that is text into a map of `key` and `role`. Other values stay, so that the schema can report them.
/// Returns a problem for each role that is nearly right.
pub(crate) fn split(tree: &mut Effective<'_>) -> Vec<Problem> {
    // An omitted key between two commas is a mistake, like any empty key; so is a variable without keys: `enabled`
    // turns keys off.
    let commas = tree.get(KEYS).and_then(|node| node.comma_list().map(str::to_owned));
    let Some(keys) = tree.get_mut(KEYS) else { return Vec::new() };
    if let Some(text) = commas {
        let items = text.trim().split(',').map(|item| Value::String(keys.tag(), item.trim().to_owned()));
        *keys = Value::Array(keys.tag(), items.collect());
    }
    let Value::Array(_, items) = keys else { return Vec::new() };
    let mut doubtful = Vec::new();
    for (at, item) in items.iter_mut().enumerate() {
        let Value::String(tag, text) = item else { continue };
        let role = ROLES.into_iter().find_map(|role| Some((role, text.strip_suffix(role)?.strip_suffix(':')?)));
        if role.is_none() && ends_with_no_role(text) {
            doubtful.push(at);
        }
        let key = role.map_or(text.as_str(), |(_, key)| key);
        let mut entries = Dict::from([("key".to_owned(), Value::String(*tag, key.to_owned()))]);
        if let Some((role, _)) = role {
            entries.insert("role".to_owned(), Value::String(*tag, role.to_owned()));
        }
        *item = Value::Dict(*tag, entries);
    }
    let items = tree.get(KEYS).and_then(|node| node.items()).unwrap_or_default();
    let problem = |at: usize| {
        let message = "what stands after the last colon of the API key is no role, and would be a part of the key";
        let origin = items.get(at).map(|item| item.origin());
        Problem::new(origin, message).hint("write :ro or :rw at its end, in small letters")
    };
    doubtful.into_iter().map(problem).collect()
}

/// Returns true if the written text ends with a colon and a word that resembles a role.
fn ends_with_no_role(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(_, word)| NOT_ROLES.contains(&word.trim().to_lowercase().as_str()))
}
