//! Maps DataFusion's errors to the kinds and messages that a caller sees.

use std::fmt;

use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::object_store::Error as StoreError;
use datafusion::sql::sqlparser::parser::ParserError;
use spiced_engine::{EngineError, ErrorKind};

/// Wraps an error of this crate for code that returns `DataFusionError`.
pub(crate) fn refusal(kind: ErrorKind, message: impl Into<String>) -> DataFusionError {
    DataFusionError::External(Box::new(EngineError::new(kind, message)))
}

/// An error in the statement itself.
pub(crate) fn invalid(message: impl Into<String>) -> EngineError {
    EngineError::new(ErrorKind::InvalidStatement, message)
}

/// The request to start the statement again with a smaller batch size.
#[derive(Debug)]
pub(crate) struct TooWide {
    pub(crate) rows: usize,
    /// The error for the caller if the statement cannot start again.
    pub(crate) error: EngineError,
}

impl fmt::Display for TooWide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for TooWide {}

fn too_wide(error: &DataFusionError) -> Option<&TooWide> {
    match error.find_root() {
        DataFusionError::External(inner) => inner.downcast_ref(),
        _ => None,
    }
}

/// Returns the batch size to start again with, if that is what `error` asks for.
pub(crate) fn smaller_batches(error: &DataFusionError) -> Option<usize> {
    too_wide(error).map(|asked| asked.rows)
}

/// Returns the error for the caller, if `error` asks for a new start.
pub(crate) fn cannot_start_again(error: &DataFusionError) -> Option<&EngineError> {
    too_wide(error).map(|asked| &asked.error)
}

/// Returns the kind and the message of `error`. An error that the caller cannot act on is logged in full, and the
/// caller gets a message without paths of the host.
pub(crate) fn engine_error(error: DataFusionError) -> EngineError {
    let error = match &error {
        DataFusionError::Collection(errors) if !errors.is_empty() => &errors[0],
        error => error,
    };
    let root = error.find_root();
    if let Some(own) = cannot_start_again(root) {
        return own.clone();
    }
    let kind = match root {
        DataFusionError::External(inner) => match inner.downcast_ref::<EngineError>() {
            Some(own) => return own.clone(),
            None => ErrorKind::Internal,
        },
        DataFusionError::ObjectStore(inner) => match inner.as_ref() {
            // An object store of this crate includes its reason.
            StoreError::PermissionDenied { source, .. } => match source.downcast_ref::<EngineError>() {
                Some(own) => return own.clone(),
                None => ErrorKind::Internal,
            },
            _ => ErrorKind::Internal,
        },
        DataFusionError::SQL(..)
        | DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::Configuration(_)
        | DataFusionError::Execution(_) => ErrorKind::InvalidStatement,
        DataFusionError::NotImplemented(_) => ErrorKind::Unsupported,
        DataFusionError::ParquetError(_) => ErrorKind::Unavailable,
        DataFusionError::ResourcesExhausted(_) => ErrorKind::Exhausted,
        DataFusionError::ArrowError(inner, _) => arrow_kind(inner),
        _ => ErrorKind::Internal,
    };
    match kind {
        ErrorKind::Exhausted => {
            // The text lists the memory use of other queries, which the caller must not see.
            tracing::info!(error = %root, "a query found no memory");
            let sentence = sentence(root);
            EngineError::new(
                kind,
                format!(
                    "the memory that all queries share is used up: {}; ask for less at once, or raise the limit",
                    exhausted(&sentence)
                ),
            )
        }
        ErrorKind::Internal | ErrorKind::Unavailable => {
            match root {
                DataFusionError::ArrowError(inner, _)
                    if matches!(inner.as_ref(), ArrowError::CsvError(_) | ArrowError::JsonError(_)) =>
                {
                    tracing::error!("a query failed: a file does not hold what the table's columns are");
                }
                _ => tracing::error!(error = %error, "a query failed for a reason that is not its own"),
            }
            EngineError::new(kind, internal_sentence(root))
        }
        _ => EngineError::new(kind, sentence(root)),
    }
}

