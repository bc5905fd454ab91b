//! Decides which text a message may repeat. Text that could be key material, or another secret in the wrong place, is
//! described instead.

use std::borrow::Cow;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The maximum length of a path, an address or a word in a setting.
const MAX_SHOWN: usize = 1024;

/// The length from which a run of Base64 counts as encoded material: an Ed25519 key has 64 characters.
const MIN_CODED: usize = 40;

/// Returns true for text that a message must not repeat: PEM in any form, text of several lines, encoded material.
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

/// Returns true for PEM text, with or without text before it, and for PEM in repeated Base64, at any depth.
pub fn is_pem(text: &[u8]) -> bool {
    text.windows(10).any(|window| window == b"-----BEGIN") || is_pem_in_base64(text)
}

/// Returns true for Base64 of text that begins with PEM, with a line break and PEM, or with Base64 of either.
fn is_pem_in_base64(text: &[u8]) -> bool {
    // Base64 of `-----BEGI`, also after `\n` and after `\r\n`; the first encoded twice and three times as well.
    const CODED: [&[u8]; 5] =
        [b"LS0tLS1CRUdJTi", b"Ci0tLS0tQkVHSU", b"DQotLS0tLUJFR0", b"TFMwdExTMUNSVWRKVG", b"VEZNd2RFeFRNVU5TVldSS1ZH"];
    let text = text.trim_ascii_start();
    CODED.iter().any(|coded| text.starts_with(coded))
}

/// The beginnings of absolute paths. A line of Base64 may begin with a slash too.
const ROOTS: [&str; 26] = [
    "app", "cert", "certs", "config", "data", "dev", "etc", "home", "mnt", "media", "nix", "opt", "pod", "private",
    "proc", "root", "run", "secrets", "srv", "ssl", "tls", "tmp", "usr", "var", "Users", "Volumes",
];

/// Returns true for a long run of Base64 with upper-case letters, lower-case letters and digits, unlike a path or name.
fn is_coded(text: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte);
    let is_path =
        text.strip_prefix('/').is_some_and(|rest| ROOTS.contains(&rest.split('/').next().unwrap_or_default()));
    let has = |is: fn(&u8) -> bool| text.bytes().any(|byte| is(&byte));
    // Hex has letters of one case; text without slashes and dashes is not a path of directories either.
    let is_one_word = !text.contains(['/', '-', '_']);
    text.len() >= MIN_CODED
        && !is_path
        && text.bytes().all(is_base64)
        && has(u8::is_ascii_digit)
        && (has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) || is_one_word && has(u8::is_ascii_alphabetic))
}

/// Returns `text` without the credentials in its URLs: the user information before an `@`, and the values of a query.
pub fn without_credentials(text: &str) -> Cow<'_, str> {
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

/// Returns `message` without the parts between backticks that may be secrets.
pub fn without_secrets(message: &str) -> String {
    message
        .split('`')
        .enumerate()
        .map(|(at, part)| if at % 2 == 1 && may_be_secret(part) { "…" } else { part })
        .collect::<Vec<_>>()
        .join("`")
}

/// Accepts a path that error messages will repeat.
///
/// # Errors
/// Refuses text that may be a secret, unless there is such a file.
pub fn plausible_path(text: OsString) -> Result<PathBuf, &'static str> {
    let path = PathBuf::from(text);
    match path.to_str().is_some_and(may_be_secret) && path.symlink_metadata().is_err() {
        true => Err("it is not a path: it looks like the text of a key or certificate"),
        false => Ok(path),
    }
}

/// Returns a path for a message, or a description if the path may be a secret.
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
