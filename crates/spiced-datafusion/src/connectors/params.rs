//! The params of a data set that lies elsewhere, and the TLS material among them.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use spiced_certs::client::{ClientTls, Refusal, Trust, Witness};
use spiced_certs::{Input, Pair};
use tls_core::{Origin, Secret, Sourced};

use super::text;
use crate::DatasetSpec;

/// The params of [`Material`].
pub(super) const MATERIAL: &[&str] = &["tls_ca_file", "tls_certificate_file", "tls_key_file"];

/// What a connection is secured with, by files that are read when it is made.
#[derive(Debug, Clone)]
pub(super) struct Material {
    authority: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

impl Material {
    pub(super) fn read(params: &mut Params<'_>) -> Self {
        let (authority, certificate) = (params.place("tls_ca_file"), params.place("tls_certificate_file"));
        let identity = match (certificate, params.place("tls_key_file")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => {
                params.refuse("`tls_certificate_file` and `tls_key_file` belong together; one is missing");
                None
            }
        };
        Self { authority, identity }
    }

    /// Whether files say it, which may change.
    pub(super) fn is_of_files(&self) -> bool {
        self.authority.is_some() || self.identity.is_some()
    }

    pub(super) fn tls(&self) -> ClientTls {
        let file = |path: &PathBuf, param: &str| {
            Sourced::new(Input::File(path.clone()), Origin::Flag(format!("params: `{param}`")))
        };
        ClientTls {
            trust: self.authority.as_ref().map_or_else(Trust::system, |path| Trust::only(file(path, "tls_ca_file"))),
            identity: self.identity.as_ref().map(|(certificate, key)| {
                Pair::new(file(certificate, "tls_certificate_file"), file(key, "tls_key_file"))
            }),
            ..ClientTls::default()
        }
    }
}

/// The params of a data set, and what is wrong with them.
pub(super) struct Params<'a> {
    pub(super) spec: &'a DatasetSpec,
    pub(super) wrong: Vec<String>,
}

impl<'a> Params<'a> {
    pub(super) fn of(spec: &'a DatasetSpec) -> Self {
        Self { spec, wrong: Vec::new() }
    }

    pub(super) fn refuse(&mut self, why: &str) {
        self.wrong.push(format!("params: {why}"));
    }

    pub(super) fn given(&self, name: &str) -> Option<&'a Secret> {
        self.spec.params.get(name)
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.read(name, "a value", |value| Some(value.to_owned()).filter(|value| !value.is_empty()))
    }

    /// The text of a secret, for a builder that keeps it.
    pub(super) fn secret(&mut self, name: &str) -> Option<String> {
        self.text(name)
    }

    /// A file, from the pod's folder.
    pub(super) fn place(&mut self, name: &str) -> Option<PathBuf> {
        self.text(name).map(|path| self.spec.folder.join(path))
    }

    pub(super) fn read<T>(&mut self, name: &str, wanted: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let value = match text(name, self.given(name)?) {
            Ok(value) => value.trim(),
            Err(why) => {
                self.wrong.push(why);
                return None;
            }
        };
        let read = read(value);
        if read.is_none() {
            self.refuse(&format!("`{name}` wants {wanted}"));
        }
        read
    }
}

/// Why a handshake failed, where an error is that at its bottom.
pub(super) fn refused(error: &(dyn Error + 'static), witness: &Witness) -> Option<Refusal> {
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
