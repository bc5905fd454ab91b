//! The errors that keep the engine from starting, reported together, each cause once.

use std::fmt;
use std::sync::Arc;

use datafusion::error::DataFusionError;

/// Data sets that can never work as the pod describes them. Errors that may resolve later, such as a file that does not
/// exist yet, are not included.
#[derive(Debug, Clone, Default, thiserror::Error)]
pub struct StartError {
    causes: Vec<StartCause>,
}

/// One reason why the engine cannot start. Its text is one sentence that names the data set.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StartCause {
    /// The engine itself.
    #[error("the engine cannot start: {}", crate::error::reason(.0))]
    Engine(#[source] Arc<DataFusionError>),
    /// The description of a data set or view.
    #[error("data set `{name}`: {error}")]
    Dataset {
        /// The name as described.
        name: String,
        /// What is wrong.
        #[source]
        error: SpecError,
    },
}

/// What is wrong with the description of a data set or view.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part}: {reason}")]
pub struct SpecError {
    /// The part that is wrong.
    pub part: SpecPart,
    /// The reason, in one sentence.
    pub reason: String,
}

/// A part of the description of a data set or view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpecPart {
    /// Its name.
    Name,
    /// The connector, and what it reads.
    From,
    /// Whether it is writable.
    Access,
    /// The connector's parameters.
    Params,
    /// The declared columns.
    Columns,
    /// The query of a view.
    Sql,
}

impl SpecPart {
    pub(crate) fn error(self, reason: impl Into<String>) -> SpecError {
        SpecError { part: self, reason: reason.into() }
    }
}

impl fmt::Display for SpecPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "name",
            Self::From => "from",
            Self::Access => "access",
            Self::Params => "params",
            Self::Columns => "columns",
            Self::Sql => "sql",
        })
    }
}

impl StartError {
    /// Each cause.
    pub fn causes(&self) -> &[StartCause] {
        &self.causes
    }

    pub(crate) fn engine(error: DataFusionError) -> Self {
        Self { causes: vec![StartCause::Engine(Arc::new(error))] }
    }

    pub(crate) fn add(&mut self, dataset: &str, error: SpecError) {
        self.causes.push(StartCause::Dataset { name: dataset.to_owned(), error });
    }

    pub(crate) fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.causes.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, cause) in self.causes.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            cause.fmt(f)?;
        }
        Ok(())
    }
}
