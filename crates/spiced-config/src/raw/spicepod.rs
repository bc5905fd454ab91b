//! The schema of `spicepod.yaml`, and of the environment and options that override its `runtime`. Unknown keys are
//! refused. Nothing is resolved here.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::raw::spanned::{SecretInput, SecretText, Spanned, Templated};
use crate::raw::units::{Size, Span};
use crate::settings::{Column, EndpointKind, Role, TlsVersion};

/// A whole `spicepod.yaml`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Spicepod {
    /// The version of the format: `v1`, `v1beta1` or `v2`.
    #[schemars(extend("default" = "v1"))]
    pub(crate) version: Option<Templated>,
    /// The kind of document: `Spicepod`.
    #[schemars(extend("default" = "Spicepod"))]
    pub(crate) kind: Option<Templated>,
    /// The pod's name in logs and in `/v1/status`.
    #[schemars(extend("default" = "spicepod"))]
    pub(crate) name: Option<Spanned<String>>,
    /// Secret stores. `${secrets:KEY}` asks the last one first; `env` always exists and is asked last.
    pub(crate) secrets: Vec<Spanned<Store>>,
    /// The settings of the program. Every key is also an environment variable, with two underscores per level:
    /// `SPICED_RUNTIME__TLS__ENABLED`.
    pub(crate) runtime: Runtime,
    /// The data sets that can be queried.
    pub(crate) datasets: Vec<Spanned<Dataset>>,
    /// Names for queries over data sets and other views.
    pub(crate) views: Vec<Spanned<View>>,
}

