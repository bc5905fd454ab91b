//! What was decided: plain values, each with its default applied, ready to be acted on.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use spiced_secrets::Template;
use tls_core::listener::ListenAddress;
use tls_core::{Origin, Secret, Sourced};

/// Everything that a run of the program needs to know.
#[derive(Debug)]
pub struct Settings {
    /// The pod's name.
    pub name: String,
    /// The directory that the pod's relative paths start from.
    pub folder: PathBuf,
    /// The endpoints' addresses.
    pub listen: Listen,
    /// TLS; `None` where all endpoints speak plain text.
    pub tls: Option<Tls>,
    /// The switch that turns TLS off, if one does.
    pub tls_off: Option<Origin>,
    /// Shared by replicas that resume each other's sessions and take each other's Flight tickets; it
    /// counts without TLS too, as replicas behind a proxy have tickets.
    pub session_ticket_secret: Option<Secret>,
    /// Who may do what.
    pub auth: Auth,
    /// The origins whose web pages may call; `None` where nothing is said of it to browsers.
    pub allowed_origins: Option<Vec<Sourced<String>>>,
    /// For how long browsers are to come by HTTPS alone. Default: not sent.
    pub hsts: Option<Duration>,
    /// Proxies whose `X-Forwarded-For` counts. Default: none.
    pub trusted_proxies: Vec<IpNet>,
    /// How long all endpoints keep serving after a stop is requested, with readiness off. Default: 0 s.
    pub shutdown_delay: Duration,
    /// How long running requests may take after that. Default 25 s.
    pub shutdown_timeout: Duration,
    /// Where COPY and CREATE EXTERNAL TABLE may reach. Default: nowhere.
    pub host_paths: Vec<PathBuf>,
    /// How long a query may take. Default 5 min.
    pub query_timeout: Duration,
    /// Memory that all queries share, in bytes. Default 2 GiB.
    pub query_memory: usize,
    /// Memory of the whole process, in bytes. Default 1.5 times `query_memory`, and 256 MiB.
    pub process_memory: usize,
    /// The longest statement, in bytes. Default 1 MiB.
    pub max_statement_size: usize,
    /// Where queries spill to. Default: the system's temporary directory.
    pub spill_directory: Option<PathBuf>,
    /// What they may have spilled at a time, in bytes. Default 10 GiB.
    pub spill_limit: usize,
    /// Statements at a time of callers that read, and how many may wait. Default 64 and 256.
    pub readers: ConcurrencySettings,
    /// The same of callers that also write.
    pub writers: ConcurrencySettings,
    /// How long a statement waits for its turn. Default 10 s.
    pub queue_timeout: Duration,
    /// The most rows of an answer. Default: no bound.
    pub max_result_rows: Option<usize>,
    /// The most bytes of an answer. Default: no bound.
    pub max_result_bytes: Option<usize>,
    /// Statements that are remembered. Default 1,000.
    pub query_history: usize,
    /// For how long telemetry is kept. Default 24 h.
    pub telemetry_retention: Duration,
    /// How much of each kind of telemetry is kept, in bytes. Default 64 MiB.
    pub telemetry_memory: usize,
    /// The body of an HTTP request, in bytes. Default 16 MiB.
    pub http_body_limit: usize,
    /// Connections and handshakes.
    pub limits: Limits,
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

/// Who may do what.
#[derive(Debug)]
pub struct Auth {
    /// API keys; `None` where they are not set up.
    pub keys: Option<Vec<ApiKey>>,
    /// The identities of client certificates; the first that fits decides.
    pub identities: Vec<ClientIdentityRule>,
    /// Whether a caller needs a key and a certificate. Default: either.
    pub require_all: bool,
    /// What callers without credentials may do: `Some(None)` nothing; `None` is the default, which depends
    /// on where an endpoint listens.
    pub allow_anonymous: Option<Option<Role>>,
    /// Whether the metrics endpoint asks for credentials. Default: it does not.
    pub metrics: bool,
}

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Query.
    ReadOnly,
    /// Change data and definitions, too.
    ReadWrite,
}

/// A key, or its hash.
#[derive(Debug)]
pub struct ApiKey {
    /// The key at the start.
    pub key: Sourced<Secret>,
    /// As it was written, where it holds references, so that it can be followed.
    pub written: Option<Template>,
    /// What its bearer may do; `None` where nothing was said, which is to read.
    pub role: Option<Role>,
}

/// Who the bearer of a client certificate is.
#[derive(Debug)]
pub struct ClientIdentityRule {
    /// Which of the certificate's names it is about.
    pub name: IdentityName,
    /// The name; `*` matches any text within one segment.
    pub pattern: String,
    /// What its bearer may do.
    pub role: Role,
}

/// The kinds of names in a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityName {
    /// A URI among the subject alternative names.
    SanUri,
    /// A DNS name among them.
    SanDns,
    /// A common name of the subject.
    SubjectCn,
}

