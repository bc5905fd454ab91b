//! Where material comes from.

pub(crate) mod read;
#[cfg(feature = "self-signed")]
pub(crate) mod self_signed;

use std::path::{Path, PathBuf};

use tls_core::{Secret, Sourced};

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
    /// In a setting, or a secret.
    Text(Secret),
}

impl Input {
    /// The file that it is in, where it is in one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Text(_) => None,
        }
    }
}
