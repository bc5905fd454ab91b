//! What a message may repeat of a value, and what it may not. A value that could be key material, or another secret in
//! the wrong place, is described instead.

use std::borrow::Cow;
use std::path::Path;

use crate::problem::nearest;

/// No path, address or word of a setting is longer.
const MAX_SHOWN: usize = 1024;

/// From this length on, a run of Base64 counts as coded material: an Ed25519 key has 64 characters.
const MIN_CODED: usize = 40;

/// True for text that must not be repeated in a message: PEM in any form, text of several lines, coded material.
pub fn may_be_secret(text: &str) -> bool {
    let text = text.trim();
    let upper = || text.to_ascii_uppercase();
    text.len() > MAX_SHOWN
        || text.chars().any(char::is_control)
        || text.contains("---")
        || ["PRIVATE KEY", "BEGIN CERTIFICATE", "BEGIN PUBLIC", "SECRET-KEY-"].iter().any(|mark| upper().contains(mark))
        || is_pem_in_base64(text.as_bytes())
        || is_coded(text)
}

/// PEM text as such, whatever stands before it, or PEM coded in Base64 once more, at any depth.
pub(crate) fn is_pem(text: &[u8]) -> bool {
    text.windows(10).any(|window| window == b"-----BEGIN") || is_pem_in_base64(text)
}

/// Base64 of text that begins with PEM, with a line break and PEM, or with Base64 of those.
fn is_pem_in_base64(text: &[u8]) -> bool {
    // `-----BEGI`, and the same behind `\n` and `\r\n`; each once more and twice more.
    const CODED: [&[u8]; 5] =
        [b"LS0tLS1CRUdJTi", b"Ci0tLS0tQkVHSU", b"DQotLS0tLUJFR0", b"TFMwdExTMUNSVWRKVG", b"VEZNd2RFeFRNVU5TVldSS1ZH"];
    let text = text.trim_ascii_start();
    CODED.iter().any(|coded| text.starts_with(coded))
}

/// Where absolute paths begin. A line of Base64 may begin with a slash, too.
const ROOTS: [&str; 26] = [
    "app", "cert", "certs", "config", "data", "dev", "etc", "home", "mnt", "media", "nix", "opt", "pod", "private",
    "proc", "root", "run", "secrets", "srv", "ssl", "tls", "tmp", "usr", "var", "Users", "Volumes",
];

/// One long run of Base64, of capitals, small letters and digits, as no path or name has it.
fn is_coded(text: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte);
    let is_path =
        text.strip_prefix('/').is_some_and(|rest| ROOTS.contains(&rest.split('/').next().unwrap_or_default()));
    let has = |is: fn(&u8) -> bool| text.bytes().any(|byte| is(&byte));
    // Hex has one case; what has neither slashes nor dashes is no path of directories either.
    let is_one_word = !text.contains(['/', '-', '_']);
    text.len() >= MIN_CODED
        && !is_path
        && text.bytes().all(is_base64)
        && has(u8::is_ascii_digit)
        && (has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) || is_one_word && has(u8::is_ascii_alphabetic))
}

/// Returns true for a place of a pod file where whatever is written may be a secret: API keys, passphrases, inline
/// keys, and the parameters of stores and data sets.
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

/// A key for a message. In a place of secrets an unknown key may be one: a blank after the colon of `KEY:ro` makes a
/// map of it.
pub(crate) fn shown_key<'n>(parent: &str, name: &'n str) -> &'n str {
    const KNOWN: [&str; 6] = ["enabled", "keys", "key", "role", "api_key", "api-key"];
    let is_hidden = match is_secret_place(parent) {
        // The names of parameters are names.
        true => !parent.contains("].params") && nearest(name, KNOWN).is_none() && !is_auth_key(parent, name),
        false => false,
    };
    if is_hidden || may_be_secret(name) { "…" } else { name }
}

fn is_auth_key(parent: &str, name: &str) -> bool {
    const AUTH: [&str; 6] = ["api_key", "mtls", "require", "allow_anonymous", "metrics", "api_keys"];
    parent == "runtime.auth" && (nearest(name, AUTH).is_some() || !name.bytes().any(|byte| byte.is_ascii_uppercase()))
}

