//! The names of data sets: which names are valid, and which table a reference in SQL denotes.

use std::fmt;

use datafusion::common::{ResolvedTableReference, TableReference};
use datafusion::execution::context::SessionState;

/// The catalog of every pod.
pub(crate) const CATALOG: &str = "spice";
/// The schema of a data set whose name includes none.
pub(crate) const DEFAULT_SCHEMA: &str = "public";
/// The schema of the program's own tables.
pub(crate) const SYSTEM_SCHEMA: &str = "runtime";
/// The maximum length of a schema's or table's name, in bytes; that of PostgreSQL.
const MAX_NAME: usize = 63;

/// The schema and the name of a table in the pod's catalog.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TableName {
    pub(crate) schema: String,
    pub(crate) table: String,
}

/// Why a name is invalid; the text follows the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    #[error("has more than two parts; a name is `table` or `schema.table`")]
    Parts,
    #[error("lies in `information_schema`, which SQL keeps for itself")]
    InformationSchema,
    #[error("lies in `runtime`, where the program speaks of itself")]
    System,
    #[error("is empty, or has an empty part")]
    Empty,
    #[error("is longer than {MAX_NAME} bytes")]
    Length,
    #[error("holds {0:?}; letters, digits, `_`, `-` and `$` may stand in a name")]
    Character(char),
}

impl TableName {
    /// Parses `table` or `schema.table`.
    ///
    /// # Errors
    /// Returns the reason if the name is invalid.
    pub(crate) fn parse(text: &str) -> Result<Self, NameError> {
        let mut parts = text.split('.');
        let (schema, table) = match (parts.next(), parts.next(), parts.next()) {
            (Some(table), None, _) => (DEFAULT_SCHEMA, table),
            (Some(schema), Some(table), None) => (schema, table),
            _ => return Err(NameError::Parts),
        };
        for part in [schema, table] {
            check(part)?;
        }
        if schema.eq_ignore_ascii_case("information_schema") {
            return Err(NameError::InformationSchema);
        }
        if schema == SYSTEM_SCHEMA {
            return Err(NameError::System);
        }
        Ok(Self { schema: schema.to_owned(), table: table.to_owned() })
    }

    /// Returns the table that `reference` denotes in a session with `state`, if it is in the pod's catalog.
    pub(crate) fn of(reference: &TableReference, state: &SessionState) -> Option<Self> {
        let defaults = &state.config_options().catalog;
        let ResolvedTableReference { catalog, schema, table } =
            reference.clone().resolve(&defaults.default_catalog, &defaults.default_schema);
        (catalog.as_ref() == CATALOG).then(|| Self { schema: schema.to_string(), table: table.to_string() })
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.schema == DEFAULT_SCHEMA {
            f.write_str(&self.table)
        } else {
            write!(f, "{}.{}", self.schema, self.table)
        }
    }
}

fn check(part: &str) -> Result<(), NameError> {
    if part.is_empty() {
        return Err(NameError::Empty);
    }
    if part.len() > MAX_NAME {
        return Err(NameError::Length);
    }
    match part.chars().find(|c| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '$'))) {
        None => Ok(()),
        Some(c) => Err(NameError::Character(c)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let cases = [
            ("trips", Ok("trips")),
            ("public.trips", Ok("trips")),
            ("sales.orders", Ok("sales.orders")),
            ("año-2", Ok("año-2")),
            ("", Err("is empty")),
            (".x", Err("is empty")),
            ("a.b.c", Err("more than two parts")),
            ("a b", Err("holds ' '")),
            ("x\"; DROP", Err("holds '\"'")),
            ("Information_Schema.tables", Err("keeps for itself")),
            ("runtime.tls", Err("speaks of itself")),
        ];
        for (text, expected) in cases {
            match (TableName::parse(text), expected) {
                (Ok(name), Ok(shown)) => assert_eq!(name.to_string(), shown),
                (Err(why), Err(part)) => assert!(why.to_string().contains(part), "{text}: {why}"),
                (seen, _) => panic!("{text}: {seen:?}"),
            }
        }
        assert!(TableName::parse(&"x".repeat(64)).is_err());
    }
}
