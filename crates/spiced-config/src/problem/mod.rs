//! Problems of a configuration: each one once, with its place and its fix.

pub(crate) mod shown;

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use tls_core::Origin;
pub(crate) use tls_core::suggest::nearest;

/// A problem of a configuration.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The origin of the value; `None` if a value is missing.
    pub origin: Option<Origin>,
    /// The problem: one sentence, lower case, no full stop, no secret.
    pub message: String,
    /// The line of the file without anything that may be a value, and a mark below the column.
    pub excerpt: Option<String>,
    /// The fix.
    pub hint: Option<String>,
    /// The underlying error, which the message contains.
    pub source: Option<Arc<dyn Error + Send + Sync>>,
}

/// Equal problems are reported once, whatever their causes.
impl PartialEq for Problem {
    fn eq(&self, other: &Self) -> bool {
        (&self.origin, &self.message, &self.excerpt, &self.hint)
            == (&other.origin, &other.message, &other.excerpt, &other.hint)
    }
}

impl Eq for Problem {}

impl Problem {
    pub(crate) fn new(origin: impl Into<Option<Origin>>, message: impl Into<String>) -> Self {
        Self { origin: origin.into(), message: message.into(), excerpt: None, hint: None, source: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn caused_by(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(Origin::File { file, key, line, column }) if key.is_empty() => {
                write!(f, "{}:{line}:{column}: {}", file.display(), self.message)?;
            }
            Some(origin @ Origin::File { line, .. }) => write!(f, "{origin} (line {line}): {}", self.message)?,
            Some(origin) => write!(f, "{origin}: {}", self.message)?,
            None => f.write_str(&self.message)?,
        }
        match &self.excerpt {
            Some(excerpt) => write!(f, "\n{excerpt}"),
            None => Ok(()),
        }
    }
}

impl Error for Problem {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

/// All problems of a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub Vec<Problem>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// The source is that of the first problem that has one.
impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.iter().find_map(Error::source)
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

/// Sorts the problems and removes duplicates: those of the command line and the environment, then those of the file, by
/// line.
pub(crate) fn in_order(problems: Vec<Problem>) -> Vec<Problem> {
    let mut seen = HashSet::new();
    let mut once = problems;
    once.retain(|problem| seen.insert(format!("{problem}\0{:?}", problem.hint)));
    once.sort_by_key(|problem| match &problem.origin {
        Some(Origin::File { line, column, .. }) => (*line, *column),
        _ => (0, 0),
    });
    once
}
