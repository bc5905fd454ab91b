//! The foundation of every server crate: TLS identities, and the one place that accepts connections.
//!
//! An [`Identity`] is a certificate chain and its key, proven to match. [`rotation::channel`] carries it to every
//! endpoint; the next handshake uses what is published there. An [`Acceptor`] turns TCP connections into TLS
//! connections. With the feature `serve`, [`server::serve`] is the accept loop that every endpoint runs on.
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
mod client_auth;
mod conn_info;
mod hkdf;
mod identity;
mod key_deriver;
mod listen_address;
mod origin;
mod plaintext_reply;
mod prefixed_io;
mod proxy_protocol;
pub mod redact;
pub mod rotation;
mod secret;
#[cfg(feature = "serve")]
pub mod server;
mod sni_resolver;
pub mod suggest;
mod tickets;
mod tls_options;

pub use acceptor::{Accepted, Acceptor, HandshakeError};
pub use client_auth::{ClientAuth, ClientAuthError, ClientAuthPolicy};
pub use conn_info::{ClientCertificate, ClientNames, ConnInfo, Standing, TlsInfo};
pub use identity::{CertificateSummary, Identity, IdentityError, Validity};
pub use key_deriver::KeyDeriver;
pub use listen_address::{AddressError, ListenAddress};
pub use origin::{Origin, Sourced};
pub use prefixed_io::{Io, PrefixedIo};
pub use secret::Secret;
pub use sni_resolver::SniCertResolver;
pub use tls_options::{MinVersion, ServerTls, TlsOptions, install_provider, provider};
