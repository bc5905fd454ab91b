//! The output formats of the prompt.

use clap::ValueEnum;

/// The names of the output formats.
pub(crate) const FORMATS: [&str; 4] = ["table", "csv", "json", "ndjson"];

/// The format of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table, as wide as its first rows need
    Table,
    /// RFC 4180 with a header line; nested values as JSON text
    Csv,
    /// An array of objects, on one line
    Json,
    /// One object per line
    Ndjson,
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        ValueEnum::from_str(text, true).map_err(|_| format!("there is no format `{text}`: {}", FORMATS.join(", ")))
    }
}
