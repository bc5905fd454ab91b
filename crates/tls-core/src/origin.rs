//! Where a value came from, so that messages can state it.

use std::fmt;
use std::path::PathBuf;

/// The origin of a value.
///
/// `Display` gives what users see: `--tls-key-file`, `SPICED_RUNTIME__TLS__KEY`, `spicepod.yaml: runtime.tls.key`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// Not set anywhere: the built-in default.
    Default,
    /// Set by the program that embeds these crates.
    Program,
    /// A command line option, with its dashes.
    Flag(String),
    /// An environment variable, by name.
    Variable(String),
    /// A key in a file.
    File {
        /// The file's name.
        file: PathBuf,
        /// The dotted path of keys, `runtime.tls.key`; empty for the whole file.
        key: String,
        /// The line, counted from 1.
        line: usize,
        /// The column, counted from 1.
        column: usize,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            Self::Program => f.write_str("the program"),
            Self::Flag(name) | Self::Variable(name) => f.write_str(name),
            Self::File { file, key, line, .. } if key.is_empty() => write!(f, "{}:{line}", file.display()),
            Self::File { file, key, .. } => write!(f, "{}: {key}", file.display()),
        }
    }
}

/// A value and its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// The origin of the value.
    pub origin: Origin,
}

impl<T> Sourced<T> {
    /// Pairs a value with its origin.
    pub fn new(value: T, origin: Origin) -> Self {
        Self { value, origin }
    }

    /// Maps the value and keeps the origin.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Sourced<U> {
        Sourced { value: f(self.value), origin: self.origin }
    }
}