/// Returns the cause of a failure in one line, for the log and for a data set's status.
pub(crate) fn reason(error: &DataFusionError) -> String {
    first_line(&sentence(error.find_root())).to_owned()
}

fn arrow_kind(error: &ArrowError) -> ErrorKind {
    match error {
        ArrowError::CastError(_)
        | ArrowError::ParseError(_)
        | ArrowError::ComputeError(_)
        | ArrowError::DivideByZero
        | ArrowError::ArithmeticOverflow(_)
        | ArrowError::InvalidArgumentError(_)
        | ArrowError::OffsetOverflowError(_) => ErrorKind::InvalidStatement,
        ArrowError::MemoryError(_) => ErrorKind::Exhausted,
        ArrowError::NotYetImplemented(_) => ErrorKind::Unsupported,
        ArrowError::CsvError(_) | ArrowError::JsonError(_) | ArrowError::ParquetError(_) => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

fn internal_sentence(root: &DataFusionError) -> String {
    match root {
        DataFusionError::ObjectStore(inner) => match inner.as_ref() {
            StoreError::NotFound { .. } => "a file that the table reads is gone".to_owned(),
            _ => "a file that the table reads could not be read; the server's log says which and why".to_owned(),
        },
        DataFusionError::ParquetError(_) | DataFusionError::IoError(_) => {
            "a file that the table reads could not be read; the server's log says why".to_owned()
        }
        DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
            // The original messages contain a row's data.
            ArrowError::CsvError(_) | ArrowError::JsonError(_) => {
                "a file does not hold what the table's columns are".to_owned()
            }
            ArrowError::ParquetError(_) => {
                "a file that the table reads could not be read; the server's log says why".to_owned()
            }
            _ => "the engine failed; the server's log says why".to_owned(),
        },
        _ => "the engine failed; the server's log says why".to_owned(),
    }
}

/// Returns the message in lower case, without the prefix that names DataFusion's type.
fn sentence(error: &DataFusionError) -> String {
    let text = match error {
        DataFusionError::SQL(inner, _) => match inner.as_ref() {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.clone(),
            ParserError::RecursionLimitExceeded => "the statement is nested too deeply".to_owned(),
        },
        DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
            ArrowError::CastError(text)
            | ArrowError::ParseError(text)
            | ArrowError::ComputeError(text)
            | ArrowError::ArithmeticOverflow(text)
            | ArrowError::InvalidArgumentError(text) => without_values(text),
            other => other.to_string(),
        },
        other => other.message().into_owned(),
    };
    plain(text.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or(&text))
}

/// Returns Arrow's message about a value that it cannot cast or compute, without the value, which may come from a row:
/// quoted text is removed, and so is every number except those of a type such as `Decimal128(10, 2)`.
pub(crate) fn without_values(text: &str) -> String {
    let text = first_line(text);
    let opens =
        |(at, letter): (usize, char)| matches!(letter, '\'' | '"') && !text[..at].ends_with(char::is_alphanumeric);
    let Some((first, _)) = text.char_indices().find(|found| opens(*found)) else { return without_numbers(text) };
    // A value may contain quotes too: everything between the first and the last quote is removed.
    let last = text[first + 1..].rfind(['\'', '"']).map_or(text.len() - 1, |last| first + 1 + last);
    let rest = text.get(last + 1..).unwrap_or_default();
    format!("{}'…'{}", without_numbers(&text[..first]), without_numbers(rest))
}

fn without_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    let (mut before, mut is_in_type) = (' ', false);
    while let Some(letter) = letters.next() {
        is_in_type = match letter {
            '(' => before.is_alphanumeric(),
            ')' => false,
            _ => is_in_type,
        };
        let begins = letter.is_ascii_digit() && !before.is_alphanumeric() && before != '_';
        before = letter;
        if !begins || is_in_type {
            out.push(letter);
            continue;
        }
        out.push('…');
        while let Some(more) = letters.next_if(|more| more.is_alphanumeric() || *more == '.') {
            before = more;
        }
    }
    out
}

