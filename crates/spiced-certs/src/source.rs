//! Where material comes from.

pub(crate) mod read;
#[cfg(feature = "self-signed")]
pub(crate) mod self_signed;
pub(crate) mod watched;

use std::path::PathBuf;

use tls_core::{Secret, Sourced};
use tokio::sync::watch;

/// A certificate and its key, each from where it was chosen.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate, with its intermediates.
    pub certificate: Sourced<Input>,
    /// The key.
    pub key: Sourced<Input>,
}

/// Where PEM is.
#[derive(Debug, Clone)]
pub enum Input {
    /// In a file.
    File(PathBuf),
    /// In a setting.
    Text(Secret),
    /// In a secret that changes; whoever holds the sender knows where it is kept.
    Watched(watch::Receiver<Secret>),
}
