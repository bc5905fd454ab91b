//! The params of remote data sets.

use std::path::PathBuf;

use tls_core::Secret;

use crate::DatasetSpec;
use crate::connectors::source::text;
use crate::engine::start_error::{SpecError, SpecPart};

/// The params of a data set, and the errors found in them.
pub(super) struct Params<'a> {
    pub(super) spec: &'a DatasetSpec,
    pub(super) wrong: Vec<SpecError>,
}

impl<'a> Params<'a> {
    pub(super) fn of(spec: &'a DatasetSpec) -> Self {
        Self { spec, wrong: Vec::new() }
    }

    pub(super) fn refuse(&mut self, why: &str) {
        self.wrong.push(SpecPart::Params.error(why));
    }

    pub(super) fn given(&self, name: &str) -> Option<&'a Secret> {
        self.spec.params.get(name)
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.read(name, "a value", |value| Some(value.to_owned()).filter(|value| !value.is_empty()))
    }

    /// Returns a file path, resolved against the pod directory.
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
