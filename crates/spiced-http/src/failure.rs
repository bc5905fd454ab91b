//! Conversion of engine errors to HTTP problems.

use http::StatusCode;
use spiced_engine::{EngineError, ErrorKind};
use spiced_middleware::Problem;

/// The `Retry-After` of a response if the engine is at a limit, in seconds.
pub(crate) const TRY_AGAIN_AFTER: u32 = 1;

/// Returns the status and the message for an error that occurred before the first rows.
pub(crate) fn problem(error: &EngineError) -> Problem {
    let status = match error.kind() {
        ErrorKind::InvalidStatement => StatusCode::BAD_REQUEST,
        ErrorKind::Denied => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Exhausted | ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Cancelled => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let problem = Problem::new(status, error.to_string());
    if error.kind() == ErrorKind::Exhausted { problem.retry_after(TRY_AGAIN_AFTER) } else { problem }
}
