//! What may be said: the schema of `spicepod.yaml`, and of the environment and flags that overlay
//! its `runtime`. Unknown keys are refused. Nothing is decided here.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::decode::{Hidden, Placed, Referred};
use crate::units::{Size, Span};

/// A whole `spicepod.yaml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Spicepod {
    pub(crate) version: Option<Referred>,
    pub(crate) kind: Option<Referred>,
    pub(crate) name: Option<String>,
    pub(crate) secrets: Vec<Placed<Store>>,
    pub(crate) runtime: Runtime,
    pub(crate) datasets: Vec<Placed<Dataset>>,
}

/// A secret store.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Store {
    pub(crate) name: String,
    pub(crate) from: String,
    #[serde(default)]
    pub(crate) params: BTreeMap<String, Placed<String>>,
    #[serde(default)]
    pub(crate) refresh_interval: Option<Placed<Span>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Runtime {
    pub(crate) listen: Listen,
    pub(crate) shutdown_delay: Option<Span>,
    pub(crate) shutdown_timeout: Option<Span>,
    pub(crate) tls: Tls,
    pub(crate) auth: Auth,
    pub(crate) cors: Cors,
    pub(crate) sql: Sql,
    pub(crate) http: Http,
    pub(crate) limits: Limits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Listen {
    pub(crate) http: Option<Referred>,
    pub(crate) flight: Option<Referred>,
    pub(crate) grpc: Option<Referred>,
    pub(crate) metrics: Option<Referred>,
    pub(crate) probe: Option<Referred>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tls {
    pub(crate) enabled: Option<bool>,
    pub(crate) certificate_file: Option<Referred>,
    pub(crate) certificate: Option<Placed<Hidden>>,
    pub(crate) key_file: Option<Referred>,
    pub(crate) key: Option<Placed<Hidden>>,
    pub(crate) key_passphrase: Option<Placed<Hidden>>,
    pub(crate) self_signed: Option<Placed<bool>>,
    pub(crate) profile: Option<Placed<Profile>>,
    pub(crate) min_version: Option<Placed<Version>>,
    pub(crate) certificates: Vec<serde::de::IgnoredAny>,
    pub(crate) strict_sni: Option<bool>,
    pub(crate) client_auth_mode: Option<ClientAuthMode>,
    pub(crate) client_auth_ca_file: Option<Placed<String>>,
    pub(crate) client_auth_ca: Option<Placed<Hidden>>,
    pub(crate) client_crl_files: Vec<String>,
    pub(crate) session_ticket_secret: Option<Placed<Hidden>>,
    pub(crate) handshake_timeout: Option<Span>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Profile {
    Intermediate,
    Modern,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Version {
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClientAuthMode {
    None,
    Request,
    Required,
}

/// Keys and client certificates are not enforced yet, so whatever asks for them never gets here
/// (see `layers`); the keys are known so that a spelling mistake in them is still found.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Auth {
    #[serde(alias = "api-key")]
    pub(crate) api_key: Option<serde::de::IgnoredAny>,
    pub(crate) mtls: Option<serde::de::IgnoredAny>,
    pub(crate) require: Option<serde::de::IgnoredAny>,
    pub(crate) allow_anonymous: Option<Anonymous>,
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

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Cors {
    pub(crate) enabled: Option<bool>,
    pub(crate) allowed_origins: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sql {
    pub(crate) host_paths: Vec<Placed<String>>,
    pub(crate) timeout: Option<Placed<Span>>,
    pub(crate) memory_limit: Option<Placed<Size>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Http {
    pub(crate) body_limit: Option<Size>,
    pub(crate) hsts: Option<serde::de::IgnoredAny>,
    pub(crate) trusted_proxies: Vec<serde::de::IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    pub(crate) connections: Option<Placed<usize>>,
    pub(crate) handshakes: Option<Placed<usize>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dataset {
    pub(crate) from: Placed<String>,
    pub(crate) name: Placed<String>,
    #[serde(default)]
    pub(crate) access: Access,
    #[serde(default)]
    pub(crate) params: BTreeMap<String, Hidden>,
    #[serde(default)]
    pub(crate) columns: Vec<Column>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Access {
    #[default]
    Read,
    ReadWrite,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Column {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) data_type: String,
    #[serde(default = "yes")]
    pub(crate) nullable: bool,
}

fn yes() -> bool {
    true
}
