//! Helpers of the commands for primary and foreign keys.

use std::sync::Arc;

use arrow_array::{ArrayRef, StringArray};
use spiced_engine::TableInfo;

/// The table that a request names. An absent catalog or schema matches any.
pub(crate) struct KeyQuery<'a>(pub(crate) Option<&'a str>, pub(crate) Option<&'a str>, pub(crate) &'a str);

impl KeyQuery<'_> {
    /// Returns whether the request names this table.
    pub(crate) fn is(&self, [catalog, schema, name]: [&str; 3]) -> bool {
        let Self(wanted, within, table) = self;
        wanted.is_none_or(|wanted| wanted == catalog) && within.is_none_or(|within| within == schema) && *table == name
    }
}

/// Returns the catalog, the schema and the name of a table.
pub(crate) fn place(table: &TableInfo) -> [&str; 3] {
    [&table.catalog, &table.schema, &table.name]
}

/// Returns a column of texts.
pub(crate) fn texts<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}
