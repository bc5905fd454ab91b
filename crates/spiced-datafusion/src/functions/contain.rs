//! Panics of functions become errors of the statement.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use datafusion::error::{DataFusionError, Result};
use spiced_engine::ErrorKind;

use crate::error::refusal;

/// Runs `call`, a part of the function `name`. What panics or finds itself wrong has met arguments that nobody thought of.
pub(super) fn contain<T>(name: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Err(DataFusionError::Internal(why))) => Err(unfit(name, &why)),
        Ok(done) => done,
        Err(panic) => Err(unfit(name, said(panic.as_ref()))),
    }
}

/// The error of a function that cannot do with its arguments.
fn unfit(name: &str, why: &str) -> DataFusionError {
    let why = why.lines().next().unwrap_or_default();
    let why = why.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or(why);
    refusal(ErrorKind::InvalidStatement, format!("`{name}` cannot take these arguments: {}", why.trim_end_matches('.')))
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_and_inner_errors_are_the_statements() {
        let panics = contain::<()>("f", || panic!("index {} is too much", 1)).unwrap_err();
        assert_eq!(
            panics.find_root().to_string(),
            "External error: `f` cannot take these arguments: index 1 is too much"
        );
        let wrong = contain::<()>("f", || datafusion::common::internal_err!("no such size")).unwrap_err();
        assert_eq!(wrong.find_root().to_string(), "External error: `f` cannot take these arguments: no such size");
        assert!(matches!(
            contain::<()>("f", || datafusion::common::exec_err!("no")),
            Err(DataFusionError::Execution(_))
        ));
    }
}
