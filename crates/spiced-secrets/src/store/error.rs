//! Errors of secret stores, each with a fix. No error contains any part of a value or of the credentials for a store.

use std::path::PathBuf;
use std::time::Duration;

use spiced_files::Unreadable;

/// Why a store could not answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The key is not a valid name for a secret of this store.
    #[error("`{key}` {why}")]
    Key {
        /// The key.
        key: String,
        /// Why the name is invalid.
        why: &'static str,
    },
    /// A file or directory of the store cannot be read.
    #[error("cannot read {:?}: {}", .0.path, .0.reason)]
    Unreadable(Unreadable),
    /// A file of the store has a syntax error.
    #[error("{}:{line}: {what}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The error; it contains nothing of the file's text.
        what: &'static str,
        /// The fix.
        hint: &'static str,
    },
    /// The store did not answer in time.
    #[error("no answer within {within:?}{}", at(endpoint))]
    Timeout {
        /// The timeout.
        within: Duration,
        /// The address that was queried, if known.
        endpoint: Option<String>,
    },
    /// The declaration is invalid.
    #[error("{message}")]
    Declaration {
        /// The error.
        message: String,
        /// The fix.
        hint: String,
    },
    /// The connection could not be established, or broke.
    #[error("cannot reach {endpoint}: {cause}")]
    Unreachable {
        /// Scheme, host and port.
        endpoint: String,
        /// The root cause.
        cause: String,
        /// The fix.
        hint: String,
    },
    /// No request could be sent, for example because there are no credentials.
    #[error("cannot query {endpoint}: {why}")]
    Unasked {
        /// Scheme, host and port.
        endpoint: String,
        /// The reason.
        why: String,
        /// The fix.
        hint: String,
    },
    /// The server refused the request.
    #[error("{endpoint} refuses: {why}")]
    Refused {
        /// Scheme, host and port.
        endpoint: String,
        /// The server's reason.
        why: String,
        /// The fix.
        hint: String,
    },
    /// The secret that the declaration names does not exist.
    #[error("there is no {what} at {endpoint}")]
    Absent {
        /// The secret.
        what: String,
        /// Scheme, host and port.
        endpoint: String,
        /// The fix.
        hint: String,
    },
    /// The server's response is invalid.
    #[error("the answer of {endpoint} cannot be used: {why}")]
    Answer {
        /// Scheme, host and port.
        endpoint: String,
        /// The error; it contains nothing of the response.
        why: String,
    },
    /// The keyring of this machine cannot be used.
    #[error("the keyring cannot be used: {why}")]
    Keyring {
        /// The error of the operating system.
        why: String,
        /// The fix.
        hint: String,
    },
}

impl StoreError {
    /// Returns the error for an invalid declaration, with the usual fix.
    pub(crate) fn declaration(message: impl Into<String>) -> Self {
        Self::Declaration { message: message.into(), hint: "change `from` or `params`, or remove the store".into() }
    }

    /// Returns the fix, in one sentence.
    pub fn hint(&self) -> &str {
        match self {
            Self::Declaration { hint, .. }
            | Self::Unreachable { hint, .. }
            | Self::Unasked { hint, .. }
            | Self::Refused { hint, .. }
            | Self::Absent { hint, .. }
            | Self::Keyring { hint, .. } => hint,
            Self::Syntax { hint, .. } => hint,
            Self::Timeout { endpoint: Some(_), .. } => {
                "check that the server is healthy and that nothing on the network path drops packets"
            }
            Self::Answer { .. } => "check that the address is that of the store itself, not of a proxy or a login page",
            Self::Unreadable(error) => &error.fix,
            _ => "make it available, or refer to another store",
        }
    }

    /// Returns true if the same request may succeed a moment later.
    #[cfg(any(feature = "hashicorp_vault", feature = "kubernetes"))]
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            // Trust problems and redirects are permanent.
            Self::Unreachable { cause, .. } => !cause.contains("certificate") && !cause.contains("redirects"),
            Self::Timeout { .. } => true,
            _ => false,
        }
    }
}

fn at(endpoint: &Option<String>) -> String {
    endpoint.as_ref().map_or_else(String::new, |endpoint| format!(" from {endpoint}"))
}
