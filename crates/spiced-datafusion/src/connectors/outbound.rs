//! Connections to other servers: the TLS material that the pod names for them, and the causes of failures.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use spiced_certs::outbound::{ClientTls, HandshakeObserver, Refusal, Trust};
use spiced_certs::{Input, Pair};
use tls_core::{Origin, Sourced};

use super::params::Params;
use crate::engine::start_error::{SpecError, SpecPart};

/// The params of [`Material::read`]: the trusted CAs, and the client certificate with its key.
pub(super) const MATERIAL: &[&str] = &TLS;

const TLS: [&str; 3] = ["tls_ca_file", "tls_certificate_file", "tls_key_file"];

/// The TLS material of a connection; its files are read when the connection is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Material {
    /// The params that name the files, for messages.
    names: [&'static str; 3],
    authority: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

impl Material {
    /// Takes the files of a CA, a certificate and its key, and the params that name them. A certificate without a key,
    /// or a key without a certificate, is an error and is added to `wrong`.
    pub(super) fn new(
        names: [&'static str; 3],
        [authority, certificate, key]: [Option<PathBuf>; 3],
        wrong: &mut Vec<SpecError>,
    ) -> Self {
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                let [_, certificate, key] = names;
                wrong.push(
                    SpecPart::Params.error(format!("`{certificate}` and `{key}` belong together; one is missing")),
                );
                None
            }
        };
        Self { names, authority, identity }
    }

    /// Reads the files that the [`MATERIAL`] params name.
    pub(super) fn read(params: &mut Params<'_>) -> Self {
        let files = TLS.map(|name| params.place(name));
        Self::new(TLS, files, &mut params.wrong)
    }

    /// Whether a CA is named: other CAs are then not trusted.
    pub(super) fn has_authority(&self) -> bool {
        self.authority.is_some()
    }

    /// Whether files, which may change, are named.
    pub(super) fn is_of_files(&self) -> bool {
        self.authority.is_some() || self.identity.is_some()
    }

    /// Returns the TLS configuration for the current files.
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

/// Returns why a handshake failed, if a failed handshake is the root cause of an error.
pub(super) fn refused(error: &(dyn Error + 'static), observer: &HandshakeObserver) -> Option<Refusal> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        // I/O errors are nested, and `source` skips the inner one.
        let mut io = error.downcast_ref::<io::Error>();
        while let Some(outer) = io {
            if outer.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
                return Some(Refusal::of_io(outer, observer));
            }
            io = outer.get_ref().and_then(|inner| inner.downcast_ref());
        }
        cause = error.source();
    }
    None
}

/// Returns the innermost cause with a message, which is the most specific one.
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
