//! The commands of Flight SQL, a file for each.

mod keys;
pub(crate) mod metadata;
pub(crate) mod prepared_statement;
pub(crate) mod sql_info;
pub(crate) mod statement_ingest;
pub(crate) mod statement_query;
mod xdbc_type_info;
