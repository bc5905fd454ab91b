//! From raw settings, on the command line, in the environment and in `spicepod.yaml`, to resolved ones: [`Settings`].
//!
//! Data flows in one direction. Each layer is a [figment](figment::Figment) provider (`providers`); figment merges them
//! and tracks which one supplied a value ([`Layers`]). The source of the TLS material is chosen before anything is read
//! (`tls_source`). The owner of the secret stores replaces the references of the effective values; only then are the
//! values converted to their types (`resolve`).
//!
//! A program that embeds this crate adds providers with [`Layers::merge`] and [`Layers::join`], or uses the merged
//! [`Layers::figment`].
//!
//! Deliberately absent: opening a secret store, reading a certificate, binding a port.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! use spiced_config::{Flag, Layers};
//!
//! std::fs::write(directory.path().join("spicepod.yaml"), "name: my-app\nruntime: { shutdown_delay: 5s }\n")?;
//! let variables = [("SPICED_RUNTIME__LISTEN__HTTP".to_owned(), "localhost:8080".to_owned())];
//! let flag = Flag { name: "--flight".into(), setting: "runtime.listen.flight", value: "localhost:0".into() };
//! let layers = Layers::read(directory.path(), variables, &[flag], &[])?;
//!
//! // The holder of the secret stores replaces the references.
//! let resolve = async |values: &[tls_core::Sourced<spiced_secrets::Template>]| {
//!     Ok::<_, std::convert::Infallible>(values.iter().map(|v| v.value.render(|_| "hush".into())).collect())
//! };
//! # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
//! let settings = runtime.block_on(layers.settle(resolve))?;
//! assert_eq!(settings.runtime.listen.http.value.port(), 8080);
//! assert_eq!(settings.runtime.listen.flight.origin.to_string(), "--flight");
//! # Ok(())
//! # }
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod explain;
mod layers;
mod problem;
mod providers;
mod raw;
mod resolve;
mod schema;
mod settings;
mod tls_source;

/// Re-exported, so that an embedding program uses providers of the same version.
pub use figment;

pub use explain::{Beaten, Explained, Explanation};
pub use layers::{Layers, SettingsError};
pub use problem::{ConfigError, Problem};
pub use providers::Flag;
pub use providers::environment::KnownOption;
pub use raw::aliases::meant;
pub use schema::schema;
pub use settings::{
    ApiKey, Auth, ByRole, ClientIdentityRule, Clients, Column, Cors, Dataset, EndpointKind, Http, IdentityName, Limits,
    Listen, Material, MaterialInput, Otel, Pair, RestartOnlySettings, Role, Runtime, Settings, Sql, Tls, TlsVersion,
    View, Warning,
};
