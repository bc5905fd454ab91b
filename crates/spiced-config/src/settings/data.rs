//! Resolved `datasets` and `views`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use tls_core::{Origin, Secret};

/// A data set.
#[derive(Debug)]
pub struct Dataset {
    /// The name it is queried by.
    pub name: String,
    /// The source.
    pub from: String,
    /// Whether it is writable.
    pub writable: bool,
    /// The source's parameters, some of them secret.
    pub params: BTreeMap<String, Secret>,
    /// The columns, for sources without columns of their own.
    pub columns: Vec<Column>,
    /// The place of its declaration.
    pub origin: Origin,
}

/// A name for a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The name it is queried by.
    pub name: String,
    /// The query.
    pub sql: String,
}

/// A column of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// The name.
    pub name: String,
    /// The type, as in SQL: `bigint`, `timestamp`.
    #[serde(rename = "type")]
    pub data_type: String,
    /// Whether it may be null.
    #[serde(default = "yes")]
    pub nullable: bool,
}

fn yes() -> bool {
    true
}
