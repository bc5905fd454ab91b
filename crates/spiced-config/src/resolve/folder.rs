//! Paths of settings.

use std::path::{Path, PathBuf};

use tls_core::{Origin, Sourced};

use crate::problem::Problem;
use crate::problem::shown::may_be_secret;

/// The pod's directory, which relative paths in the pod are resolved against. Relative paths on the command line and in
/// the environment are resolved against the current directory.
pub(super) struct Folder<'a>(pub(super) &'a Path);

impl Folder<'_> {
    /// Returns a path that errors may repeat.
    pub(super) fn readable(&self, text: Sourced<String>, problems: &mut Vec<Problem>) -> Option<PathBuf> {
        let origin = text.origin.clone();
        let is_secret = may_be_secret(&text.value);
        let path = self.path(text);
        if is_secret && !path.exists() {
            let problem = Problem::new(origin, "takes paths; this is none, and it is not shown: it may be a key");
            problems.push(problem.hint("write the path of a file"));
            return None;
        }
        Some(path)
    }

    pub(super) fn path(&self, text: Sourced<String>) -> PathBuf {
        let path = PathBuf::from(text.value.trim_end_matches(['\n', '\r']));
        match text.origin {
            Origin::File { .. } => self.0.join(path),
            _ => path,
        }
    }
}
