//! From what was said, on the command line, in the environment and in `spicepod.yaml`, to what was
//! decided: [`Settings`].
//!
//! The way is one direction. Each layer becomes a tree of values that know their origin
//! ([`Layers`]); who gives the TLS material is chosen before anything is read; what is left is
//! merged, its references are replaced by whoever holds the secret stores, and only then is it
//! given types.
//!
//! What is absent on purpose: opening a secret store, reading a certificate, binding a port.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod decide;
mod decode;
mod environment;
mod error;
mod foreign;
mod layers;
mod settings;
mod spicepod;
mod stores;
mod tls;
mod tree;
mod units;
mod yaml;

pub use error::{ConfigError, Problem};
pub use layers::{Flag, Layers, Resolved};
pub use settings::{
    Column, Dataset, Limits, Listen, Material, MaterialInput, Settings, Store, Tls, TlsVersion, Warning,
};
