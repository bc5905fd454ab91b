//! Rows for a table, in bulk: what a driver sends where it would otherwise write many `INSERT`s.

use std::fmt;

use crate::Execution;

/// Rows, and the table that they are for.
#[derive(Debug)]
pub struct Ingest {
    /// The table.
    pub table: TablePath,
    /// What happens where there is no such table.
    pub if_missing: IfMissing,
    /// What happens where there is one.
    pub if_exists: IfExists,
    /// The rows. Columns are told by name.
    pub rows: Execution,
    /// True for what comes all day long, as telemetry does: a [`StatementObserver`](crate::Witness) is told of it only where it is
    /// denied or fails.
    pub routine: bool,
}

/// A table by name, as far as the caller says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePath {
    /// The catalog; the session's own where it is not said.
    pub catalog: Option<String>,
    /// The schema; the session's own where it is not said.
    pub schema: Option<String>,
    /// The table, exactly as it is called.
    pub name: String,
}

/// What happens where the table is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfMissing {
    /// Nothing: it is an error.
    Fail,
    /// It is made, with the columns of the rows.
    Create,
}

/// What happens where the table is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfExists {
    /// Nothing: it is an error.
    Fail,
    /// The rows are added, all or none.
    Append,
    /// The table is replaced by one with the columns of the rows.
    Replace,
}

impl fmt::Display for TablePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.catalog, &self.schema].into_iter().flatten() {
            write!(f, "{part}.")?;
        }
        f.write_str(&self.name)
    }
}
