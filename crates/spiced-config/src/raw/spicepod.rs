//! What may be said: the schema of `spicepod.yaml`, and of the environment and flags that overlay
//! its `runtime`. Unknown keys are refused. Nothing is decided here.

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
    /// The format's version: `v1`, `v1beta1` or `v2`.
    #[schemars(extend("default" = "v1"))]
    pub(crate) version: Option<Templated>,
    /// `Spicepod`.
    #[schemars(extend("default" = "Spicepod"))]
    pub(crate) kind: Option<Templated>,
    /// What the pod is called in logs and in `/v1/status`.
    #[schemars(extend("default" = "spicepod"))]
    pub(crate) name: Option<Spanned<String>>,
    /// Secret stores. `${secrets:KEY}` asks the last one first; `env` is always there, asked last.
    pub(crate) secrets: Vec<Spanned<Store>>,
    /// How the program runs. Every key is also an environment variable, two underscores a level:
    /// `SPICED_RUNTIME__TLS__ENABLED`.
    pub(crate) runtime: Runtime,
    /// What can be queried.
    pub(crate) datasets: Vec<Spanned<Dataset>>,
    /// Names for queries over them.
    pub(crate) views: Vec<Spanned<View>>,
}

/// A secret store.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Store {
    /// What references call it.
    pub(crate) name: String,
    /// Its kind and what that needs: `env`, `file:DIR`, `kubernetes:SECRET`, `aws_secrets_manager[:NAME]`,
    /// `hashicorp_vault:PATH`, `keyring`.
    pub(crate) from: String,
    /// The kind's parameters.
    #[serde(default)]
    pub(crate) params: BTreeMap<String, Spanned<String>>,
    /// How often its secrets are read again.
    #[serde(default)]
    pub(crate) refresh_interval: Option<Spanned<Span>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Runtime {
    /// Where the endpoints listen: `HOST:PORT`. `localhost` is 127.0.0.1 and ::1; port 0 takes a free one.
    pub(crate) listen: Listen,
    /// How long all endpoints keep serving after a stop is requested, with readiness off.
    #[schemars(extend("default" = "0s"))]
    pub(crate) shutdown_delay: Option<Span>,
    /// How long running requests may take after that.
    #[schemars(extend("default" = "25s"))]
    pub(crate) shutdown_timeout: Option<Span>,
    /// What every endpoint but `probe` speaks.
    pub(crate) tls: Tls,
    /// Who may call, and what for.
    pub(crate) auth: Auth,
    /// Which web pages may call.
    pub(crate) cors: Cors,
    /// What a query may cost and reach.
    pub(crate) sql: Sql,
    /// What is kept of the telemetry that the gRPC endpoint is sent (OTLP): `otel.metrics`, `otel.logs`, `otel.traces`.
    pub(crate) otel: Otel,
    /// The HTTP endpoint.
    pub(crate) http: Http,
    /// What is bounded over all requests.
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
    /// Whether the endpoints speak TLS.
    #[schemars(extend("x-unset" = "true where certificate and key are given"))]
    pub(crate) enabled: Option<Spanned<bool>>,
    /// A PEM file: the certificate, then its intermediates.
    pub(crate) certificate_file: Option<Templated>,
    /// The same as PEM text.
    pub(crate) certificate: Option<SecretInput>,
    /// A PEM file: the certificate's key, RSA, ECDSA or Ed25519.
    pub(crate) key_file: Option<Templated>,
    /// The same as PEM text; write a reference here, not the key itself.
    pub(crate) key: Option<SecretInput>,
    /// Opens an encrypted key: PKCS#8, or PEM with `Proc-Type: 4,ENCRYPTED`. Write a reference here.
    pub(crate) key_passphrase: Option<SecretInput>,
    /// A development CA and leaf, made on first use under `.spice/tls` in the pod's directory.
    #[schemars(extend("default" = false))]
    pub(crate) self_signed: Option<Spanned<bool>>,
    /// Mozilla's guideline: `intermediate` is TLS 1.2 and 1.3, `modern` TLS 1.3 alone.
    #[schemars(extend("default" = "intermediate"))]
    pub(crate) profile: Option<Spanned<Profile>>,
    /// The lowest version that is spoken.
    #[schemars(extend("default" = "1.2"))]
    pub(crate) min_version: Option<Spanned<TlsVersion>>,
    /// More pairs, chosen by the name that a client asks for (SNI): an exact name before a wildcard. The pair above is
    /// for all other clients; without it, the first of these.
    pub(crate) certificates: Vec<Spanned<TlsPair>>,
    /// Whether a client is refused that asks for a name which no certificate is for, or for none.
    #[schemars(extend("default" = false))]
    pub(crate) strict_sni: Option<bool>,
    /// Whether clients show a certificate: they are not asked, may have none, or need one.
    #[schemars(extend("default" = "none"))]
    pub(crate) client_auth_mode: Option<Spanned<ClientAuthMode>>,
    /// A PEM file: the CAs whose client certificates are taken.
    pub(crate) client_auth_ca_file: Option<Templated>,
    /// The same as PEM text.
    pub(crate) client_auth_ca: Option<SecretInput>,
    /// Revocation lists of client certificates, PEM or DER; where there are any, each CA needs one.
    pub(crate) client_crl_files: Vec<Spanned<String>>,
    /// Codes of findings (`spiced tls check`) that keep no reload from taking effect: `[TLS-UNUSUAL-KEY]`.
    pub(crate) accept_findings: Vec<String>,
    /// At least 16 bytes. Replicas that share it resume each other's TLS sessions and take each other's
    /// Flight tickets.
    #[schemars(extend("x-unset" = "random, of this process alone"))]
    pub(crate) session_ticket_secret: Option<SecretInput>,
    /// From the first byte of a connection to the end of its handshake.
    #[schemars(extend("default" = "10s"))]
    pub(crate) handshake_timeout: Option<Span>,
}

