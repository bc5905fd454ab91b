//! Why a file has no rows of one schema.

use std::fmt;

/// The reason, which follows the name of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::connectors) struct ContentError(String);

impl fmt::Display for ContentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ContentError {}

impl From<String> for ContentError {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

pub(super) fn unreadable(error: &std::io::Error) -> ContentError {
    ContentError(format!(" cannot be read: {}", error.kind()))
}
