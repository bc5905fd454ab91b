//! Gives a running function access to the deadline of its statement.

use std::any::Any;
use std::time::Instant;

use datafusion::common::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use datafusion::error::Result;
use spiced_engine::ErrorKind;

use crate::error::refusal;

/// The deadline of a statement, passed to its functions with the configuration options.
#[derive(Debug, Clone, Copy)]
struct Deadline(Instant);

impl ConfigExtension for Deadline {
    const PREFIX: &'static str = "spiced_statement";
}

impl ExtensionOptions for Deadline {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(*self)
    }

    fn set(&mut self, _: &str, _: &str) -> Result<()> {
        datafusion::common::config_err!("it is not for a session to set")
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
    }
}

/// Sets the deadline for the functions of a statement that runs with `options`.
pub(crate) fn watch(options: &mut ConfigOptions, deadline: Instant) {
    options.extensions.insert(Deadline(deadline));
}

/// # Errors
/// Fails if the deadline of the statement has passed.
pub(super) fn check(options: &ConfigOptions) -> Result<()> {
    match options.extensions.get::<Deadline>() {
        Some(Deadline(deadline)) if *deadline <= Instant::now() => {
            Err(refusal(ErrorKind::Timeout, "the query was not done within its limit"))
        }
        _ => Ok(()),
    }
}
