//! Why a store could not answer, with the way out. No value, and nothing that the store is asked
//! with, is in any of it.

use std::path::PathBuf;
use std::time::Duration;

/// Why a store could not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No secret of this store could have such a name.
    #[error("`{key}` {why}")]
    Key {
        /// The name.
        key: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file or directory of the store cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// A file of the store is not written as it should be.
    #[error("{}:{line}: {what}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong; nothing of the file's text.
        what: &'static str,
        /// What to change.
        hint: &'static str,
    },
    /// The store did not answer in time.
    #[error("no answer within {within:?}{}", at(endpoint))]
    Timeout {
        /// How long it was waited for.
        within: Duration,
        /// Who was asked, where that is known.
        endpoint: Option<String>,
    },
    /// The declaration asks for something that no store does.
    #[error("{message}")]
    Declaration {
        /// What is wrong with it.
        message: String,
        /// What to change.
        hint: String,
    },
    /// No connection, or one that broke.
    #[error("cannot reach {endpoint}: {cause}")]
    Unreachable {
        /// Scheme, host and port.
        endpoint: String,
        /// The innermost cause.
        cause: String,
        /// What to do.
        hint: String,
    },
    /// No question could be put: there are no credentials, say.
    #[error("{endpoint} cannot be asked: {why}")]
    Unasked {
        /// Scheme, host and port.
        endpoint: String,
        /// Why.
        why: String,
        /// What to do.
        hint: String,
    },
    /// The server answers, and says no.
    #[error("{endpoint} refuses: {why}")]
    Refused {
        /// Scheme, host and port.
        endpoint: String,
        /// What it says.
        why: String,
        /// What to do.
        hint: String,
    },
    /// The secret that the declaration names is not there.
    #[error("there is no {what} at {endpoint}")]
    Absent {
        /// The secret.
        what: String,
        /// Scheme, host and port.
        endpoint: String,
        /// What to do.
        hint: String,
    },
    /// What the server answers is not what it should be.
    #[error("the answer of {endpoint} cannot be used: {why}")]
    Answer {
        /// Scheme, host and port.
        endpoint: String,
        /// What is wrong with it; nothing of the answer.
        why: String,
    },
    /// The keyring of this machine cannot be used.
    #[error("the keyring cannot be used: {why}")]
    Keyring {
        /// What the system says.
        why: String,
        /// What to do.
        hint: String,
    },
}

impl StoreError {
    /// A declaration that cannot be, with the usual way out.
    pub(crate) fn declaration(message: impl Into<String>) -> Self {
        Self::Declaration { message: message.into(), hint: "change `from` or `params`, or take the store out".into() }
    }

    /// What to change, in one sentence.
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
                "see that the server is well and that nothing between here and there swallows packets"
            }
            Self::Answer { .. } => "see that the address is that of the store itself, not of a proxy or a login page",
            Self::Unreadable { .. } => "check the path, and that this user may read it",
            _ => "make it answer, or refer to another store",
        }
    }

    /// True where the same question may well be answered a moment later.
    #[cfg(any(feature = "hashicorp_vault", feature = "kubernetes"))]
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            // Trust does not come by itself, nor does a server stop to redirect.
            Self::Unreachable { cause, .. } => !cause.contains("certificate") && !cause.contains("redirects"),
            Self::Timeout { .. } => true,
            _ => false,
        }
    }
}

fn at(endpoint: &Option<String>) -> String {
    endpoint.as_ref().map_or_else(String::new, |endpoint| format!(" from {endpoint}"))
}
