//! The figures: what is measured, one entry each.

use crate::load::{Ask, Load, Shake, Version};
use crate::servers::Work;

/// One measurement, taken of every server that supports it, over TLS and in plain text.
#[derive(Debug)]
pub(crate) struct Figure {
    /// The name for `--only`.
    pub(crate) name: &'static str,
    /// The title in the table.
    pub(crate) title: &'static str,
    pub(crate) unit: Unit,
    pub(crate) load: Load,
}

/// The unit of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Connection,
    Request,
    Gigabyte,
}

/// Rows of the small table: a response of 10 MB.
pub(crate) const SMALL_ROWS: u64 = 156_250;

/// Column data of a row, in bytes: eight columns of eight bytes.
pub(crate) const ROW: u64 = 64;

const HEALTH: Ask = Ask { path: "/health", sql: None, accept: "*/*", at_a_time: 16, answer: 2 };
const SELECT_1: Ask =
    Ask { path: "/v1/sql", sql: Some("SELECT 1"), accept: "application/json", at_a_time: 16, answer: 8 };
const GROUP: Ask = Ask {
    path: "/v1/sql",
    sql: Some("SELECT c, count(*), sum(e), max(g) FROM small GROUP BY c ORDER BY c LIMIT 10"),
    accept: "application/json",
    at_a_time: 2,
    answer: 100,
};
const TEN_MEGABYTES: Ask = Ask {
    path: "/v1/sql",
    sql: Some("SELECT * FROM small"),
    accept: "application/vnd.apache.arrow.stream",
    at_a_time: 2,
    answer: SMALL_ROWS * ROW,
};

const JSON: Ask = Ask { accept: "application/json", answer: SMALL_ROWS * 100, ..TEN_MEGABYTES };
const CSV: Ask = Ask { accept: "text/csv", ..TEN_MEGABYTES };

/// All figures, in the order of the table.
pub(crate) const FIGURES: &[Figure] = &[
    Figure {
        name: "handshake-full",
        title: "connect, full handshake, `/health`, close",
        unit: Unit::Connection,
        load: Load::Handshake(Shake::Full),
    },
    Figure {
        name: "handshake-hybrid",
        title: "full handshake, X25519MLKEM768 if supported",
        unit: Unit::Connection,
        load: Load::Handshake(Shake::Hybrid),
    },
    Figure {
        name: "handshake-resumed",
        title: "resumed handshake (X25519), `/health`, close",
        unit: Unit::Connection,
        load: Load::Handshake(Shake::Resumed),
    },
    Figure {
        name: "health-h1",
        title: "`/health`, HTTP/1.1 keep-alive",
        unit: Unit::Request,
        load: Load::KeepAlive { version: Version::H1, ask: &HEALTH },
    },
    Figure {
        name: "health-h2",
        title: "`/health`, HTTP/2",
        unit: Unit::Request,
        load: Load::KeepAlive { version: Version::H2, ask: &HEALTH },
    },
    Figure {
        name: "select-h1",
        title: "`SELECT 1`, HTTP/1.1 keep-alive",
        unit: Unit::Request,
        load: Load::KeepAlive { version: Version::H1, ask: &SELECT_1 },
    },
    Figure {
        name: "select-h2",
        title: "`SELECT 1`, HTTP/2",
        unit: Unit::Request,
        load: Load::KeepAlive { version: Version::H2, ask: &SELECT_1 },
    },
    Figure {
        name: "group",
        title: "`GROUP BY` over 156,250 rows, HTTP/1.1",
        unit: Unit::Request,
        load: Load::KeepAlive { version: Version::H1, ask: &GROUP },
    },
    Figure {
        name: "ten-megabytes",
        title: "10 MB of Arrow, HTTP/1.1",
        unit: Unit::Request,
        load: Load::KeepAlive { version: Version::H1, ask: &TEN_MEGABYTES },
    },
    Figure {
        name: "json",
        title: "10 MB of Arrow as JSON, HTTP/1.1",
        unit: Unit::Request,
        load: Load::KeepAlive { version: Version::H1, ask: &JSON },
    },
    Figure {
        name: "csv",
        title: "10 MB of Arrow as CSV, HTTP/1.1",
        unit: Unit::Request,
        load: Load::KeepAlive { version: Version::H1, ask: &CSV },
    },
    Figure {
        name: "doget-8k",
        title: "DoGet, batches of 8,192 rows",
        unit: Unit::Gigabyte,
        load: Load::DoGet { batch: 8_192, streams: 1 },
    },
    Figure {
        name: "doget-64k",
        title: "DoGet, batches of 65,536 rows",
        unit: Unit::Gigabyte,
        load: Load::DoGet { batch: 65_536, streams: 1 },
    },
    Figure {
        name: "doget-streams",
        title: "DoGet, 65,536 rows, 4 concurrent streams",
        unit: Unit::Gigabyte,
        load: Load::DoGet { batch: 65_536, streams: 4 },
    },
    Figure { name: "doput", title: "DoPut, batches of 65,536 rows", unit: Unit::Gigabyte, load: Load::DoPut },
    Figure {
        name: "arrow",
        title: "Arrow over HTTP/1.1, batches of 65,536 rows",
        unit: Unit::Gigabyte,
        load: Load::Arrow,
    },
];

impl Figure {
    /// Returns true if `only` is empty or contains a part of the name.
    pub(crate) fn is_wanted(&self, only: &[String]) -> bool {
        only.is_empty() || only.iter().any(|part| self.name.contains(part.as_str()))
    }

    /// Returns true if the figure measures the Flight endpoint.
    pub(crate) fn is_flight(&self) -> bool {
        matches!(self.load, Load::DoGet { .. } | Load::DoPut)
    }

    /// Returns true if the figure needs the large tables.
    pub(crate) fn is_large(&self) -> bool {
        self.is_flight() || matches!(self.load, Load::Arrow)
    }

    /// Returns the work behind the endpoint and its concurrency, if the figure is also compared with that work alone.
    pub(crate) fn alone(&self) -> Option<(Work, usize)> {
        let Load::KeepAlive { ask, .. } = self.load else { return None };
        let work = match (ask.sql?, ask.accept) {
            (sql @ "SELECT 1", _) => Work::Statement(sql),
            (_, accept) if accept == CSV.accept => Work::Csv,
            (sql, accept) if Some(sql) == JSON.sql && accept == JSON.accept => Work::Json,
            _ => return None,
        };
        Some((work, ask.at_a_time))
    }

    /// Returns true if the figure needs SQL over HTTP.
    pub(crate) fn asks_sql(&self) -> bool {
        matches!(self.load, Load::KeepAlive { ask: Ask { sql: Some(_), .. }, .. } | Load::Arrow)
    }
}
