//! Loads certificates and keys from PEM into an [`Identity`](tls_core::Identity), and reports what is wrong with them.
//!
//! A [`Pair`] names where a certificate and its key are read from. [`load`] reads both, builds an identity and reports
//! what an operator should know ([`Finding`]). [`Reloader`] reads them again and publishes what changed.
//! [`load_clients`] reads the CAs and revocation lists that a server verifies client certificates with.
//! [`check_config`] is the full check behind `spiced tls check`. [`outbound`] does the same for outgoing connections.
//!
//! Out of scope: secret stores (secrets are passed in as values) and serving.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
//! # let (certificate, key) = (directory.path().join("tls.crt"), directory.path().join("tls.key"));
//! # std::fs::write(&certificate, made.cert.pem())?;
//! # std::fs::write(&key, made.signing_key.serialize_pem())?;
//! use spiced_certs::{Outcome, Pair, Reloader, load};
//!
//! let mut pair = Pair::files(certificate, key);
//! let loaded = load(&mut pair)?;
//! for finding in &loaded.findings {
//!     println!("{} {}: {}", finding.code, finding.message, finding.fix);
//! }
//! let (publisher, identities) = tls_core::rotation::channel(loaded.identity);
//! assert_eq!(identities.served().identity().leaf().names, ["localhost"]);
//!
//! // Later: the files may have changed.
//! let mut reloader = Reloader::new(pair, publisher);
//! assert!(matches!(reloader.reload(), Outcome::Unchanged));
//! # Ok(())
//! # }
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod client_ca;
mod diagnostics;
mod handshake;
mod load;
pub mod outbound;
mod pem;
mod reload;
mod source;

pub use client_ca::{ClientMaterial, LoadedClients, clients_ending, load_clients};
pub use diagnostics::check_config::{
    CertificateContents, Contents, Examined, Material, check_config, examine_material,
};
pub use diagnostics::compatibility::Clients;
pub use diagnostics::inspect::{Inspected, StartTls, inspect};
pub use diagnostics::path::trust::Issued;
pub use diagnostics::remote::{Presented, Untrusted};
pub use diagnostics::{Finding, REFUSALS, Severity, ending};
pub use load::{LoadError, Loaded, Mismatch, Unusable, load};
pub use reload::{Outcome, Reloader, Started};
pub use source::files::FileWatch;
#[cfg(feature = "self-signed")]
pub use source::self_signed::{BrokenCa, SelfSigned, SelfSignedError};
pub use source::{Input, Pair, Sources};

/// Returns true if `content` is PEM, or another form that certificates and keys are stored in, even one that cannot be
/// read here.
pub fn is_material(content: &tls_core::Secret) -> bool {
    pem::is_material(content)
}
