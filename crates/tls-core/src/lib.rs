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
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use tls_core::{Acceptor, Identity, Origin, TlsOptions, rotation};
//!
//! // Any chain and key will do, as long as they are a pair; `spiced-certs` reads them from PEM.
//! let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
//! let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
//! let identity = Identity::new(vec![made.cert.der().clone()], key, Origin::Program, Origin::Program)?;
//!
//! // What is published later is what the next handshake presents.
//! let (publisher, identities) = rotation::channel(identity);
//! let acceptor = Acceptor::tls("http", TlsOptions::random()?.server(identities)?);
//! assert_eq!(publisher.served().identity().leaf().names, ["localhost"]);
//! assert!(acceptor.is_tls());
//! # Ok(())
//! # }
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod acceptor;
#[cfg(feature = "serve")]
mod activity;
#[cfg(feature = "serve")]
mod body;
mod clients;
#[cfg(feature = "serve")]
mod connection_table;
mod derive;
#[cfg(feature = "serve")]
pub mod drain;
#[cfg(feature = "serve")]
mod frame_budget;
mod hkdf;
mod identity;
#[cfg(feature = "serve")]
mod linger;
#[cfg(feature = "serve")]
pub mod listener;
mod options;
mod origin;
#[cfg(feature = "serve")]
mod path;
mod peer;
#[cfg(feature = "serve")]
pub mod pieces;
mod plaintext;
mod proxy;
#[cfg(feature = "serve")]
mod request_memory;
pub mod rotation;
mod secret;
mod set;
mod stream;
mod tickets;
#[cfg(feature = "serve")]
mod workers;

pub use acceptor::{Accepted, Acceptor, HandshakeError};
pub use clients::{ClientAuth, ClientTrust, ClientTrustError};
pub use derive::Derivation;
pub use identity::{CertificateSummary, Identity, IdentityError, Validity};
pub use options::{MinVersion, ServerTls, TlsOptions, install_provider, provider};
pub use origin::{Origin, Sourced};
pub use peer::{ClientCertificate, ClientNames, ConnInfo, Standing, TlsInfo};
pub use secret::Secret;
pub use set::IdentitySet;
pub use stream::{Io, Replayed};
#[cfg(feature = "serve")]
pub use workers::Workers;
