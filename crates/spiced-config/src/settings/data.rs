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
    /// Whether it may be written.
    pub writable: bool,
    /// The source's parameters, some of them secret.
    pub params: BTreeMap<String, Secret>,
    /// The columns, for sources that have none of their own.
    pub columns: Vec<Column>,
    /// Where it is declared.
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
    /// Its name.
    pub name: String,
    /// Its type, as SQL writes it: `bigint`, `timestamp`.
    #[serde(rename = "type")]
    pub data_type: String,
    /// Whether it may be null.
    #[serde(default = "yes")]
    pub nullable: bool,
}

fn yes() -> bool {
    true
}
