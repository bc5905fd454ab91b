//! Resolved settings: plain values, nested like the pod, with their defaults applied.

mod auth;
mod data;
mod listen;
mod restart_only;
mod tls;

use std::fmt;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use tls_core::{Origin, Secret, Sourced};

pub use auth::{ApiKey, Auth, ClientIdentityRule, IdentityName, Role};
pub use data::{Column, Dataset, View};
pub use listen::{EndpointKind, Listen};
pub use restart_only::RestartOnlySettings;
pub use tls::{Clients, Material, MaterialInput, Pair, Tls, TlsVersion};

/// All settings of a run of the program.
#[derive(Debug)]
pub struct Settings {
    /// The pod's name.
    pub name: String,
    /// The directory that relative paths in the pod are resolved against.
    pub folder: PathBuf,
    /// The settings of the program.
    pub runtime: Runtime,
    /// The data sets.
    pub datasets: Vec<Dataset>,
    /// The views.
    pub views: Vec<View>,
    /// Warnings, which do not prevent a start.
    pub warnings: Vec<Warning>,
}

impl Settings {
    /// Returns a statement to try.
    pub fn sample_query(&self) -> String {
        self.datasets.first().map_or("SELECT 1".to_owned(), |set| format!("SELECT * FROM {} LIMIT 5", set.name))
    }
}

/// The settings of the program.
#[derive(Debug)]
pub struct Runtime {
    /// The endpoints' addresses.
    pub listen: Listen,
    /// How long all endpoints keep serving after a stop is requested, while readiness is off. Default: 0 s.
    pub shutdown_delay: Duration,
    /// How long running requests may take after that. Default 25 s.
    pub shutdown_timeout: Duration,
    /// TLS; `None` if all endpoints use plain text.
    pub tls: Option<Tls>,
    /// The setting that disables TLS, if one does.
    pub tls_off: Option<Origin>,
    /// `tls.session_ticket_secret`, shared by replicas that resume each other's sessions and accept each other's Flight
    /// tickets. It applies without TLS too, because replicas behind a proxy issue tickets.
    pub session_ticket_secret: Option<Secret>,
    /// Access.
    pub auth: Auth,
    /// The web pages that may call.
    pub cors: Cors,
    /// The limits of queries, and the files that they may access.
    pub sql: Sql,
    /// The limits of stored telemetry.
    pub otel: Otel,
    /// The HTTP endpoint.
    pub http: Http,
    /// The limits of connections and handshakes.
    pub limits: Limits,
}

/// The web pages that may call.
#[derive(Debug)]
pub struct Cors {
    /// The origins whose web pages may call; `None` sends no CORS headers.
    pub allowed_origins: Option<Vec<Sourced<String>>>,
}

/// The limits of queries, and the files that they may access. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sql {
    /// The directories that COPY and CREATE EXTERNAL TABLE may access. Default: none.
    pub host_paths: Vec<PathBuf>,
    /// How long a query may take. Default 5 min.
    pub timeout: Duration,
    /// The memory that all queries share. Default 2 GiB.
    pub memory_limit: usize,
    /// The memory of the whole process. Default 1.5 times `memory_limit`, plus 256 MiB.
    pub process_memory_limit: usize,
    /// The maximum size of a statement. Default 1 MiB.
    pub max_statement_size: usize,
    /// The directory that queries spill to. Default: the system's temporary directory.
    pub spill_directory: Option<PathBuf>,
    /// The maximum size of all spilled data. Default 10 GiB.
    pub spill_limit: usize,
    /// The maximum number of running statements. Default 64 each.
    pub concurrency: ByRole,
    /// The maximum number of waiting statements. Default 256 each.
    pub queue: ByRole,
    /// How long a statement waits for a slot. Default 10 s.
    pub queue_timeout: Duration,
    /// The maximum number of rows of a result. Default: no limit.
    pub max_result_rows: Option<usize>,
    /// The maximum size of a result. Default: no limit.
    pub max_result_bytes: Option<usize>,
    /// The number of statements that are kept. Default 1,000.
    pub history: usize,
}

/// A number of statements, by the role of their callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByRole {
    /// For callers that may only read.
    pub ro: usize,
    /// For callers that may also write.
    pub rw: usize,
}

/// The limits of stored telemetry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Otel {
    /// How long it is kept. Default 24 h.
    pub retention: Duration,
    /// The maximum size of each kind, in bytes. Default 64 MiB.
    pub memory_limit: usize,
}

/// The HTTP endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// The maximum size of a request body, in bytes. Default 16 MiB.
    pub body_limit: usize,
    /// How long browsers should use only HTTPS. Default: not sent.
    pub hsts: Option<Duration>,
    /// Proxies whose `X-Forwarded-For` is trusted. Default: none.
    pub trusted_proxies: Vec<IpNet>,
}

/// The limits of connections and handshakes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections per endpoint. Default 10,000.
    pub connections: usize,
    /// Handshakes in progress per endpoint. Default 1,024.
    pub handshakes: usize,
    /// Wrong keys that an address may send in a burst, and per minute after that. Default 30.
    pub auth_failures: NonZero<u32>,
}

/// A warning, which does not prevent a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The setting that it concerns.
    pub origin: Option<Origin>,
    /// One sentence.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{origin}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}
