//! What was decided: plain values, nested like the pod, each with its default applied, ready to be acted on.

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

/// Everything that a run of the program needs to know.
#[derive(Debug)]
pub struct Settings {
    /// The pod's name.
    pub name: String,
    /// The directory that the pod's relative paths start from.
    pub folder: PathBuf,
    /// How the program runs.
    pub runtime: Runtime,
    /// The data sets.
    pub datasets: Vec<Dataset>,
    /// The views.
    pub views: Vec<View>,
    /// What is worth saying, and does not stop the start.
    pub warnings: Vec<Warning>,
}

impl Settings {
    /// A statement worth trying.
    pub fn sample_query(&self) -> String {
        self.datasets.first().map_or("SELECT 1".to_owned(), |set| format!("SELECT * FROM {} LIMIT 5", set.name))
    }
}

/// How the program runs.
#[derive(Debug)]
pub struct Runtime {
    /// The endpoints' addresses.
    pub listen: Listen,
    /// How long all endpoints keep serving after a stop is requested, with readiness off. Default: 0 s.
    pub shutdown_delay: Duration,
    /// How long running requests may take after that. Default 25 s.
    pub shutdown_timeout: Duration,
    /// TLS; `None` where all endpoints speak plain text.
    pub tls: Option<Tls>,
    /// The setting that disables TLS, if one does.
    pub tls_off: Option<Origin>,
    /// `tls.session_ticket_secret`, shared by replicas that resume each other's sessions and take each other's Flight
    /// tickets. It counts without TLS too, as replicas behind a proxy have tickets.
    pub session_ticket_secret: Option<Secret>,
    /// Who may do what.
    pub auth: Auth,
    /// Which web pages may call.
    pub cors: Cors,
    /// What a query may cost and reach.
    pub sql: Sql,
    /// What is kept of the telemetry that is sent.
    pub otel: Otel,
    /// The HTTP endpoint.
    pub http: Http,
    /// Connections and handshakes.
    pub limits: Limits,
}

/// Which web pages may call.
#[derive(Debug)]
pub struct Cors {
    /// The origins whose web pages may call; `None` where nothing is said of it to browsers.
    pub allowed_origins: Option<Vec<Sourced<String>>>,
}

/// What a query may cost and reach. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sql {
    /// Where COPY and CREATE EXTERNAL TABLE may reach. Default: nowhere.
    pub host_paths: Vec<PathBuf>,
    /// How long a query may take. Default 5 min.
    pub timeout: Duration,
    /// Memory that all queries share. Default 2 GiB.
    pub memory_limit: usize,
    /// Memory of the whole process. Default 1.5 times `memory_limit`, and 256 MiB.
    pub process_memory_limit: usize,
    /// The longest statement. Default 1 MiB.
    pub max_statement_size: usize,
    /// Where queries spill to. Default: the system's temporary directory.
    pub spill_directory: Option<PathBuf>,
    /// What they may have spilled at a time. Default 10 GiB.
    pub spill_limit: usize,
    /// Statements that run at a time. Default 64 each.
    pub concurrency: ByRole,
    /// Statements that may wait. Default 256 each.
    pub queue: ByRole,
    /// How long a statement waits for its turn. Default 10 s.
    pub queue_timeout: Duration,
    /// The most rows of an answer. Default: no bound.
    pub max_result_rows: Option<usize>,
    /// The most bytes of an answer. Default: no bound.
    pub max_result_bytes: Option<usize>,
    /// Statements that are remembered. Default 1,000.
    pub history: usize,
}

/// A number of statements, by the role of their callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByRole {
    /// Of callers that may only read.
    pub ro: usize,
    /// Of callers that may also write.
    pub rw: usize,
}

/// What is kept of the telemetry that is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Otel {
    /// For how long. Default 24 h.
    pub retention: Duration,
    /// How much of each kind, in bytes. Default 64 MiB.
    pub memory_limit: usize,
}

/// The HTTP endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// The body of a request, in bytes. Default 16 MiB.
    pub body_limit: usize,
    /// For how long browsers are to come by HTTPS alone. Default: not sent.
    pub hsts: Option<Duration>,
    /// Proxies whose `X-Forwarded-For` counts. Default: none.
    pub trusted_proxies: Vec<IpNet>,
}

/// Connections and handshakes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections of one endpoint. Default 10,000.
    pub connections: usize,
    /// Handshakes in progress over all endpoints. Default 1,024.
    pub handshakes: usize,
    /// Wrong keys of one address at once, and a minute after that. Default 30.
    pub auth_failures: NonZero<u32>,
}

/// Something worth saying that does not stop the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What it is about.
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