/// `text` without the credentials of its URLs: the user information before an `@`, and the values of a query.
pub(crate) fn without_credentials(text: &str) -> Cow<'_, str> {
    let Some((scheme, rest)) = text.split_once("://") else { return Cow::Borrowed(text) };
    let end = rest.find(['/', '?', '#', ' ', '\'']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let (path, query) = tail.split_once('?').map_or((tail, None), |(path, query)| (path, Some(query)));
    // A password may contain characters that end an authority.
    let (host, path) = match (authority.rsplit_once('@'), path.rsplit_once('@')) {
        (Some((_, host)), _) => (format!("***@{host}"), path),
        (None, Some((_, after))) if authority.contains(':') => ("***@".to_owned(), after),
        (None, _) => (authority.to_owned(), path),
    };
    let query = query.map(|query| {
        let values = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, _)) => format!("{name}=***"),
            None => "***".to_owned(),
        });
        format!("?{}", values.collect::<Vec<_>>().join("&"))
    });
    Cow::Owned(format!("{scheme}://{host}{path}{}", query.unwrap_or_default()))
}

/// `message` without the parts between backticks that may be secrets.
pub fn without_secrets(message: &str) -> String {
    message
        .split('`')
        .enumerate()
        .map(|(at, part)| if at % 2 == 1 && may_be_secret(part) { "…" } else { part })
        .collect::<Vec<_>>()
        .join("`")
}

/// A path for a message: itself, or what it is instead.
pub fn shown_path(path: &Path) -> String {
    match path.to_str() {
        Some(text) if may_be_secret(text) => {
            format!("the path that is given ({} characters, not shown: it may be a secret)", text.chars().count())
        }
        _ => path.display().to_string(),
    }
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

    #[test]
    fn urls_lose_their_credentials() {
        for (text, shown) in [
            ("postgres://u:Zq7@h/db", "postgres://***@h/db"),
            ("s3://AK:Zq7/x@bucket/x", "s3://***@bucket/x"),
            ("https://h/x.csv?sig=Zq7&b=1", "https://h/x.csv?sig=***&b=***"),
            ("https://h:8443/x.csv", "https://h:8443/x.csv"),
            ("file:data/x.csv", "file:data/x.csv"),
        ] {
            assert_eq!(without_credentials(text), shown);
        }
        let pem = "-----BEGIN PRIVATE KEY-----\nx";
        assert_eq!(without_secrets(&format!("`{pem}` is none of `a`")), "`…` is none of `a`");
    }

    #[test]
    fn what_is_not_repeated() {
        for hidden in [
            "-----BEGIN PRIVATE KEY-----\nx",
            "\n-----BEGIN EC PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\\nMIIE\\n",
            "----BEGIN PRIVATE KEY----",
            "Bag Attributes\r\n-----BEGIN",
            "PRIVATE KEY-----",
            "LS0tLS1CRUdJTiBQUklWQVRF",
            "Ci0tLS0tQkVHSU4gUFJJVkFURQ",
            "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g",
            "a\u{1b}[31m",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "AGE-SECRET-KEY-1QQPSX",
            "/Cz9v0kJ3lQb7rT1xYw5uHn2mKfDsEaGpVcBiOjNqLtZyXwRe8hU6g4SdMkPoIaFvBnQrTs",
        ] {
            assert!(may_be_secret(hidden), "{hidden}");
        }
        let long = "x/".repeat(MAX_SHOWN);
        assert!(may_be_secret(&long));
        for shown in [
            "tls.key",
            "/etc/letsencrypt/live/data.example.com/privkey.pem",
            "/var/lib/kubelet/pods/0b1c2d3e-AAAA-bbbb-cccc-0123456789ab/volumes/tls",
            "localhost:3000",
            "C:\\certs\\key.pem",
            "intermediate",
            "certificates/2026-11-30/production/server-key-of-the-second-node",
            "~/certs/a-very-long-name-of-a-directory-with-letters-only/tls.key",
        ] {
            assert!(!may_be_secret(shown), "{shown}");
        }
    }
}
