//! Turns panics of functions into errors of the statement.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use datafusion::error::{DataFusionError, Result};
use spiced_engine::{EngineError, ErrorKind};

use crate::error::refusal;

thread_local! {
    /// The number of nested contained calls on this thread.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Keeps contained panics out of the log: the failed statement is logged, and a caller could otherwise fill the log.
pub(super) fn keep_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if DEPTH.get() == 0 {
                others(panic);
            } else {
                tracing::debug!(%panic, "a function panicked");
            }
        }));
    });
}

/// The maximum length of a reason, in bytes.
const MAX_MESSAGE: usize = 2 << 10;

/// Runs `call`, a part of the function `name`. A panic or an internal error is reported as arguments that the function
/// cannot take.
pub(super) fn contain<T>(name: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
    contained(call, || format!("`{name}` cannot take these arguments"))
}

/// Runs `call`; a panic or an internal error becomes an error of the statement about `subject`.
pub(super) fn contained<T>(call: impl FnOnce() -> Result<T>, subject: impl FnOnce() -> String) -> Result<T> {
    let unfit = |why: &str| {
        let why = why.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or(why);
        let why = why.lines().next().unwrap_or_default().trim_end_matches('.');
        refusal(ErrorKind::InvalidStatement, format!("{}: {}", subject(), short(why)))
    };
    DEPTH.set(DEPTH.get() + 1);
    let done = catch_unwind(AssertUnwindSafe(call));
    DEPTH.set(DEPTH.get() - 1);
    let error = match done {
        Ok(Err(error)) => error,
        Ok(done) => return done,
        Err(panic) => return Err(unfit(said(panic.as_ref()))),
    };
    Err(match error {
        DataFusionError::Internal(why) => unfit(&why),
        // The text may repeat an argument in full, such as a pattern.
        DataFusionError::Execution(why) if why.len() > MAX_MESSAGE => {
            DataFusionError::Execution(format!("{}…", short(&why)))
        }
        error => match error.find_root() {
            // An error from another crate, for example about an invalid pattern.
            DataFusionError::External(why) if !why.is::<EngineError>() => {
                DataFusionError::Execution(short(&why.to_string()).to_owned())
            }
            _ => error,
        },
    })
}

/// Runs `call`; returns `None` if it panics.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Option<T> {
    DEPTH.set(DEPTH.get() + 1);
    let done = catch_unwind(AssertUnwindSafe(call));
    DEPTH.set(DEPTH.get() - 1);
    done.ok()
}

fn short(why: &str) -> &str {
    &why[..why.floor_char_boundary(MAX_MESSAGE)]
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
