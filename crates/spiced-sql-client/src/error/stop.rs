//! Why output stops before its end.

use std::io;

use arrow_schema::ArrowError;
use spiced_formats::WriteError;

use crate::error::SqlError;

/// Why writing stops before the end of the result.
#[derive(Debug)]
pub(crate) enum Stop {
    Trouble(SqlError),
    /// Ctrl-C.
    Interrupted,
    /// The reader of the output has gone.
    Gone,
}

impl From<SqlError> for Stop {
    fn from(trouble: SqlError) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Gone,
            _ => Self::Trouble(SqlError::new(format!("the answer cannot be written: {error}"))),
        }
    }
}

impl From<ArrowError> for Stop {
    fn from(error: ArrowError) -> Self {
        Self::Trouble(SqlError::new(format!("the answer cannot be written: {error}")))
    }
}

impl From<WriteError> for Stop {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::To(error) => error.into(),
            other => Self::Trouble(SqlError::new(format!("the answer cannot be written: {other}"))),
        }
    }
}
