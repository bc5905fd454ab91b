//! Connections to other servers: the TLS material that the pod names for them, and why there is none.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use spiced_certs::outbound::{ClientTls, HandshakeObserver, Refusal, Trust};
use spiced_certs::{Input, Pair};
use tls_core::{Origin, Sourced};

use super::params::Params;

/// The params of [`Material::read`]: the CAs that are trusted, and our own certificate with its key.
pub(super) const MATERIAL: &[&str] = &TLS;

const TLS: [&str; 3] = ["tls_ca_file", "tls_certificate_file", "tls_key_file"];

/// What a connection is secured with, by files that are read when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Material {
    /// The params that say it, for messages.
    names: [&'static str; 3],
    authority: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

impl Material {
    /// The files of a CA, of a certificate and of its key, and the params that name them. Half an identity is none,
    /// and goes into `wrong`.
    pub(super) fn new(
        names: [&'static str; 3],
        [authority, certificate, key]: [Option<PathBuf>; 3],
        wrong: &mut Vec<String>,
    ) -> Self {
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                let [_, certificate, key] = names;
                wrong.push(format!("params: `{certificate}` and `{key}` belong together; one is missing"));
                None
            }
        };
        Self { names, authority, identity }
    }

    /// The same by [`MATERIAL`].
    pub(super) fn read(params: &mut Params<'_>) -> Self {
        let files = TLS.map(|name| params.place(name));
        Self::new(TLS, files, &mut params.wrong)
    }

    /// Whether a CA is named: others are then not trusted.
    pub(super) fn has_authority(&self) -> bool {
        self.authority.is_some()
    }

    /// Whether files say it, which may change.
    pub(super) fn is_of_files(&self) -> bool {
        self.authority.is_some() || self.identity.is_some()
    }

    /// What to connect with, for the files of now.
    pub(super) fn tls(&self) -> ClientTls {
        let file = |path: &PathBuf, param: &str| {
            Sourced::new(Input::File(path.clone()), Origin::Flag(format!("params: `{param}`")))
        };
        let [authority, certificate, key] = self.names;
        let identity = self.identity.as_ref();
        ClientTls {
            trust: self.authority.as_ref().map_or_else(Trust::system, |path| Trust::only(file(path, authority))),
            identity: identity.map(|(ours, its_key)| Pair::new(file(ours, certificate), file(its_key, key))),
            ..ClientTls::default()
        }
    }
}

/// Why a handshake failed, where an error is that at its bottom.
pub(super) fn refused(error: &(dyn Error + 'static), witness: &HandshakeObserver) -> Option<Refusal> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        // They come within one another, and `source` passes over the inner one.
        let mut io = error.downcast_ref::<io::Error>();
        while let Some(outer) = io {
            if outer.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
                return Some(Refusal::of_io(outer, witness));
            }
            io = outer.get_ref().and_then(|inner| inner.downcast_ref());
        }
        cause = error.source();
    }
    None
}

/// The last cause that has words, which says most.
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    let (mut cause, mut said) = (Some(error), String::new());
    while let Some(error) = cause {
        if let Some(status) = error.downcast_ref::<tonic::Status>()
            && status.source().is_none()
        {
            return status.message().to_owned();
        }
        let text = error.to_string();
        if !text.is_empty() {
            said = text;
        }
        cause = error.source();
    }
    said
}
