//! The errors that keep the engine from starting, reported together, each cause once.

use std::fmt;

use datafusion::error::DataFusionError;

/// Data sets that can never work as the pod describes them. Errors that may resolve later, such as a file that does not
/// exist yet, are not included.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
pub struct StartError {
    causes: Vec<String>,
}

impl StartError {
    /// Each cause, in one sentence that names its data set.
    pub fn causes(&self) -> &[String] {
        &self.causes
    }

    pub(crate) fn engine(error: &DataFusionError) -> Self {
        Self { causes: vec![format!("the engine cannot start: {}", crate::error::reason(error))] }
    }

    pub(crate) fn add(&mut self, dataset: &str, cause: impl fmt::Display) {
        self.causes.push(format!("data set `{dataset}`: {cause}"));
    }

    pub(crate) fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.causes.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.causes.join("\n"))
    }
}
