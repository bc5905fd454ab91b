//! Errors, as they are shown to a user.

pub(crate) mod failure;
pub(crate) mod stop;

use std::error::Error;

use arrow_flight::error::FlightError;
use tls_core::Origin;
use tonic::{Code, Status};

use crate::connect::error::Unreachable;

/// An error message and a hint how to fix it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SqlError {
    pub(crate) what: String,
    pub(crate) hint: Option<String>,
}

impl SqlError {
    /// Creates an error without a hint.
    pub(crate) fn new(what: impl ToString) -> Self {
        Self { what: what.to_string(), hint: None }
    }

    /// Creates an error with a hint.
    pub(crate) fn hinted(what: impl ToString, hint: impl Into<String>) -> Self {
        Self { what: what.to_string(), hint: Some(hint.into()) }
    }

    /// Adds the position in a script.
    #[must_use]
    pub(crate) fn at(self, place: &str) -> Self {
        Self { what: format!("{place}: {}", self.what), hint: self.hint }
    }

    /// Returns the text that is printed after `error: `.
    pub(crate) fn text(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{}\nhint: {hint}", self.what),
            None => self.what.clone(),
        }
    }

    /// Creates an error from the server's status. `key` is the origin of the API key that was sent.
    pub(crate) fn answered(status: &Status, key: Option<&Origin>) -> Self {
        let what = match status.message() {
            "" => status.code().description().to_ascii_lowercase(),
            message => message.to_owned(),
        };
        match (status.code(), key) {
            (Code::Unauthenticated, Some(key)) => {
                Self::hinted(what, format!("the server does not accept the key of {key}"))
            }
            (Code::Unauthenticated, None) => Self::hinted(
                what,
                "give a key with SPICED_SQL_API_KEY, or a certificate with --client-certificate-file",
            ),
            _ => Self::new(what),
        }
    }
}

impl From<Unreachable> for SqlError {
    fn from(unreachable: Unreachable) -> Self {
        Self::hinted(&unreachable, unreachable.hint())
    }
}

/// Returns the gRPC status of an error; an error that has no status becomes an internal one.
pub(crate) fn status(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => Status::internal(format!("what the server sent cannot be read: {other}")),
    }
}

/// Finds an error of type `E` among the causes of `error`.
pub(crate) fn cause<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    causes(error).find_map(|error| error.downcast_ref())
}

/// Returns the text of the root cause, which is the most specific.
pub(crate) fn root(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}
