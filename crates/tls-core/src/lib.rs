//! The foundation of every server crate: TLS identities, and the one place that accepts connections.
//!
//! An [`Identity`] is a certificate chain and its key, proven to match. [`rotation::channel`] carries it to every
//! endpoint; the next handshake uses what is published there. An [`Acceptor`] turns TCP connections into TLS
//! connections. With the feature `serve`, [`listener::serve`] is the accept loop that every endpoint runs on.
//!
//! Deliberately absent: reading PEM (see `spiced-certs`), and any protocol above HTTP's framing.
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
mod body;
#[cfg(feature = "serve")]
pub mod buf_list;
mod client_auth;
mod conn_info;
#[cfg(feature = "serve")]
mod connection_table;
#[cfg(feature = "serve")]
pub mod drain;
#[cfg(feature = "serve")]
mod frame_budget;
mod hkdf;
mod identity;
#[cfg(feature = "serve")]
mod idle;
mod key_deriver;
#[cfg(feature = "serve")]
mod lingering_close;
#[cfg(feature = "serve")]
pub mod listener;
mod origin;
mod plaintext_reply;
mod prefixed_io;
mod proxy_protocol;
pub mod redact;
#[cfg(feature = "serve")]
mod request_memory;
pub mod rotation;
mod secret;
mod sni_resolver;
#[cfg(feature = "serve")]
mod socket_options;
pub mod suggest;
mod tickets;
mod tls_options;
#[cfg(feature = "serve")]
mod workers;

pub use acceptor::{Accepted, Acceptor, HandshakeError};
pub use client_auth::{ClientAuth, ClientAuthError, ClientAuthPolicy};
pub use conn_info::{ClientCertificate, ClientNames, ConnInfo, Standing, TlsInfo};
pub use identity::{CertificateSummary, Identity, IdentityError, Validity};
pub use key_deriver::KeyDeriver;
pub use origin::{Origin, Sourced};
pub use prefixed_io::{Io, PrefixedIo};
pub use secret::Secret;
pub use sni_resolver::SniCertResolver;
pub use tls_options::{MinVersion, ServerTls, TlsOptions, install_provider, provider};
#[cfg(feature = "serve")]
pub use workers::Workers;
