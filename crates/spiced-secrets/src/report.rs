//! What came of resolving: which store answered, or every failure in one report.

use std::fmt;

use tls_core::Origin;

use crate::Reference;

/// What came of one reference; for `spiced secrets check`. Never a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// Where the reference is written.
    pub origin: Origin,
    /// The reference.
    pub reference: Reference,
    /// The names of the stores that were asked, in order.
    pub asked: Vec<String>,
    /// The name of the store that answered, or why none did.
    pub outcome: Result<String, Unresolved>,
}

/// Why a reference has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unresolved {
    /// Whose fault it is.
    pub kind: FailureKind,
    /// What is wrong: one sentence, lower case, no full stop.
    pub problem: String,
    /// What to do.
    pub hint: String,
}

/// Whose fault it is that a reference has no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The stores answered, and none has it (or its value is empty, or there is no such store).
    Missing,
    /// A store could not say.
    Unreachable,
}

/// One reference that has no value, or one store that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
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

/// Every failure: first the stores that cannot be used, then the references in the order of their
/// values. `Display` has a line for each.
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
