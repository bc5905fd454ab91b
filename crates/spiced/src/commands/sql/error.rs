//! What went wrong, as a person reads it.

use std::error::Error;

use arrow_flight::error::FlightError;
use tls_core::Origin;
use tonic::{Code, Status};

use super::connect_error::Unreachable;

/// A sentence, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SqlError {
    pub(crate) what: String,
    pub(crate) hint: Option<String>,
}

impl SqlError {
    /// Without a hint.
    pub(crate) fn new(what: impl ToString) -> Self {
        Self { what: what.to_string(), hint: None }
    }

    /// With one.
    pub(crate) fn hinted(what: impl ToString, hint: impl Into<String>) -> Self {
        Self { what: what.to_string(), hint: Some(hint.into()) }
    }

    /// Says where in a script it happened.
    #[must_use]
    pub(crate) fn at(self, place: &str) -> Self {
        Self { what: format!("{place}: {}", self.what), hint: self.hint }
    }

    /// As it is printed, after `error: `.
    pub(crate) fn text(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{}\nhint: {hint}", self.what),
            None => self.what.clone(),
        }
    }

    /// What a server answered. `key` is where the key came from that was sent.
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

/// The status that an error is, or that stands for what cannot be read.
pub(crate) fn status(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => Status::internal(format!("what the server sent cannot be read: {other}")),
    }
}

/// Finds an error of this kind among the causes of `error`.
pub(crate) fn cause<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    causes(error).find_map(|error| error.downcast_ref())
}

/// The last of the causes, which says most.
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
