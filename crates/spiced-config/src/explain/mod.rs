//! Explains the configuration: each effective value, its origin, the values that it overrides, and the reason. Reads
//! secret stores only for the two switches of TLS, and shows no secret.

use serde::Serialize;
use serde_json::Value;
use spiced_secrets::Template;
use tls_core::{Origin, Secret, Sourced};

use crate::layers::{Layers, Merged, SettingsError, why as why_not};
use crate::problem::shown::{is_secret_place, may_be_secret, shown_key, without_credentials};
use crate::resolve::decode::boolean;
use crate::resolve::effective::{Effective, Node, Text};
use crate::resolve::stores::SECRETS;
use crate::schema::schema;
use crate::settings::Warning;

/// The explanation of all settings.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The settings, in the order of the schema; those that are not in it come last.
    pub settings: Vec<Explained>,
    /// Warnings about the configuration.
    pub warnings: Vec<String>,
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// The dotted key: `runtime.tls.key_file`, `datasets[0].name`.
    pub key: String,
    /// The value as it may be shown: `***` for a secret, a reference as written.
    pub value: String,
    /// The origin of the value; `the default` if it is not set.
    pub origin: String,
    /// The reason for the value, unless it is obvious.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The values that are set and overridden.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub beat: Vec<Beaten>,
}

/// A value that is set and overridden.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Beaten {
    /// The value as it may be shown.
    pub value: String,
    /// The origin of the value.
    pub origin: String,
    /// The reason why it does not apply.
    pub why: String,
}

/// The text shown instead of a secret.
const MASKED: &str = "***";

/// The text shown instead of a value that was refused.
const REFUSED: &str = "(refused, not shown)";

/// Parameters of stores and data sets that are not secret, by name. All others are masked, because an unknown parameter
/// may hold a secret.
const PLAIN_PARAMS: &[&str] = &[
    "_address",
    "_ca_file",
    "_db",
    "_endpoint_url",
    "_host",
    "_kubernetes_role",
    "_namespace",
    "_port",
    "_pushdown",
    "_region",
    "_sslmode",
    "_sslrootcert",
    "_user",
    "connection_pool_size",
    "csv_",
    "delimiter",
    "file_",
    "has_header",
    "namespace",
];

impl Layers {
    /// Explains the settings. `resolve` replaces only the references of the two TLS switches.
    ///
    /// # Errors
    /// Fails if the source of the TLS material is ambiguous, or if a switch is a reference without a value.
    pub async fn explain<E>(
        &self,
        resolve: impl AsyncFn(&[Sourced<Template>]) -> Result<Vec<Secret>, E>,
    ) -> Result<Explanation, SettingsError<E>> {
        let said = self.each();
        let Merged { tree, tls, warnings, problems, lost, .. } = self.merge_all(&resolve).await;
        if !problems.is_empty() || !lost.is_empty() {
            return Err(why_not(problems, lost));
        }
        let whole = Effective::of(self.layers());
        let mut effective = leaves(tree.root());
        effective.extend(whole.get(SECRETS).map(|node| leaves_below(node, SECRETS)).unwrap_or_default());

        let mut settings: Vec<Explained> = effective.iter().map(|(key, node)| explained(key, node)).collect();
        for (rank, (_, layer)) in said.iter().enumerate() {
            for (key, node) in leaves(layer.root()) {
                let Some(winner) = winner(&mut settings, &key, tls) else { continue };
                let origin = node.origin().to_string();
                if winner.origin == origin {
                    continue;
                }
                let why = why(&key, winner, rank, &said);
                winner.beat.push(Beaten { value: shown(&key, &node), origin, why });
            }
        }
        match settings.iter_mut().find(|s| s.key == "runtime.tls.enabled") {
            // A switch that is a reference is shown with its value.
            Some(said) => said.value = tls.to_string(),
            None => settings.push(switch(&said, tls)),
        }
        let known = schema();
        let mut keys = Vec::new();
        defaults(&known["properties"]["runtime"], "runtime", &mut keys);
        for (key, default) in &keys {
            let tls_material = !tls && key.starts_with("runtime.tls.") && key != "runtime.tls.enabled";
            if let Some(default) = default
                && !tls_material
                && !settings.iter().any(|s| s.key == *key)
            {
                let origin = Origin::Default.to_string();
                settings.push(Explained {
                    key: key.clone(),
                    value: default.clone(),
                    origin,
                    why: None,
                    beat: Vec::new(),
                });
            }
        }
        let rank = |key: &str| {
            let top = ["version", "kind", "name", "secrets", "runtime", "datasets"];
            let first = key.split(['.', '[']).next().unwrap_or_default();
            let place = top.iter().position(|t| *t == first).unwrap_or(top.len());
            (place, keys.iter().position(|(k, _)| k == key).unwrap_or(keys.len()))
        };
        settings.sort_by_key(|s| rank(&s.key));
        Ok(Explanation { settings, warnings: warnings.iter().map(Warning::to_string).collect() })
    }
}

