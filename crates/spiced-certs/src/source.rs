//! Where material comes from.

pub(crate) mod files;
pub(crate) mod read;
#[cfg(feature = "self-signed")]
pub(crate) mod self_signed;
pub(crate) mod watched;

use std::path::{Path, PathBuf};

use tls_core::{Origin, Secret, Sourced};
use tokio::sync::watch;

/// A certificate and its key, each from where it was chosen.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate, with its intermediates.
    pub certificate: Sourced<Input>,
    /// The key.
    pub key: Sourced<Input>,
}

impl Pair {
    /// Two PEM files that the calling program names.
    pub fn files(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        let file = |path| Sourced::new(Input::File(path), Origin::Program);
        Self { certificate: file(certificate.into()), key: file(key.into()) }
    }
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

impl Input {
    /// The file that it is in, where it is in one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Text(_) | Self::Watched(_) => None,
        }
    }
}
