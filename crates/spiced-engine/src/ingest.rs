//! Bulk inserts: rows that a driver sends in place of many `INSERT` statements.

use std::fmt;

use crate::Execution;

/// Rows, and the table to insert them into.
#[derive(Debug)]
pub struct Ingest {
    /// The table.
    pub table: TablePath,
    /// What happens if the table does not exist.
    pub if_missing: IfMissing,
    /// What happens if the table exists.
    pub if_exists: IfExists,
    /// The rows. Columns are matched by name.
    pub rows: Execution,
    /// True for continuous streams such as telemetry: a [`StatementObserver`](crate::StatementObserver) is notified
    /// only if the insert is denied or fails.
    pub routine: bool,
}

/// The name of a table, as far as the caller qualifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePath {
    /// The catalog; the session's default if it is absent.
    pub catalog: Option<String>,
    /// The schema; the session's default if it is absent.
    pub schema: Option<String>,
    /// The table, matched exactly.
    pub name: String,
}

/// What happens if the table does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfMissing {
    /// The insert fails.
    Fail,
    /// The table is created with the columns of the rows.
    Create,
}

/// What happens if the table exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfExists {
    /// The insert fails.
    Fail,
    /// The rows are appended, all or none.
    Append,
    /// The table is replaced by a new one with the columns of the rows.
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