/// A certificate and its key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsPair {
    /// A PEM file: the certificate, then its intermediates. Its DNS names say whom it is for.
    pub(crate) certificate_file: Option<Templated>,
    /// The same as PEM text.
    pub(crate) certificate: Option<SecretInput>,
    /// A PEM file: the certificate's key, RSA, ECDSA or Ed25519.
    pub(crate) key_file: Option<Templated>,
    /// The same as PEM text; write a reference here, not the key itself.
    pub(crate) key: Option<SecretInput>,
    /// Opens an encrypted key. Write a reference here.
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
    /// API keys (`api-key` is read too).
    pub(crate) api_key: ApiKeys,
    /// Who the bearers of client certificates are.
    pub(crate) mtls: Mtls,
    /// Whether a caller needs a key and a certificate, where both are set up.
    #[schemars(extend("default" = "any"))]
    pub(crate) require: Option<Spanned<Require>>,
    /// What callers without credentials may do. Where credentials are set up, and nothing is said here, it is nothing.
    #[schemars(extend("x-unset" = "rw on a loopback endpoint, elsewhere nothing"))]
    pub(crate) allow_anonymous: Option<Anonymous>,
    /// Whether the metrics endpoint asks for the same credentials.
    #[schemars(extend("default" = false))]
    pub(crate) metrics: Option<Spanned<bool>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ApiKeys {
    /// Whether the keys count.
    #[schemars(extend("x-unset" = "true where there are keys"))]
    pub(crate) enabled: Option<Spanned<bool>>,
    /// Keys, or their hashes (`sha256:HEX`, `argon2id:PHC`), each with `:ro` or `:rw` at its end; without,
    /// a key is read-only.
    #[schemars(with = "Vec<String>")]
    pub(crate) keys: Vec<ApiKey>,
}

