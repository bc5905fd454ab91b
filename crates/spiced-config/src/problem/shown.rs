//! Identifies the places in a pod file whose content a message must not repeat, because it may be a secret.

pub(crate) use tls_core::redact::{is_pem, may_be_secret, shown_path, without_credentials};
use tls_core::suggest::nearest;

/// Returns true for a place in a pod file whose content may be a secret: API keys, passphrases, inline keys, and the
/// parameters of stores and data sets.
pub(crate) fn is_secret_place(path: &str) -> bool {
    const PLAIN_AUTH: [&str; 5] = ["mtls", "require", "allow_anonymous", "metrics", "allow-anonymous"];
    const SECRETS: [&str; 3] = ["key", "key_passphrase", "session_ticket_secret"];
    let mut steps = path.split(['.', '[']);
    match (steps.next(), steps.next(), steps.next()) {
        (Some("runtime"), Some("auth"), Some(next)) => !PLAIN_AUTH.contains(&next),
        (Some("runtime"), Some("auth"), None) => true,
        (Some("runtime"), Some("tls"), Some("certificates")) => steps.nth(1).is_some_and(|key| SECRETS.contains(&key)),
        (Some("runtime"), Some("tls"), Some(key)) => SECRETS.contains(&key),
        (Some("datasets" | "secrets"), ..) => path.contains("].params"),
        _ => false,
    }
}

/// Returns a key for a message. In a place of secrets, an unknown key may be a secret: a blank after the colon of
/// `KEY:ro` turns it into a map.
pub(crate) fn shown_key<'n>(parent: &str, name: &'n str) -> &'n str {
    const KNOWN: [&str; 6] = ["enabled", "keys", "key", "role", "api_key", "api-key"];
    let is_hidden = match is_secret_place(parent) {
        // The names of parameters are not secret.
        true => !parent.contains("].params") && nearest(name, KNOWN).is_none() && !is_auth_key(parent, name),
        false => false,
    };
    if is_hidden || may_be_secret(name) { "…" } else { name }
}

fn is_auth_key(parent: &str, name: &str) -> bool {
    const AUTH: [&str; 6] = ["api_key", "mtls", "require", "allow_anonymous", "metrics", "api_keys"];
    parent == "runtime.auth" && (nearest(name, AUTH).is_some() || !name.bytes().any(|byte| byte.is_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_secrets_and_what_stands_in_them() {
        for path in [
            "runtime.auth.api_key.keys[0]",
            "runtime.auth.api_key.keys[0].key",
            "runtime.auth.api_key",
            "runtime.auth",
            "runtime.auth.api_keys",
            "runtime.tls.key",
            "runtime.tls.key_passphrase.x",
            "runtime.tls.certificates[1].key_passphrase",
            "datasets[0].params.pg_pass",
        ] {
            assert!(is_secret_place(path), "{path}");
        }
        for path in ["runtime.tls.key_file", "runtime.tls.certificates[0].key_file", "runtime.auth.require", "name"] {
            assert!(!is_secret_place(path), "{path}");
        }
        assert_eq!(shown_key("runtime.auth.api_key.keys[0]", "Zq7Canary"), "…");
        assert_eq!(shown_key("runtime.auth.api_key", "enabeld"), "enabeld");
        assert_eq!(shown_key("runtime.tls", "keyfile"), "keyfile");
    }
}
