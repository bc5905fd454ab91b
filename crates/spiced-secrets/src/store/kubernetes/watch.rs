//! Watches one secret. Each connection starts with the current secret. Therefore no change between two connections is
//! lost, and no stored version can be too old to continue from (410 Gone).

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use http_body_util::BodyExt;
use serde::Deserialize;
use tokio::sync::watch::Sender;
use tokio::time::Instant;
use tracing::debug;

use super::super::StoreError;
use super::super::remote::MAX_ANSWER;
use super::api::{Api, Metadata};
use crate::store::jitter::jittered;

/// The lifetime of a connection, after which the server closes it and it is opened again. This bounds how long a dead
/// connection goes unnoticed.
const CONNECTION: Duration = Duration::from_secs(120);

/// The time that a connection may take beyond its lifetime.
const GRACE: Duration = Duration::from_secs(10);

/// The poll interval of a secret that may not be watched.
const POLL: Duration = Duration::from_secs(60);

/// How a watch ends.
pub(super) enum Ended {
    /// The secret differs from what was read last.
    Changed,
    /// Watching is forbidden.
    Forbidden { why: String, hint: String },
}

/// The result of a connection.
enum Connection {
    Ended(Ended),
    /// The connection must be opened again.
    Lost {
        said_something: bool,
    },
}

/// Waits until the version of the secret differs from the one in `seen`.
pub(super) async fn until_changed(api: &Api, seen: &Sender<String>) -> Ended {
    let backoffs = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(Duration::from_secs(30))
        .without_max_times()
        .with_jitter();
    let mut backoff = backoffs.build();
    loop {
        let began = Instant::now();
        match connection(api, seen).await {
            Ok(Connection::Ended(ended)) => return ended,
            Ok(Connection::Lost { said_something: true }) => {
                debug!(secret = api.shown(), after = ?began.elapsed(), "the watch is opened again");
                backoff = backoffs.build();
            }
            Ok(Connection::Lost { said_something: false }) => {}
            Err(StoreError::Refused { why, hint, .. }) if why.starts_with("HTTP 403") => {
                return Ended::Forbidden { why, hint };
            }
            Err(error) => debug!(secret = api.shown(), %error, "the watch cannot be opened"),
        }
        tokio::time::sleep(backoff.next().unwrap_or(POLL)).await;
    }
}

/// Waits until it is time to read a secret that cannot be watched.
pub(super) async fn poll() {
    tokio::time::sleep(jittered(POLL)).await;
}

async fn connection(api: &Api, seen: &Sender<String>) -> Result<Connection, StoreError> {
    let mut body = api.watch(CONNECTION.as_secs()).await?.into_body();
    let end = Instant::now() + CONNECTION + GRACE;
    let mut buffer = zeroize::Zeroizing::new(Vec::new());
    let mut said_something = false;
    while let Ok(Some(Ok(frame))) = tokio::time::timeout_at(end, body.frame()).await {
        let Ok(data) = frame.into_data() else { continue };
        buffer.extend_from_slice(&data);
        while let Some(length) = buffer.iter().position(|byte| *byte == b'\n') {
            match event(&buffer[..length], &seen.borrow()) {
                Event::Changed => return Ok(Connection::Ended(Ended::Changed)),
                Event::Nothing => said_something = true,
                Event::Over => return Ok(Connection::Lost { said_something: false }),
            }
            buffer.drain(..=length);
        }
        if buffer.len() > MAX_ANSWER {
            debug!(secret = api.shown(), "a line of the watch is longer than any secret");
            return Ok(Connection::Lost { said_something: false });
        }
    }
    Ok(Connection::Lost { said_something })
}

enum Event {
    Changed,
    Nothing,
    /// The server sends no more events (for example, 410 Gone).
    Over,
}

/// Parses one line of a watch.
fn event(line: &[u8], seen: &str) -> Event {
    #[derive(Deserialize)]
    struct Line<'a> {
        r#type: &'a str,
        #[serde(borrow)]
        object: Told<'a>,
    }
    /// The secret, or the status that ends the watch. Values are skipped; the next read fetches them.
    #[derive(Deserialize)]
    struct Told<'a> {
        #[serde(borrow, default)]
        metadata: Metadata<'a>,
        #[serde(default)]
        code: u16,
    }
    let Ok(Line { r#type, object }) = serde_json::from_slice(line) else { return Event::Over };
    match r#type {
        "ADDED" | "MODIFIED" if object.metadata.version == seen => Event::Nothing,
        // If the secret is deleted, the last values are kept, and the next read reports why.
        "ADDED" | "MODIFIED" | "DELETED" => Event::Changed,
        "BOOKMARK" => Event::Nothing,
        _ => {
            debug!(code = object.code, "the watch has ended");
            Event::Over
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_watch() {
        let at = |line: &str| match event(line.as_bytes(), "7") {
            Event::Changed => "changed",
            Event::Nothing => "nothing",
            Event::Over => "over",
        };
        for (line, expected) in [
            (r#"{"type":"ADDED","object":{"metadata":{"resourceVersion":"7"},"data":{"a":"eA=="}}}"#, "nothing"),
            (r#"{"type":"MODIFIED","object":{"metadata":{"resourceVersion":"8"}}}"#, "changed"),
            (r#"{"type":"DELETED","object":{"metadata":{"resourceVersion":"9"}}}"#, "changed"),
            (r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}"#, "nothing"),
            (r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}"#, "over"),
            ("<html>", "over"),
        ] {
            assert_eq!(at(line), expected, "{line}");
        }
    }
}