/// The endpoints' addresses.
#[derive(Debug)]
pub struct Listen {
    /// HTTP. Default `localhost:3000`.
    pub http: Sourced<ListenAddress>,
    /// Flight SQL. Default `localhost:50051`.
    pub flight: Sourced<ListenAddress>,
    /// gRPC. Default `localhost:50052`.
    pub grpc: Sourced<ListenAddress>,
    /// Prometheus. Default: off.
    pub metrics: Option<Sourced<ListenAddress>>,
    /// Probes in plain text. Default: off.
    pub probe: Option<Sourced<ListenAddress>>,
    /// The endpoints (`http`, `flight`, `grpc`, `metrics`) that stand behind a proxy which says for whom it speaks.
    pub proxy_protocol: Vec<&'static str>,
}

/// TLS, switched on.
#[derive(Debug)]
pub struct Tls {
    /// What the server proves itself with.
    pub material: Material,
    /// More pairs, chosen by SNI.
    pub more: Vec<Pair>,
    /// Whether a client is refused that asks for no name of a certificate. Default false.
    pub strict_sni: bool,
    /// The lowest version. Default 1.2.
    pub min_version: TlsVersion,
    /// Whose client certificates are taken; `None` where clients are not asked.
    pub clients: Option<Clients>,
    /// From the accept to the end of the handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// Codes of findings that keep no reload from taking effect.
    pub accept_findings: Vec<String>,
}

/// Whose client certificates are taken.
#[derive(Debug)]
pub struct Clients {
    /// Whether there is no handshake without one.
    pub required: bool,
    /// The CA certificates.
    pub authority: Sourced<MaterialInput>,
    /// Revocation lists.
    pub lists: Vec<Sourced<PathBuf>>,
}

/// A TLS version that may be the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2.
    Tls12,
    /// 1.3.
    Tls13,
}

/// What the server proves itself with.
#[derive(Debug)]
pub enum Material {
    /// A certificate and its key, each from where it was chosen.
    Pair(Box<Pair>),
    /// A development CA and leaf, made on first use in this directory.
    SelfSigned {
        /// `.spice/tls` in the pod's directory.
        folder: PathBuf,
        /// Who asked for it.
        origin: Origin,
    },
}

/// A certificate and its key.
#[derive(Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: Sourced<MaterialInput>,
    /// The key.
    pub key: Sourced<MaterialInput>,
    /// What opens an encrypted key.
    pub passphrase: Option<Sourced<MaterialInput>>,
}

impl Pair {
    /// All that it is made of, in the order of the fields.
    pub fn inputs(&self) -> impl Iterator<Item = &Sourced<MaterialInput>> {
        [&self.certificate, &self.key].into_iter().chain(&self.passphrase)
    }
}

/// Where PEM, or what opens it, is.
#[derive(Debug)]
pub enum MaterialInput {
    /// In a file.
    File(PathBuf),
    /// In the setting itself.
    Text(Secret),
    /// In the secrets that the setting refers to.
    Secrets {
        /// The setting as it was written, so that it can be followed.
        written: Template,
        /// Its value at the start.
        value: Secret,
    },
}

/// Connections and handshakes.
#[derive(Debug)]
pub struct Limits {
    /// Connections of one endpoint. Default 10,000.
    pub connections: usize,
    /// Handshakes in progress over all endpoints. Default 1,024.
    pub handshakes: usize,
    /// Wrong keys of one address at once, and a minute after that. Default 30.
    pub auth_failures: NonZero<u32>,
}

/// Statements of one role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConcurrencySettings {
    /// At a time.
    pub running: usize,
    /// That may wait.
    pub waiting: usize,
}

/// A data set.
#[derive(Debug)]
pub struct Dataset {
    /// The name it is queried by.
    pub name: String,
    /// The source.
    pub from: String,
    /// Whether it may be written.
    pub writable: bool,
    /// The source's parameters, some of them secret.
    pub params: BTreeMap<String, Secret>,
    /// The columns, for sources that have none of their own.
    pub columns: Vec<Column>,
    /// Where it is declared.
    pub origin: Origin,
}

/// A name for a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The name it is queried by.
    pub name: String,
    /// The query.
    pub sql: String,
}

/// A column of a data set.
#[derive(Debug)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, as SQL writes it.
    pub data_type: String,
    /// Whether it may be null. Default true.
    pub nullable: bool,
}

/// A secret store as the pod declares it.
#[derive(Debug)]
pub struct Store {
    /// What references call it.
    pub name: String,
    /// Its kind and what that needs.
    pub from: String,
    /// Its parameters.
    pub params: BTreeMap<String, Sourced<Template>>,
    /// How often it is read again; `None` for the kind's own interval.
    pub refresh_interval: Option<Duration>,
    /// Where it is declared.
    pub origin: Origin,
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
