//! The inputs that certificates and keys are read from.

pub(crate) mod files;
pub(crate) mod read;
#[cfg(feature = "self-signed")]
pub(crate) mod self_signed;
pub(crate) mod watched;

use std::path::{Path, PathBuf};

use tls_core::{Origin, Secret, Sourced};
use tokio::sync::watch;

use crate::ClientMaterial;

/// A certificate and its key, each with the origin of the setting that chose it.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate, followed by its intermediates.
    pub certificate: Sourced<Input>,
    /// The key.
    pub key: Sourced<Input>,
    /// The passphrase of an encrypted key.
    pub passphrase: Option<Sourced<Input>>,
}

impl Pair {
    /// Creates a pair with an unencrypted key.
    pub fn new(certificate: Sourced<Input>, key: Sourced<Input>) -> Self {
        Self { certificate, key, passphrase: None }
    }

    /// Creates a pair from two PEM files named by the calling program.
    pub fn files(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        let file = |path| Sourced::new(Input::File(path), Origin::Program);
        Self::new(file(certificate.into()), file(key.into()))
    }
}

/// The inputs of a server: its certificates, and the client CA if client certificates are requested.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The default pair, for clients that ask for no name covered by another pair.
    pub pair: Pair,
    /// More pairs, selected by the names of their certificates.
    pub more: Vec<Pair>,
    /// Whether to refuse clients that ask for a name that no certificate covers.
    pub strict_sni: bool,
    /// How client certificates are verified; `None` if none is requested.
    pub clients: Option<ClientMaterial>,
    /// Codes of findings that do not block a reload.
    pub accept_findings: Vec<String>,
}

impl Sources {
    /// Returns the files that the material is read from.
    pub fn files(&self) -> Vec<PathBuf> {
        let pairs = std::iter::once(&self.pair).chain(&self.more);
        let pairs = pairs.flat_map(|pair| [&pair.certificate, &pair.key].into_iter().chain(&pair.passphrase));
        let clients = self.clients.iter().flat_map(|clients| std::iter::once(&clients.authority).chain(&clients.lists));
        pairs.chain(clients).filter_map(|input| input.value.file().map(Path::to_owned)).collect()
    }

    /// Returns every pair, the default first.
    pub(crate) fn pairs_mut(&mut self) -> impl Iterator<Item = &mut Pair> {
        std::iter::once(&mut self.pair).chain(&mut self.more)
    }

    pub(crate) fn is_watched(&self) -> bool {
        std::iter::once(&self.pair).chain(&self.more).any(Pair::is_watched)
    }
}

impl From<Pair> for Sources {
    fn from(pair: Pair) -> Self {
        Self { pair, more: Vec::new(), strict_sni: false, clients: None, accept_findings: Vec::new() }
    }
}

/// Where PEM is read from.
#[derive(Debug, Clone)]
pub enum Input {
    /// A file.
    File(PathBuf),
    /// The text of a setting.
    Text(Secret),
    /// A secret that can change; the holder of the sender knows where it is stored.
    Watched(watch::Receiver<Secret>),
}

impl Input {
    /// Returns the file, if the input is a file.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Text(_) | Self::Watched(_) => None,
        }
    }
}
