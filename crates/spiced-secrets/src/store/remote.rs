//! What every store that is a server has in common: bounds on time and size, and how much of what a
//! server says may be repeated.

use std::error::Error;
use std::time::Duration;

use tls_core::Secret;

/// From the first packet to the end of the TLS handshake.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// One attempt, from the request to the end of the answer. Three of them, and the pauses between, fit
/// into the time that a shelf waits.
pub(super) const ATTEMPT_WITHIN: Duration = Duration::from_secs(4);

/// The most that is read of one answer, in bytes. The largest secret of Kubernetes (1 MiB) fits in,
/// coded in base64 and with its metadata.
pub(super) const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// The most that is repeated of what a server says, in characters.
const MAX_QUOTED: usize = 300;

/// A longer word is no word but a token, say.
const MAX_WORD: usize = 100;

/// Two more attempts, after a quarter of a second and half a second or so.
#[cfg(any(feature = "hashicorp_vault", feature = "kubernetes"))]
pub(super) fn retries() -> backon::ExponentialBuilder {
    backon::ExponentialBuilder::new().with_min_delay(Duration::from_millis(250)).with_max_times(2).with_jitter()
}

/// The innermost cause, which says the most: "Connection refused" rather than "error sending request".
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// What a server says, on one line and not too long. Where it repeats what it was asked with, nothing
/// of it is shown.
pub(super) fn said(text: &str, asked_with: &[&Secret]) -> String {
    let repeats = |secret: &&Secret| {
        let secret = secret.expose().trim_ascii();
        !secret.is_empty() && text.as_bytes().windows(secret.len()).any(|window| window == secret)
    };
    if asked_with.iter().any(repeats) {
        return "(its words are left out: they repeat what it was asked with)".to_owned();
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
    if line.is_empty() { "(no words)".to_owned() } else { line }
}

/// What to do where a server's certificate is not trusted, or else `otherwise`.
pub(super) fn trust_or(cause: &str, trust: &str, otherwise: &str) -> String {
    if cause.contains("certificate") { trust.to_owned() } else { otherwise.to_owned() }
}

/// True where `host` is this machine, so that plain text does not leave it.
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
        assert_eq!(said("", &[]), "(no words)");
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
