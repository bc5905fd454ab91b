//! The results of resolving: which store answered, or a report of every failure.

use std::fmt;

use tls_core::Origin;

use crate::Reference;

/// The result for one reference, for `spiced secrets check`. It never contains a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// Where the reference is written.
    pub origin: Origin,
    /// The reference.
    pub reference: Reference,
    /// The names of the stores that were queried, in order.
    pub asked: Vec<String>,
    /// The name of the store that answered, or why none did.
    pub outcome: Result<String, Unresolved>,
}

/// Why a reference has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unresolved {
    /// The kind of failure.
    pub kind: FailureKind,
    /// The problem, in one sentence, lower case, without a full stop.
    pub problem: String,
    /// The fix.
    pub hint: String,
}

/// The kind of failure that left a reference without a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The stores answered, and no store has the key (or its value is empty, or the named store does not exist).
    Missing,
    /// A store could not answer.
    Unreachable,
}

/// One reference without a value, or one store that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{origin}: {subject}: {problem}; {hint}")]
pub struct ResolveError {
    /// Where the reference or store is written.
    pub origin: Origin,
    /// The reference or store concerned, as written.
    pub subject: String,
    /// The problem.
    pub problem: String,
    /// The fix.
    pub hint: String,
}

/// Every failure: first the stores that cannot be used, then the references in the order of their values. `Display`
/// writes one line for each.
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
