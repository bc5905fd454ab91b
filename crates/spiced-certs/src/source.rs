//! Where material comes from.

pub(crate) mod files;
pub(crate) mod read;
#[cfg(feature = "self-signed")]
pub(crate) mod self_signed;
pub(crate) mod unreadable;
pub(crate) mod watched;

use std::path::{Path, PathBuf};

use tls_core::{Origin, Secret, Sourced};
use tokio::sync::watch;

use crate::ClientMaterial;

/// A certificate and its key, each from where it was chosen.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate, with its intermediates.
    pub certificate: Sourced<Input>,
    /// The key.
    pub key: Sourced<Input>,
    /// What opens an encrypted key.
    pub passphrase: Option<Sourced<Input>>,
}

impl Pair {
    /// A certificate and a key that is not encrypted.
    pub fn new(certificate: Sourced<Input>, key: Sourced<Input>) -> Self {
        Self { certificate, key, passphrase: None }
    }

    /// Two PEM files that the calling program names.
    pub fn files(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        let file = |path| Sourced::new(Input::File(path), Origin::Program);
        Self::new(file(certificate.into()), file(key.into()))
    }
}

/// Where the material of a server is: its own, and that of its clients where they are asked for any.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The pair for whoever asks for no name that another is for.
    pub pair: Pair,
    /// More pairs, chosen by the names of their certificates.
    pub more: Vec<Pair>,
    /// Whether a client is refused that asks for none of the names.
    pub strict_sni: bool,
    /// Whose client certificates are taken; `None` where no client is asked.
    pub clients: Option<ClientMaterial>,
    /// Codes of findings that keep no reload from taking effect.
    pub accept_findings: Vec<String>,
}

impl Sources {
    /// The files that the material is in.
    pub fn files(&self) -> Vec<PathBuf> {
        let pairs = std::iter::once(&self.pair).chain(&self.more);
        let pairs = pairs.flat_map(|pair| [&pair.certificate, &pair.key].into_iter().chain(&pair.passphrase));
        let clients = self.clients.iter().flat_map(|clients| std::iter::once(&clients.authority).chain(&clients.lists));
        pairs.chain(clients).filter_map(|input| input.value.file().map(Path::to_owned)).collect()
    }

    /// Every pair, the default first.
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