impl Explanation {
    /// Masks the values of `origins`, which were refused: a value that is not a path, an address or a known word may be
    /// a secret.
    pub fn mask(&mut self, origins: &[Origin]) {
        let refused: Vec<String> = origins.iter().map(Origin::to_string).collect();
        for setting in &mut self.settings {
            if refused.contains(&setting.origin) {
                setting.value = REFUSED.to_owned();
            }
            for beaten in setting.beat.iter_mut().filter(|beaten| refused.contains(&beaten.origin)) {
                beaten.value = REFUSED.to_owned();
            }
        }
    }
}

/// Explains whether TLS is on if `enabled` is not set: it follows from the certificate settings.
fn switch(said: &[Said<'_>], tls: bool) -> Explained {
    let key = "runtime.tls.enabled".to_owned();
    let material = ["certificate_file", "certificate", "key_file", "key", "certificates", "self_signed"];
    let by = said.iter().find_map(|(_, layer)| {
        let tls = layer.get("runtime.tls")?;
        material.iter().find_map(|name| tls.get(name).filter(|node| !node.is_null()))
    });
    let (origin, why) = match by.filter(|_| tls) {
        Some(node) => (node.origin().to_string(), "certificate material turns TLS on where nobody says `enabled`"),
        None => (Origin::Default.to_string(), "nobody gives a certificate: all endpoints speak plain text"),
    };
    Explained { key, value: tls.to_string(), origin, why: Some(why.to_owned()), beat: Vec::new() }
}

/// Returns the setting that applies instead of `key`: itself, or the other setting for the same thing.
fn winner<'s>(settings: &'s mut [Explained], key: &str, tls: bool) -> Option<&'s mut Explained> {
    if let Some(at) = settings.iter().position(|s| s.key == key) {
        return settings.get_mut(at);
    }
    let (place, name) = key.rsplit_once('.').filter(|(place, _)| place.starts_with("runtime.tls"))?;
    let other = match name {
        "certificate" => "certificate_file",
        "certificate_file" => "certificate",
        "key" => "key_file",
        "key_file" => "key",
        "key_passphrase" if !tls => "",
        _ => return None,
    };
    let instead = if tls { format!("{place}.{other}") } else { "runtime.tls.enabled".to_owned() };
    settings.iter_mut().find(|s| s.key == instead)
}

/// The values of a layer, and the layer's name.
type Said<'l> = (String, Effective<'l>);

