//! From what was said, on the command line, in the environment and in `spicepod.yaml`, to what was
//! decided: [`Settings`].
//!
//! The way is one direction. Each layer becomes a tree of values that know their origin
//! ([`Layers`]); who gives the TLS material is chosen before anything is read; what is left is
//! merged, its references are replaced by the holder of the secret stores, and only then is it
//! given types.
//!
//! What is absent on purpose: opening a secret store, reading a certificate, binding a port.
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
//! let settings = runtime.block_on(layers.settle(resolve)).map_err(|_| "the pod is wrong")?;
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

pub use explain::{Beaten, Explained, Explanation};
pub use layers::{Layers, SettingsError};
pub use problem::{ConfigError, Problem};
pub use providers::Flag;
pub use providers::environment::KnownOption;
pub use raw::aliases::meant;
pub use schema::schema;
pub use settings::{
    ApiKey, Auth, ByRole, ClientIdentityRule, Clients, Column, Cors, Dataset, EndpointKind, Http, IdentityName, Limits,
    Listen, Material, MaterialInput, Otel, Pair, Role, Runtime, Settings, Sql, Tls, TlsVersion, View, Warning,
};
