//! The formats and their media types.

/// A format for rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Rows as objects in one array, on one line.
    Json,
    /// The Arrow IPC stream format.
    Arrow,
    /// RFC 4180 with a header line; nested values as JSON text.
    Csv,
    /// A table for people to read.
    Table,
    /// One JSON object per line.
    Ndjson,
    /// The format of the Spice SDKs: schema, rows and their number in one object.
    Spice,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 6] = [Self::Json, Self::Arrow, Self::Csv, Self::Table, Self::Ndjson, Self::Spice];

    /// Returns the media type, without parameters.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Csv => "text/csv",
            Self::Table => "text/plain",
            Self::Ndjson => "application/x-ndjson",
            Self::Spice => "application/vnd.spiceai.sql.v1+json",
        }
    }
}
