//! Tables on the server, by name and with their keys.

use super::connect::Pool;
use super::keys::{Keys, Place};
use crate::connectors::source::quoted;

/// A table or view, by its PostgreSQL name.
#[derive(Debug, Clone)]
pub(super) struct Relation {
    pub(super) schema: Option<String>,
    pub(super) table: String,
}

impl Relation {
    /// Returns the quoted name for use in a statement.
    pub(super) fn quoted(&self) -> String {
        let table = quoted(&self.table);
        self.schema.as_ref().map_or(table.clone(), |schema| format!("{}.{table}", quoted(schema)))
    }
}

/// A PostgreSQL table with its keys.
#[derive(Clone, Copy)]
pub(super) struct Keyed<'t> {
    pub(super) pool: &'t Pool,
    pub(super) keys: &'t Keys,
}

impl Keyed<'_> {
    /// Whether `other` is the table that `to` denotes on this table's server.
    pub(super) fn refers_to(&self, to: &Place, other: &Self) -> bool {
        *to == other.keys.place && self.pool.is_of_one_server(other.pool)
    }
}
