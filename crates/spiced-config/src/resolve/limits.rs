//! From raw to resolved limits: `runtime.sql`, `otel`, `http`, `limits`.

use std::num::NonZero;
use std::time::Duration;

use ipnet::IpNet;
use tls_core::Sourced;

use crate::problem::Problem;
use crate::raw::spanned::Spanned;
use crate::raw::spicepod;
use crate::raw::units::{Size, Span};
use crate::resolve::folder::Folder;
use crate::settings::{ByRole, Http, Limits, Otel, Sql};

impl spicepod::Limits {
    pub(super) fn decide(self, problems: &mut Vec<Problem>) -> Limits {
        let failures = positive(self.auth_failures, 30, problems);
        Limits {
            connections: positive(self.connections, 10_000, problems),
            handshakes: positive(self.handshakes, 1_024, problems),
            auth_failures: u32::try_from(failures).ok().and_then(NonZero::new).unwrap_or(NonZero::<u32>::MAX),
        }
    }
}

impl spicepod::Sql {
    pub(super) fn decide(self, folder: &Folder<'_>, problems: &mut Vec<Problem>) -> Sql {
        let memory_limit = bytes(self.memory_limit, 2 << 30, problems);
        let process_memory = memory_limit.saturating_add(memory_limit / 2).saturating_add(256 << 20);
        Sql {
            timeout: lasting(self.timeout, Duration::from_secs(300), problems),
            memory_limit,
            process_memory_limit: bytes(self.process_memory_limit, process_memory, problems),
            max_statement_size: bytes(self.max_statement_size, 1 << 20, problems),
            spill_directory: self.spill_directory.map(|path| folder.path(path.0)),
            spill_limit: bytes(self.spill_limit, 10 << 30, problems),
            concurrency: ByRole {
                ro: positive(self.concurrency.ro, 64, problems),
                rw: positive(self.concurrency.rw, 64, problems),
            },
            // A queue of 0 is a valid choice.
            queue: ByRole {
                ro: self.queue.ro.map_or(256, |waiting| waiting.0.value),
                rw: self.queue.rw.map_or(256, |waiting| waiting.0.value),
            },
            queue_timeout: self.queue_timeout.map_or(Duration::from_secs(10), |span| span.0),
            max_result_rows: self.max_result_rows.map(|rows| positive(Some(rows), 0, problems)),
            max_result_bytes: self.max_result_bytes.map(|size| bytes(Some(size), 0, problems)),
            history: self.history.unwrap_or(1_000),
            host_paths: self.host_paths.into_iter().filter_map(|path| folder.readable(path.0, problems)).collect(),
        }
    }
}

impl spicepod::Otel {
    pub(super) fn decide(self, problems: &mut Vec<Problem>) -> Otel {
        Otel {
            retention: lasting(self.retention, Duration::from_secs(24 * 3600), problems),
            memory_limit: bytes(self.memory_limit, 64 << 20, problems),
        }
    }
}

impl spicepod::Http {
    pub(super) fn decide(self, problems: &mut Vec<Problem>) -> Http {
        Http {
            body_limit: self.body_limit.map_or(16 << 20, |size| size.0),
            hsts: self.hsts.map(|span| span.0),
            trusted_proxies: proxies(self.trusted_proxies, problems),
        }
    }
}

/// Returns a number of at least 1.
fn positive(value: Option<Spanned<usize>>, default: usize, problems: &mut Vec<Problem>) -> usize {
    match value {
        Some(Spanned(Sourced { value: 0, origin })) => {
            problems.push(
                Problem::new(origin, "takes a number from 1 up, not 0").hint("take the key away for its default"),
            );
            default
        }
        Some(Spanned(number)) => number.value,
        None => default,
    }
}

fn bytes(size: Option<Spanned<Size>>, default: usize, problems: &mut Vec<Problem>) -> usize {
    positive(size.map(|Spanned(size)| Spanned(size.map(|size| size.0))), default, problems)
}

/// Returns a duration above zero.
fn lasting(span: Option<Spanned<Span>>, default: Duration, problems: &mut Vec<Problem>) -> Duration {
    match span {
        Some(Spanned(span)) if span.value.0.is_zero() => {
            problems.push(Problem::new(span.origin, "takes a duration above zero").hint("write 5m, say"));
            default
        }
        span => span.map_or(default, |span| span.0.value.0),
    }
}

/// Returns networks, or single addresses.
fn proxies(given: Vec<Spanned<String>>, problems: &mut Vec<Problem>) -> Vec<IpNet> {
    let network = |Spanned(text): Spanned<String>| {
        let trimmed = text.value.trim();
        let network = trimmed.parse().or_else(|_| trimmed.parse().map(|address: std::net::IpAddr| address.into()));
        network
            .map_err(|_| {
                let problem = Problem::new(text.origin, "takes addresses and networks of proxies, and this is neither");
                problems.push(problem.hint("write 10.0.0.0/8, 192.0.2.7 or fd00::/8; no names"));
            })
            .ok()
    };
    given.into_iter().filter_map(network).collect()
}
