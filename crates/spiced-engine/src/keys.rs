//! What a source says of its tables' keys. It is told, and not looked after: who owns the rows does that.

/// Columns that tell a table's rows apart, in the key's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The constraint's name, where it has one.
    pub name: Option<String>,
    /// The columns.
    pub columns: Vec<String>,
}

/// Columns that hold a key of a row of another table, or of the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    /// The columns that refer, in the order of those that are referred to.
    pub key: Key,
    /// The catalog, schema and name of the table that is referred to.
    pub table: [String; 3],
    /// Its key.
    pub referred: Key,
    /// What happens to a row when the key that it holds changes.
    pub on_update: KeyRule,
    /// What happens to it when the row that has that key goes.
    pub on_delete: KeyRule,
}

/// What happens to rows that refer, with the numbers of Flight SQL (`UpdateDeleteRules`), which are JDBC's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum KeyRule {
    /// The same as to what they refer to.
    Cascade = 0,
    /// They keep it from happening.
    Restrict = 1,
    /// They refer to nothing.
    SetNull = 2,
    /// They keep it from happening, at the end of the statement or later.
    NoAction = 3,
    /// They refer to their default.
    SetDefault = 4,
}