/// A secret store.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Store {
    /// The name that references use.
    pub(crate) name: String,
    /// The kind of store and its argument: `env`, `file:DIR`, `kubernetes:SECRET`, `aws_secrets_manager[:NAME]`,
    /// `hashicorp_vault:PATH`, `keyring`.
    pub(crate) from: String,
    /// The parameters of the store.
    #[serde(default)]
    pub(crate) params: BTreeMap<String, Spanned<String>>,
    /// How often the secrets are read again.
    #[serde(default)]
    pub(crate) refresh_interval: Option<Spanned<Span>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Runtime {
    /// The addresses of the endpoints: `HOST:PORT`. `localhost` is 127.0.0.1 and ::1; port 0 selects a free one.
    pub(crate) listen: Listen,
    /// How long all endpoints keep serving after a stop is requested, while readiness is off.
    #[schemars(extend("default" = "0s"))]
    pub(crate) shutdown_delay: Option<Span>,
    /// How long running requests may take after that.
    #[schemars(extend("default" = "25s"))]
    pub(crate) shutdown_timeout: Option<Span>,
    /// TLS of every endpoint except `probe`.
    pub(crate) tls: Tls,
    /// The callers that are accepted, and their rights.
    pub(crate) auth: Auth,
    /// The web pages that may call.
    pub(crate) cors: Cors,
    /// The limits of queries, and the files that they may access.
    pub(crate) sql: Sql,
    /// The limits of telemetry that the gRPC endpoint stores (OTLP): `otel.metrics`, `otel.logs`, `otel.traces`.
    pub(crate) otel: Otel,
    /// The HTTP endpoint.
    pub(crate) http: Http,
    /// Limits for all requests together.
    pub(crate) limits: Limits,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Listen {
    /// The HTTP API.
    #[schemars(extend("default" = "localhost:3000"))]
    pub(crate) http: Option<Templated>,
    /// Arrow Flight SQL.
    #[schemars(extend("default" = "localhost:50051"))]
    pub(crate) flight: Option<Templated>,
    /// gRPC health, reflection and OTLP.
    #[schemars(extend("default" = "localhost:50052"))]
    pub(crate) grpc: Option<Templated>,
    /// Prometheus text.
    #[schemars(extend("x-unset" = "off"))]
    pub(crate) metrics: Option<Templated>,
    /// Health and readiness in plain text, for kubelets.
    #[schemars(extend("x-unset" = "off"))]
    pub(crate) probe: Option<Templated>,
    /// Endpoints whose connections all begin with a PROXY protocol header, version 2, from a proxy in front.
    pub(crate) proxy_protocol: Vec<EndpointKind>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tls {
    /// Whether the endpoints use TLS.
    #[schemars(extend("x-unset" = "true if a certificate and a key are given"))]
    pub(crate) enabled: Option<Spanned<bool>>,
    /// A PEM file: the certificate, then its intermediates.
    pub(crate) certificate_file: Option<Templated>,
    /// The certificate as PEM text.
    pub(crate) certificate: Option<SecretInput>,
    /// A PEM file: the certificate's key, RSA, ECDSA or Ed25519.
    pub(crate) key_file: Option<Templated>,
    /// The key as PEM text; write a reference here, not the key itself.
    pub(crate) key: Option<SecretInput>,
    /// The passphrase of an encrypted key: PKCS#8, or PEM with `Proc-Type: 4,ENCRYPTED`. Write a reference here.
    pub(crate) key_passphrase: Option<SecretInput>,
    /// A development CA and certificate, created on first use under `.spice/tls` in the pod's directory.
    #[schemars(extend("default" = false))]
    pub(crate) self_signed: Option<Spanned<bool>>,
    /// Mozilla's guideline: `intermediate` is TLS 1.2 and 1.3, `modern` is TLS 1.3 only.
    #[schemars(extend("default" = "intermediate"))]
    pub(crate) profile: Option<Spanned<Profile>>,
    /// The lowest accepted version.
    #[schemars(extend("default" = "1.2"))]
    pub(crate) min_version: Option<Spanned<TlsVersion>>,
    /// More pairs, selected by the name that a client requests (SNI): an exact name before a wildcard. All other
    /// clients get the pair above; without it, the first of these.
    pub(crate) certificates: Vec<Spanned<TlsPair>>,
    /// Whether a client is refused if it requests a name that no certificate covers, or no name.
    #[schemars(extend("default" = false))]
    pub(crate) strict_sni: Option<bool>,
    /// Whether client certificates are not requested (`none`), optional (`request`) or required (`required`).
    #[schemars(extend("default" = "none"))]
    pub(crate) client_auth_mode: Option<Spanned<ClientAuthMode>>,
    /// A PEM file: the CAs whose client certificates are accepted.
    pub(crate) client_auth_ca_file: Option<Templated>,
    /// The CAs as PEM text.
    pub(crate) client_auth_ca: Option<SecretInput>,
    /// Revocation lists of client certificates, PEM or DER; if there are any, each CA needs one.
    pub(crate) client_crl_files: Vec<Spanned<String>>,
    /// Codes of findings (`spiced tls check`) that do not prevent a reload: `[TLS-UNUSUAL-KEY]`.
    pub(crate) accept_findings: Vec<String>,
    /// At least 16 bytes. Replicas that share it resume each other's TLS sessions and accept each other's Flight
    /// tickets.
    #[schemars(extend("x-unset" = "random, for this process only"))]
    pub(crate) session_ticket_secret: Option<SecretInput>,
    /// The time from the first byte of a connection to the end of its handshake.
    #[schemars(extend("default" = "10s"))]
    pub(crate) handshake_timeout: Option<Span>,
}

/// A certificate and its key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsPair {
    /// A PEM file: the certificate, then its intermediates. Its DNS names determine which clients get it.
    pub(crate) certificate_file: Option<Templated>,
    /// The certificate as PEM text.
    pub(crate) certificate: Option<SecretInput>,
    /// A PEM file: the certificate's key, RSA, ECDSA or Ed25519.
    pub(crate) key_file: Option<Templated>,
    /// The key as PEM text; write a reference here, not the key itself.
    pub(crate) key: Option<SecretInput>,
    /// The passphrase of an encrypted key. Write a reference here.
    pub(crate) key_passphrase: Option<SecretInput>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Profile {
    Intermediate,
    Modern,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClientAuthMode {
    None,
    Request,
    Required,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Auth {
    /// API keys (`api-key` is accepted too).
    pub(crate) api_key: ApiKeys,
    /// The identities of clients with certificates.
    pub(crate) mtls: Mtls,
    /// Whether a caller needs both a key and a certificate, if both are configured.
    #[schemars(extend("default" = "any"))]
    pub(crate) require: Option<Spanned<Require>>,
    /// The role of callers without credentials. If credentials are configured, such callers are refused by default.
    #[schemars(extend("x-unset" = "rw on a loopback endpoint, none elsewhere"))]
    pub(crate) allow_anonymous: Option<Anonymous>,
    /// Whether the metrics endpoint requires the same credentials.
    #[schemars(extend("default" = false))]
    pub(crate) metrics: Option<Spanned<bool>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ApiKeys {
    /// Whether the keys are accepted.
    #[schemars(extend("x-unset" = "true if there are keys"))]
    pub(crate) enabled: Option<Spanned<bool>>,
    /// Keys, or their hashes (`sha256:HEX`, `argon2id:PHC`), each followed by `:ro` or `:rw`; without, a key is
    /// read-only.
    #[schemars(with = "Vec<String>")]
    pub(crate) keys: Vec<ApiKey>,
}

/// A key in the tree after its role has been split off (see `keys`).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApiKey {
    pub(crate) key: SecretInput,
    #[serde(default)]
    pub(crate) role: Option<Role>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Mtls {
    /// Names in client certificates and their roles; the first match decides. Without any, every verified certificate
    /// may read.
    pub(crate) identities: Vec<Spanned<RawClientIdentity>>,
}

/// One of `san_uri`, `san_dns` and `subject_cn`, in which `*` matches any text within one segment.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawClientIdentity {
    /// A subject alternative name that is a URI: `spiffe://prod/ns/etl/*`.
    #[serde(default)]
    pub(crate) san_uri: Option<String>,
    /// A subject alternative name that is a DNS name: `*.etl.example.com`.
    #[serde(default)]
    pub(crate) san_dns: Option<String>,
    /// A common name of the subject.
    #[serde(default)]
    pub(crate) subject_cn: Option<String>,
    /// The role of clients with a matching certificate.
    pub(crate) role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Require {
    Any,
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Anonymous {
    #[serde(rename = "ro")]
    ReadOnly,
    #[serde(rename = "rw")]
    ReadWrite,
    #[serde(rename = "false", alias = "no", alias = "off")]
    Nobody,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Cors {
    /// Whether pages of the origins below may call.
    #[schemars(extend("default" = false))]
    pub(crate) enabled: Option<bool>,
    /// The origins, each with its scheme: `https://app.example.com`; `*` allows any.
    pub(crate) allowed_origins: Vec<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sql {
    /// Directories that COPY and CREATE EXTERNAL TABLE may access; empty: none.
    pub(crate) host_paths: Vec<Spanned<String>>,
    /// How long a query may take, from planning to its last batch.
    #[schemars(extend("default" = "5m"))]
    pub(crate) timeout: Option<Spanned<Span>>,
    /// Memory of all queries and memory tables together; then they spill or fail.
    #[schemars(extend("default" = "2GiB"))]
    pub(crate) memory_limit: Option<Spanned<Size>>,
    /// Memory of the whole process. Above it, the statements during which it grew most are ended.
    #[schemars(extend("x-unset" = "256 MiB more than one and a half times `memory_limit`"))]
    pub(crate) process_memory_limit: Option<Spanned<Size>>,
    /// The maximum size of a statement.
    #[schemars(extend("default" = "1MiB"))]
    pub(crate) max_statement_size: Option<Spanned<Size>>,
    /// The directory in which queries get a private directory to spill to.
    #[schemars(extend("x-unset" = "the system's temporary directory"))]
    pub(crate) spill_directory: Option<Spanned<String>>,
    /// The maximum size of the spilled data of all queries.
    #[schemars(extend("default" = "10GiB"))]
    pub(crate) spill_limit: Option<Spanned<Size>>,
    /// The maximum number of running statements, by the callers' role; a statement whose result waits for its reader
    /// does not count. One caller gets at most three quarters of them.
    pub(crate) concurrency: Concurrency,
    /// The maximum number of waiting statements; further ones are refused (503, RESOURCE_EXHAUSTED).
    pub(crate) queue: Queue,
    /// How long a statement waits before it is refused.
    #[schemars(extend("default" = "10s"))]
    pub(crate) queue_timeout: Option<Span>,
    /// The maximum number of rows of a result; a query that returns more fails.
    #[schemars(extend("x-unset" = "no limit"))]
    pub(crate) max_result_rows: Option<Spanned<usize>>,
    /// The maximum size of a result in bytes, in Arrow's memory format.
    #[schemars(extend("x-unset" = "no limit"))]
    pub(crate) max_result_bytes: Option<Spanned<Size>>,
    /// The number of statements that `runtime.queries` keeps; 0: none.
    #[schemars(extend("default" = 1_000))]
    pub(crate) history: Option<usize>,
}

/// Running statements.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Concurrency {
    /// For callers that may only read.
    #[schemars(extend("default" = 64))]
    pub(crate) ro: Option<Spanned<usize>>,
    /// For callers that may also write.
    #[schemars(extend("default" = 64))]
    pub(crate) rw: Option<Spanned<usize>>,
}

/// Waiting statements.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Queue {
    /// For callers that may only read.
    #[schemars(extend("default" = 256))]
    pub(crate) ro: Option<Spanned<usize>>,
    /// For callers that may also write.
    #[schemars(extend("default" = 256))]
    pub(crate) rw: Option<Spanned<usize>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Otel {
    /// How long rows are kept after their arrival.
    #[schemars(extend("default" = "24h"))]
    pub(crate) retention: Option<Spanned<Span>>,
    /// The maximum size of each table; the oldest rows are removed first. It counts against `runtime.sql.memory_limit`.
    #[schemars(extend("default" = "64MiB"))]
    pub(crate) memory_limit: Option<Spanned<Size>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Http {
    /// The maximum size of a request body.
    #[schemars(extend("default" = "16MiB"))]
    pub(crate) body_limit: Option<Size>,
    /// How long browsers should use only HTTPS (Strict-Transport-Security, RFC 6797): `365d`. Never sent for localhost,
    /// an IP address or a self-signed certificate.
    #[schemars(extend("x-unset" = "not sent"))]
    pub(crate) hsts: Option<Span>,
    /// Addresses and networks of proxies whose `X-Forwarded-For` is trusted, on every endpoint: `10.0.0.0/8`.
    pub(crate) trusted_proxies: Vec<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// Connections per endpoint, within the limit of open files; if that is low, the endpoints share a part of it.
    #[schemars(extend("default" = 10_000))]
    pub(crate) connections: Option<Spanned<usize>>,
    /// Handshakes in progress, per endpoint; beyond that, the slowest are ended.
    #[schemars(extend("default" = 1_024))]
    pub(crate) handshakes: Option<Spanned<usize>>,
    /// Wrong keys that an address may send in a burst, and per minute after that; further ones have to wait.
    #[schemars(extend("default" = 30))]
    pub(crate) auth_failures: Option<Spanned<usize>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dataset {
    /// The source: `file:PATH` (a file, a directory or a glob; Parquet, CSV, NDJSON), `s3://BUCKET/PATH`,
    /// `https://HOST/PATH`,
    /// `postgres:[SCHEMA.]TABLE`, `flightsql:[CATALOG.][SCHEMA.]TABLE` or `memory:`.
    pub(crate) from: Spanned<String>,
    /// The name in queries: `trips`, or `schema.table`.
    pub(crate) name: Spanned<String>,
    /// Whether queries may write to it.
    #[serde(default)]
    #[schemars(extend("default" = "read"))]
    pub(crate) access: Access,
    /// The parameters of the source.
    #[serde(default)]
    pub(crate) params: BTreeMap<String, SecretText>,
    /// The columns of a `memory:` data set.
    #[serde(default)]
    pub(crate) columns: Vec<Column>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct View {
    /// The name in queries: `recent_trips`, or `schema.view`.
    pub(crate) name: Spanned<String>,
    /// One SELECT statement.
    pub(crate) sql: Spanned<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Access {
    #[default]
    Read,
    ReadWrite,
}
