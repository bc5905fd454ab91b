//! PEM in, [`Identity`](tls_core::Identity) out; and what is wrong with it, in one line.
//!
//! A [`Pair`] says where a certificate and its key are. [`load`] reads both, makes an identity of
//! them and tells what an operator should know ([`Finding`]). [`Reloader`] does it again and
//! publishes what is new. [`client`] is the same for connections that go out.
//!
//! What is absent on purpose: secret stores (a secret comes here as a value), and serving.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod chain;
pub mod client;
mod diagnose;
mod load;
pub mod pem;
mod reload;
mod source;

pub use diagnose::{Finding, Severity};
pub use load::{LoadError, Loaded, Mismatch, load};
pub use reload::{Outcome, Reloader};
#[cfg(feature = "self-signed")]
pub use source::self_signed::{SelfSigned, SelfSignedError};
pub use source::{Input, Pair};
