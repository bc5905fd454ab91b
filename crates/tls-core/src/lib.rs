//! The shared ground of every server crate: what a TLS identity is, and the one place where
//! connections are accepted.
//!
//! An [`Identity`] is a chain and its key, proven to be a pair. [`rotation::channel`] carries it to
//! every door; what is published there is used by the next handshake. An [`Acceptor`] makes TLS
//! connections of TCP ones. With the feature `serve`, [`listener::serve`] is the accept loop that
//! every door runs on.
//!
//! What is absent on purpose: reading PEM (that is `spiced-certs`), and any protocol above HTTP's
//! framing.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod acceptor;
mod derive;
#[cfg(feature = "serve")]
pub mod drain;
mod identity;
#[cfg(feature = "serve")]
mod linger;
#[cfg(feature = "serve")]
pub mod listener;
mod options;
mod origin;
mod peer;
mod plaintext;
pub mod rotation;
mod secret;
mod stream;
mod tickets;
#[cfg(feature = "serve")]
mod workers;

pub use acceptor::{Accepted, Acceptor, HandshakeError};
pub use derive::Derivation;
pub use identity::{CertificateSummary, Identity, IdentityError, Validity};
pub use options::{MinVersion, TlsOptions, install_provider, provider};
pub use origin::{Origin, Sourced};
pub use peer::{ConnInfo, TlsInfo};
pub use secret::Secret;
pub use stream::{Io, Replayed};
#[cfg(feature = "serve")]
pub use workers::Workers;
