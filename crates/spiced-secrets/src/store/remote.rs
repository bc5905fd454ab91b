//! What all stores on servers share: limits on time and size, and limits on how much of a server's text is repeated in
//! messages.

use std::error::Error;
use std::time::Duration;

use tls_core::Secret;

/// The timeout for establishing a connection, including the TLS handshake.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// The timeout of one attempt, from the request to the end of the response. Three attempts and the pauses between them
/// fit into the time that the cache waits for a store.
pub(super) const ATTEMPT_WITHIN: Duration = Duration::from_secs(4);

/// The largest response that is read, in bytes. The largest Kubernetes secret (1 MiB) fits, encoded in base64 and with
/// its metadata.
pub(super) const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// The most characters of a server's text that are repeated.
const MAX_QUOTED: usize = 300;

/// The longest word that is repeated: a longer one may be a token.
const MAX_WORD: usize = 100;

/// Two more attempts, after about a quarter and half a second.
#[cfg(any(feature = "hashicorp_vault", feature = "kubernetes"))]
pub(super) fn retries() -> backon::ExponentialBuilder {
    backon::ExponentialBuilder::new().with_min_delay(Duration::from_millis(250)).with_max_times(2).with_jitter()
}

/// Returns the root cause, which is the most specific: "Connection refused" rather than "error sending request".
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Returns a server's text on one line, shortened. If the text repeats the credentials of the request, nothing of it is
/// shown.
pub(super) fn said(text: &str, asked_with: &[&Secret]) -> String {
    let repeats = |secret: &&Secret| {
        let secret = secret.expose().trim_ascii();
        !secret.is_empty() && text.as_bytes().windows(secret.len()).any(|window| window == secret)
    };
    if asked_with.iter().any(repeats) {
        return "(its message is omitted: it repeats the credentials of the request)".to_owned();
    }
    let mut line = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(if word.len() > MAX_WORD { "(…)" } else { word });
        if line.len() > MAX_QUOTED {
            return line.chars().take(MAX_QUOTED).chain(['…']).collect();
        }
    }
    if line.is_empty() { "(no message)".to_owned() } else { line }
}

/// Returns `trust` as the fix if a server's certificate is not trusted, or else `otherwise`.
pub(super) fn trust_or(cause: &str, trust: &str, otherwise: &str) -> String {
    if cause.contains("certificate") { trust.to_owned() } else { otherwise.to_owned() }
}

/// Returns true if `host` is this machine, so that plain text does not leave it.
#[cfg(any(feature = "aws_secrets_manager", feature = "hashicorp_vault"))]
pub(super) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_short_and_repeats_nothing() {
        assert_eq!(said(" permission\n denied\u{0} ", &[]), "permission denied");
        assert_eq!(said("", &[]), "(no message)");
        assert_eq!(said(&"no ".repeat(10_000), &[]).chars().count(), MAX_QUOTED + 1);
        assert!(said(&"né ".repeat(10_000), &[]).ends_with('…'));
        assert_eq!(said(&format!("bad token {}", "eyJ".repeat(100)), &[]), "bad token (…)");
        let token = Secret::from("hvs.marked\n");
        let echoed = said("no such token: hvs.marked", &[&token]);
        assert!(!echoed.contains("marked"), "{echoed}");
        assert_eq!(said("no", &[&Secret::default()]), "no");
    }

    #[cfg(any(feature = "aws_secrets_manager", feature = "hashicorp_vault"))]
    #[test]
    fn this_machine() {
        for host in ["localhost", "127.0.0.1", "127.8.0.1", "::1", "[::1]", "vault.localhost", "::ffff:127.0.0.1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["vault", "10.0.0.1", "localhost.example.com", "::2"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
