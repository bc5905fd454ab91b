//! What a running function can ask of its statement: whether it still has time.

use std::any::Any;
use std::time::Instant;

use datafusion::common::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use datafusion::error::Result;
use spiced_engine::ErrorKind;

use crate::error::refusal;

/// The end of a statement's time, on its way through the options that each function is given.
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

/// Lets the functions of a statement that runs with `options` end at `deadline`.
pub(crate) fn watch(options: &mut ConfigOptions, deadline: Instant) {
    options.extensions.insert(Deadline(deadline));
}

/// # Errors
/// The time of the statement is up.
pub(super) fn check(options: &ConfigOptions) -> Result<()> {
    match options.extensions.get::<Deadline>() {
        Some(Deadline(deadline)) if *deadline <= Instant::now() => {
            Err(refusal(ErrorKind::Timeout, "the query was not done within its limit"))
        }
        _ => Ok(()),
    }
}
