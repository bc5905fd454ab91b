//! The keys of tables, as their sources report them. They are not enforced here; the source enforces them.

/// Columns that identify a row of a table, in the key's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The constraint's name, if it has one.
    pub name: Option<String>,
    /// The columns.
    pub columns: Vec<String>,
}

/// Columns that reference a key of another table, or of the same table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    /// The referencing columns, in the order of the referenced columns.
    pub key: Key,
    /// The catalog, schema and name of the referenced table.
    pub table: [String; 3],
    /// The referenced key.
    pub referred: Key,
    /// What happens to a row when the key that it references changes.
    pub on_update: KeyRule,
    /// What happens to a row when the row that it references is deleted.
    pub on_delete: KeyRule,
}

/// What happens to referencing rows, with the numbers of Flight SQL (`UpdateDeleteRules`), which are those of JDBC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum KeyRule {
    /// They are updated or deleted too.
    Cascade = 0,
    /// They prevent the change.
    Restrict = 1,
    /// Their reference is set to null.
    SetNull = 2,
    /// They prevent the change, at the end of the statement or later.
    NoAction = 3,
    /// Their reference is set to its default.
    SetDefault = 4,
}