/// A key as the tree holds it when its role has been split off (see `keys`).
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
    /// Names in client certificates and their roles; the first that fits decides. Without any, every
    /// verified certificate may read.
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
    /// What its bearer may do.
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
    /// `https://app.example.com`, each with its scheme; `*` for any.
    pub(crate) allowed_origins: Vec<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sql {
    /// Directories that COPY and CREATE EXTERNAL TABLE may reach; empty: nowhere.
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
    /// The longest statement.
    #[schemars(extend("default" = "1MiB"))]
    pub(crate) max_statement_size: Option<Spanned<Size>>,
    /// The directory in which queries get a private directory to spill to.
    #[schemars(extend("x-unset" = "the system's temporary directory"))]
    pub(crate) spill_directory: Option<Spanned<String>>,
    /// What all queries may have spilled at a time.
    #[schemars(extend("default" = "10GiB"))]
    pub(crate) spill_limit: Option<Spanned<Size>>,
    /// Statements that run at a time, by the callers' role; one whose result waits for its reader does not count. One
    /// caller has three quarters of them at most.
    pub(crate) concurrency: Concurrency,
    /// Statements that may wait for that; one more is refused (503, RESOURCE_EXHAUSTED).
    pub(crate) queue: Queue,
    /// How long one waits before it is refused.
    #[schemars(extend("default" = "10s"))]
    pub(crate) queue_timeout: Option<Span>,
    /// The most rows that a query may answer; beyond them it fails.
    #[schemars(extend("x-unset" = "no bound"))]
    pub(crate) max_result_rows: Option<Spanned<usize>>,
    /// The same in bytes, as Arrow holds the rows.
    #[schemars(extend("x-unset" = "no bound"))]
    pub(crate) max_result_bytes: Option<Spanned<Size>>,
    /// Statements that `runtime.queries` remembers; 0: none.
    #[schemars(extend("default" = 1_000))]
    pub(crate) history: Option<usize>,
}

/// Statements at a time.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Concurrency {
    /// Of callers that may only read.
    #[schemars(extend("default" = 64))]
    pub(crate) ro: Option<Spanned<usize>>,
    /// Of callers that may also write.
    #[schemars(extend("default" = 64))]
    pub(crate) rw: Option<Spanned<usize>>,
}

/// Statements that wait.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Queue {
    /// Of callers that may only read.
    #[schemars(extend("default" = 256))]
    pub(crate) ro: Option<Spanned<usize>>,
    /// Of callers that may also write.
    #[schemars(extend("default" = 256))]
    pub(crate) rw: Option<Spanned<usize>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Otel {
    /// For how long after it came.
    #[schemars(extend("default" = "24h"))]
    pub(crate) retention: Option<Spanned<Span>>,
    /// How much each table holds; then the oldest goes. It counts against `runtime.sql.memory_limit`.
    #[schemars(extend("default" = "64MiB"))]
    pub(crate) memory_limit: Option<Spanned<Size>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Http {
    /// The largest body of a request.
    #[schemars(extend("default" = "16MiB"))]
    pub(crate) body_limit: Option<Size>,
    /// For how long browsers are to come by HTTPS alone (Strict-Transport-Security, RFC 6797): `365d`. Never
    /// sent for localhost, an address or a certificate that vouches for itself.
    #[schemars(extend("x-unset" = "not sent"))]
    pub(crate) hsts: Option<Span>,
    /// Addresses and networks of proxies whose `X-Forwarded-For` counts, on every endpoint: `10.0.0.0/8`.
    pub(crate) trusted_proxies: Vec<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// Connections of one endpoint, within the limit of open files; if that is low, the endpoints share a part of it.
    #[schemars(extend("default" = 10_000))]
    pub(crate) connections: Option<Spanned<usize>>,
    /// Handshakes in progress, for each endpoint; beyond it the slowest is ended.
    #[schemars(extend("default" = 1_024))]
    pub(crate) handshakes: Option<Spanned<usize>>,
    /// Wrong keys of one address, at once and a minute after that; further ones have to wait.
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
    /// What queries call it: `trips`, or `schema.table`.
    pub(crate) name: Spanned<String>,
    /// Whether it may be written.
    #[serde(default)]
    #[schemars(extend("default" = "read"))]
    pub(crate) access: Access,
    /// The source's parameters.
    #[serde(default)]
    pub(crate) params: BTreeMap<String, SecretText>,
    /// The columns of a `memory:` data set.
    #[serde(default)]
    pub(crate) columns: Vec<Column>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct View {
    /// What queries call it: `recent_trips`, or `schema.view`.
    pub(crate) name: Spanned<String>,
    /// One SELECT.
    pub(crate) sql: Spanned<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Access {
    #[default]
    Read,
    ReadWrite,
}