/// Lowercases the first letter, unless the first word is a name, and removes a full stop at the end.
fn plain(text: &str) -> String {
    let text = text.trim().trim_end_matches('.');
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if first.is_uppercase() && (second.is_lowercase() || second == ' ') => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or(text)
}

/// Returns what could not be allocated, without the memory use of others: the pool's own message is the last line.
fn exhausted(text: &str) -> &str {
    text.lines().find_map(|line| line.strip_prefix("Error: ")).unwrap_or_else(|| first_line(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_is_in_a_sentence() {
        for (text, expected) in [
            (
                "Cannot cast string 'it's a secret' to value of Int32 type",
                "cannot cast string '…' to value of Int32 type",
            ),
            ("Can't cast value 300 to type Int8", "can't cast value … to type Int8"),
            (
                "Cannot cast to Decimal128(10, 2). Overflowing on 123.45",
                "cannot cast to Decimal128(10, 2). Overflowing on …",
            ),
            (
                "123.45 is too large to store in a Decimal128 of precision 5",
                "… is too large to store in a Decimal128 of precision …",
            ),
            ("Overflow happened on: -719162 * 86400000000000", "overflow happened on: -… * …"),
            ("regex parse error:\n    (secret\n    ^", "regex parse error:"),
            ("Divide by zero", "divide by zero"),
        ] {
            let seen = engine_error(ArrowError::CastError(text.into()).into()).to_string();
            assert!(seen.starts_with(expected), "{seen}");
            assert!(!["secret", "300", "719162", "123"].iter().any(|value| seen.contains(value)), "{seen}");
        }
    }

    #[test]
    fn each_class_and_its_sentence() {
        let cases: [(DataFusionError, ErrorKind, &str); 10] = [
            (DataFusionError::Plan("Table x not found.".into()), ErrorKind::InvalidStatement, "table x not found"),
            (
                DataFusionError::SQL(Box::new(ParserError::ParserError("Expected: a".into())), None),
                ErrorKind::InvalidStatement,
                "expected: a",
            ),
            (DataFusionError::NotImplemented("MERGE".into()), ErrorKind::Unsupported, "MERGE"),
            (
                DataFusionError::ResourcesExhausted("Failed to grow\ntop consumers: /tmp".into()),
                ErrorKind::Exhausted,
                "the memory that all queries share is used up: failed to grow; \
                 ask for less at once, or raise the limit",
            ),
            (
                DataFusionError::ResourcesExhausted(
                    "No room with top consumers as:\n  x had 1 MB\nError: no more for y".into(),
                ),
                ErrorKind::Exhausted,
                "the memory that all queries share is used up: no more for y; ask for less at once, or raise the limit",
            ),
            (
                DataFusionError::ArrowError(Box::new(ArrowError::DivideByZero), None),
                ErrorKind::InvalidStatement,
                "divide by zero error",
            ),
            (
                DataFusionError::Context("planning".into(), Box::new(DataFusionError::Plan("no".into()))),
                ErrorKind::InvalidStatement,
                "no",
            ),
            (
                DataFusionError::IoError(std::io::Error::other("/etc/secret")),
                ErrorKind::Internal,
                "a file that the table reads could not be read; the server's log says why",
            ),
            (
                DataFusionError::Internal("at /home/me".into()),
                ErrorKind::Internal,
                "the engine failed; the server's log says why",
            ),
            (refusal(ErrorKind::Denied, "not that").context("in a plan"), ErrorKind::Denied, "not that"),
        ];
        for (error, kind, message) in cases {
            let seen = engine_error(error);
            assert_eq!((seen.kind(), seen.to_string().as_str()), (kind, message));
        }
    }
}
