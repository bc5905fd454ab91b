//! What came of resolving: which store answered, or every failure in one report.

use std::fmt;

use tls_core::Origin;

use crate::Reference;

/// What came of one reference; for `spiced secrets check`. Never a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Where the reference is written.
    pub origin: Origin,
    /// The reference.
    pub reference: Reference,
    /// The name of the store that answered, or why none did.
    pub outcome: Result<String, ResolveError>,
}

/// One reference that has no value, or one store that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {subject}: {problem}; {hint}")]
pub struct ResolveError {
    /// Where it is written.
    pub origin: Origin,
    /// The reference or the store that it is about, as written.
    pub subject: String,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub hint: String,
}

/// Every failure, in the order of the values; `Display` has a line for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolveErrors(pub Vec<ResolveError>);

impl fmt::Display for ResolveErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ResolveErrors {}
