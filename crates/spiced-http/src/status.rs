//! `GET /v1/status` and `GET /v1/datasets`: the state of the server and of its data sets.

use std::fmt;
use std::time::SystemTime;

use serde::{Serialize, Serializer};
use spiced_engine::{DatasetState, DatasetStatus};
use utoipa::ToSchema;

/// The document of `/v1/status`. Times are in UTC, in the format of RFC 3339.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct Status {
    /// The name of the pod.
    pub name: String,
    /// The version of the server.
    pub version: String,
    /// Whether `/v1/ready` reports `ready`.
    pub ready: bool,
    /// The open endpoints.
    pub endpoints: Vec<EndpointStatus>,
    /// The certificates in use.
    pub tls: TlsStatus,
    /// The credentials that are accepted.
    pub auth: AuthStatus,
    /// The secret stores.
    pub stores: Vec<SecretStoreStatus>,
    /// The data sets.
    #[schema(value_type = Vec<Dataset>)]
    #[serde(serialize_with = "datasets_of")]
    pub datasets: Vec<DatasetStatus>,
}

/// An open endpoint.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct EndpointStatus {
    /// `http`, `flight`, `grpc`, `metrics` or `probe`.
    pub endpoint: &'static str,
    /// The addresses it listens on, as `IP:PORT`.
    pub addresses: Vec<String>,
    /// Whether connections use TLS.
    pub tls: bool,
}

/// The TLS state, which all endpoints share.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct TlsStatus {
    /// Whether TLS is on.
    pub enabled: bool,
    /// The certificates; the first is the default one.
    pub certificates: Vec<CertificateStatus>,
    /// Whether a connection for an unknown host name is refused (RFC 6066 §3).
    pub strict_sni: bool,
    /// How client certificates are verified; null without TLS.
    #[schema(required)]
    pub client_auth: Option<ClientAuthStatus>,
}

/// A certificate that endpoints present.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CertificateStatus {
    /// The subject.
    pub subject: String,
    /// The names that the certificate is valid for (subjectAltName).
    pub names: Vec<String>,
    /// The issuer.
    pub issuer: String,
    /// The SHA-256 fingerprint, in hexadecimal.
    pub fingerprint: String,
    /// The start of its validity.
    #[schema(value_type = String, format = DateTime)]
    pub not_before: Time,
    /// The end of its validity.
    #[schema(value_type = String, format = DateTime)]
    pub not_after: Time,
    /// `ok`, `degraded: expires within 30 days`, `degraded: expires within 7 days`, `expired` or `not valid yet`.
    pub health: &'static str,
    /// The origin of the certificate: a setting, with its file or secret.
    pub origin: String,
    /// The origin of its key.
    pub key_origin: String,
    /// When it was put into use.
    #[schema(value_type = String, format = DateTime)]
    pub last_swap: Time,
    /// The last rejected reload; null if none was rejected since `last_swap`.
    #[schema(required)]
    pub last_rejection: Option<RejectionStatus>,
}

/// A rejected reload.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RejectionStatus {
    /// When it was rejected.
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    /// The reason.
    pub reason: String,
}

/// How client certificates are verified.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ClientAuthStatus {
    /// Whether clients present a certificate.
    pub mode: ClientAuthMode,
    /// The CAs that are trusted.
    pub authorities: Vec<AuthorityStatus>,
}

/// Whether clients present a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuthMode {
    /// No certificate is requested.
    None,
    /// A certificate is requested and verified, but not required.
    Request,
    /// Connections without a certificate are refused.
    Required,
}

/// A CA whose client certificates are trusted.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AuthorityStatus {
    /// The subject.
    pub subject: String,
    /// The SHA-256 fingerprint, in hexadecimal.
    pub fingerprint: String,
    /// The end of its validity.
    #[schema(value_type = String, format = DateTime)]
    pub not_after: Time,
    /// The same values as for certificates.
    pub health: &'static str,
}

/// The credentials that are accepted.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub struct AuthStatus {
    /// The number of API keys.
    pub api_keys: usize,
    /// The number of rules for client certificates.
    pub identities: usize,
    /// Whether a caller needs one kind of credentials or all of them.
    pub require: CredentialsRequired,
}

/// Which credentials a caller needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CredentialsRequired {
    /// An API key or a client certificate.
    #[default]
    Any,
    /// Both.
    All,
}

/// A secret store.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SecretStoreStatus {
    /// The name that references use.
    pub name: String,
    /// The kind, such as `hashicorp_vault`.
    pub kind: &'static str,
    /// How changes are detected: `on reload`, `watch`, or `every` and an interval, such as `every 5m`.
    pub refresh: String,
    /// Whether the store answers.
    pub state: SecretStoreState,
    /// When it last answered; null if it has not been read yet.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub last_read: Option<Time>,
    /// The current error. The last good values stay in use meanwhile.
    #[schema(required)]
    pub trouble: Option<SecretStoreTrouble>,
}

/// Whether a secret store answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SecretStoreState {
    /// The last read succeeded.
    Ok,
    /// The last read failed.
    Failing,
    /// No reference uses it.
    #[serde(rename = "not asked")]
    NotAsked,
}

/// The error of a secret store.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SecretStoreTrouble {
    /// When the error first occurred.
    #[schema(value_type = String, format = DateTime)]
    pub since: Time,
    /// What is wrong, in one sentence.
    pub problem: String,
}

/// A data set of the pod.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Dataset {
    /// The name it is queried by.
    name: String,
    /// The source, as written in the pod.
    from: String,
    /// Whether it is writable.
    writable: bool,
    /// Whether it can be queried.
    status: DatasetHealth,
    /// If `failed`: the cause, in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// If `failed`: when the next attempt starts, in seconds since 1970-01-01T00:00:00Z.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt: Option<u64>,
}

/// Whether a data set can be queried.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum DatasetHealth {
    /// The first load is in progress.
    Loading,
    /// It can be queried.
    Ready,
    /// The last load failed and will be retried.
    Failed,
}

impl From<&DatasetStatus> for Dataset {
    fn from(status: &DatasetStatus) -> Self {
        let DatasetStatus { name, from, writable, state } = status;
        let (health, error, next_attempt) = match state {
            DatasetState::Loading => (DatasetHealth::Loading, None, None),
            DatasetState::Ready => (DatasetHealth::Ready, None, None),
            DatasetState::Failed { error, next_attempt } => {
                let seconds = next_attempt.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
                (DatasetHealth::Failed, Some(error.clone()), Some(seconds))
            }
        };
        Self { name: name.clone(), from: from.clone(), writable: *writable, status: health, error, next_attempt }
    }
}

fn datasets_of<S: Serializer>(datasets: &[DatasetStatus], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(datasets.iter().map(Dataset::from))
}

/// A point in time. Written in UTC, to the second: `2026-11-30T08:15:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub SystemTime);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_seconds(self.0).fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