fn why(key: &str, winner: &Explained, loser: usize, said: &[Said<'_>]) -> String {
    let given = |layer: &Effective<'_>| layer.get(&winner.key).is_some_and(|n| n.origin().to_string() == winner.origin);
    let wins = said.iter().position(|(_, layer)| given(layer));
    match wins {
        Some(wins) if winner.key == "runtime.tls.enabled" && key != winner.key && wins <= loser => {
            format!("TLS is switched off at {}", winner.origin)
        }
        Some(wins) if wins < loser => format!("{} beats {}", said[wins].0, said[loser].0),
        _ if leaves(said[loser].1.root()).iter().any(|(key, node)| *key == winner.key && node.written().is_some()) => {
            "a value with a reference beats a plain one".to_owned()
        }
        _ => "a file beats inline text".to_owned(),
    }
}

fn explained(key: &str, node: &Node<'_>) -> Explained {
    Explained {
        key: key.to_owned(),
        value: shown(key, node),
        origin: node.origin().to_string(),
        why: None,
        beat: Vec::new(),
    }
}

/// Returns a value as it may be shown.
fn shown(key: &str, node: &Node<'_>) -> String {
    if let Some(items) = node.items() {
        let items: Vec<String> = items.iter().map(|item| shown(key, item)).collect();
        return format!("[{}]", items.join(", "));
    }
    match node.text() {
        None if node.is_map() => "{}".to_owned(),
        None => "nothing".to_owned(),
        Some(Text::Resolved(_)) => MASKED.to_owned(),
        Some(Text::Written(template)) => template
            .shown(|literal| if is_secret(key) && !is_role(literal) { MASKED.to_owned() } else { plain(literal) }),
        Some(Text::Literal(text)) if is_word_of_auth(key, &text) => plain(&text),
        Some(Text::Literal(_)) if is_secret(key) => MASKED.to_owned(),
        Some(Text::Literal(text)) if node.comma_list().is_some() && is_no_path(key, &text) => MASKED.to_owned(),
        Some(Text::Literal(text)) => plain(&text),
    }
}

/// Returns true for a valid value next to API keys: a switch or a role. Any other value there may be a key in the wrong
/// place.
fn is_word_of_auth(key: &str, text: &str) -> bool {
    let name = key.rsplit('.').next().unwrap_or_default();
    key.starts_with("runtime.auth.api")
        && match name {
            "enabled" => boolean(text.trim()).is_some(),
            "role" => ["ro", "rw", "read_only", "read_write"].contains(&text.trim()),
            _ => false,
        }
}

/// Returns true for text that may follow the reference to an API key.
fn is_role(text: &str) -> bool {
    [":ro", ":rw"].contains(&text)
}

/// Returns true for a value of a path setting that does not look like a path: a line of a key, or a JSON Web Key.
fn is_no_path(key: &str, text: &str) -> bool {
    let name = key.rsplit('.').next().unwrap_or_default();
    let has = |is: fn(&u8) -> bool| text.bytes().any(|byte| is(&byte));
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
    (name.ends_with("_file") || name.contains("_files"))
        && (text.contains(['{', '"'])
            || is_word && text.len() >= 16 && has(u8::is_ascii_digit) && has(u8::is_ascii_uppercase))
        && !std::path::Path::new(text).exists()
}

/// Returns the text on one line, without PEM under any key.
fn plain(text: &str) -> String {
    match may_be_secret(text.trim().trim_end_matches('\n')) {
        true => MASKED.to_owned(),
        false => without_credentials(text.trim()).replace('\n', "\\n"),
    }
}

/// Returns true if a plain value under this key may be a secret.
fn is_secret(key: &str) -> bool {
    const SECRETS: [&str; 5] = [
        "runtime.tls.certificate",
        "runtime.tls.key",
        "runtime.tls.key_passphrase",
        "runtime.tls.session_ticket_secret",
        "runtime.tls.client_auth_ca",
    ];
    let name = key.rsplit('.').next().unwrap_or_default();
    let param = key.contains("].params.");
    // Also if the list is malformed: that is when people read the output, and share it.
    let of_pair = key.starts_with("runtime.tls.certificates") && !name.ends_with("_file");
    SECRETS.contains(&key)
        || of_pair
        || !param && is_secret_place(key)
        || (param && !PLAIN_PARAMS.iter().any(|plain| name.starts_with(plain) || name.ends_with(plain)))
}

/// Returns every value below `root` that is not a map or a list of maps, with its dotted key, in the order of the pod
/// file.
fn leaves(root: Node<'_>) -> Vec<(String, Node<'_>)> {
    leaves_below(root, "")
}

fn leaves_below<'n>(node: Node<'n>, key: &str) -> Vec<(String, Node<'n>)> {
    let mut found = Vec::new();
    gather(node, key, &mut found);
    found
}

fn gather<'n>(node: Node<'n>, key: &str, found: &mut Vec<(String, Node<'n>)>) {
    if let Some(entries) = node.entries() {
        for (name, value) in entries {
            let dot = if key.is_empty() { "" } else { "." };
            gather(value, &format!("{key}{dot}{}", shown_key(key, name)), found);
        }
        return;
    }
    match node.items().filter(|items| items.iter().any(Node::is_map)) {
        Some(items) => {
            items.into_iter().enumerate().for_each(|(at, item)| gather(item, &format!("{key}[{at}]"), found))
        }
        None if node.is_null() => {}
        None => found.push((key.to_owned(), node)),
    }
}

/// Returns the keys of the schema below `path`, in order, with their defaults.
fn defaults(schema: &Value, path: &str, found: &mut Vec<(String, Option<String>)>) {
    let Some(properties) = schema["properties"].as_object() else { return };
    for (name, inner) in properties.iter().filter(|(_, inner)| inner["deprecated"] != true) {
        let path = format!("{path}.{name}");
        let default = match inner.get("default").or(inner.get("x-unset")).unwrap_or(&Value::Null) {
            Value::Null | Value::Array(_) | Value::Object(_) => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        found.push((path.clone(), default));
        defaults(inner, &path, found);
    }
}

#[cfg(test)]
mod tests;
