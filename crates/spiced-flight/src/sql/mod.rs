//! The commands of Flight SQL, one file each.

mod catalogs;
mod db_schemas;
mod foreign_keys;
mod keys;
mod primary_keys;
mod table_types;
mod tables;
mod xdbc_type_info;

pub(crate) mod cancel_query;
pub(crate) mod metadata;
pub(crate) mod prepared_statement;
pub(crate) mod prepared_statement_query;
pub(crate) mod prepared_statement_update;
pub(crate) mod session_options;
pub(crate) mod sql_info;
pub(crate) mod statement_ingest;
pub(crate) mod statement_query;
pub(crate) mod statement_update;
