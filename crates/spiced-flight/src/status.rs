//! Conversion of failures to gRPC statuses, in one place.

use arrow_flight::error::FlightError;
use arrow_schema::ArrowError;
use http_body_util::LengthLimitError;
use spiced_engine::{EngineError, ErrorKind};
use tls_core::server::BodyError;
use tonic::{Code, Status};

/// Converts an engine error.
pub(crate) fn from_engine(error: EngineError) -> Status {
    let code = match error.kind() {
        ErrorKind::InvalidStatement => Code::InvalidArgument,
        ErrorKind::Denied => Code::PermissionDenied,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::Exhausted => Code::ResourceExhausted,
        ErrorKind::Timeout => Code::DeadlineExceeded,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Cancelled => Code::Cancelled,
        // `ErrorKind` is non-exhaustive. A kind that this endpoint does not know is an internal error.
        _ => Code::Internal,
    };
    Status::new(code, error.to_string())
}

/// Converts an error of a request's body.
pub(crate) fn from_body(error: &(dyn std::error::Error + 'static)) -> Status {
    if std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<LengthLimitError>()) {
        return Status::resource_exhausted("the message is larger than this call accepts");
    }
    match BodyError::find(error) {
        Some(why @ BodyError::Late(_)) => Status::deadline_exceeded(why.to_string()),
        Some(why @ BodyError::Exhausted) => Status::resource_exhausted(why.to_string()),
        Some(why @ BodyError::Stopping) => Status::unavailable(why.to_string()),
        _ => Status::cancelled(format!("the request broke off: {error}")),
    }
}

/// Converts an encoding error, which is an internal error.
pub(crate) fn unencodable(error: impl Into<FlightError>) -> Status {
    match error.into() {
        FlightError::Tonic(status) => *status,
        other => Status::internal(format!("the response cannot be encoded: {other}")),
    }
}

/// Converts the error of a batch that this server encoded and cannot decode.
pub(crate) fn internal(error: ArrowError) -> Status {
    Status::internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_code() {
        let table = [
            (ErrorKind::InvalidStatement, Code::InvalidArgument),
            (ErrorKind::Denied, Code::PermissionDenied),
            (ErrorKind::NotFound, Code::NotFound),
            (ErrorKind::Unsupported, Code::Unimplemented),
            (ErrorKind::Exhausted, Code::ResourceExhausted),
            (ErrorKind::Timeout, Code::DeadlineExceeded),
            (ErrorKind::Unavailable, Code::Unavailable),
            (ErrorKind::Cancelled, Code::Cancelled),
            (ErrorKind::Internal, Code::Internal),
        ];
        for (kind, code) in table {
            let status = from_engine(EngineError::new(kind, "why"));
            assert_eq!((status.code(), status.message()), (code, "why"));
        }
    }
}
