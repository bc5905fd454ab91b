//! Finds problems of a certificate that can still be served, each with a stable code, a sentence and a fix.

pub(crate) mod check_config;
mod checks;
pub(crate) mod compatibility;
mod expiry;
pub(crate) mod facts;
pub(crate) mod inspect;
pub(crate) mod names;
pub(crate) mod path;
pub(crate) mod remote;
mod report;

pub(crate) use self::checks::{chain, key_file, oddly_written, unused_passphrase};
pub use self::expiry::ending;
pub(crate) use self::expiry::{Whose, span};
pub use self::report::{Finding, REFUSALS, Severity};
