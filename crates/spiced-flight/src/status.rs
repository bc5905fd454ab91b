//! The one place where a failure becomes a gRPC status.

use arrow_flight::error::FlightError;
use arrow_schema::ArrowError;
use http_body_util::LengthLimitError;
use spiced_engine::{EngineError, ErrorKind};
use tls_core::server::BodyError;
use tonic::{Code, Status};

/// The engine's failure in gRPC's terms.
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
        // `ErrorKind` may grow; what this endpoint does not know is the server's own affair.
        _ => Code::Internal,
    };
    Status::new(code, error.to_string())
}

/// The failure of a request's body in gRPC's terms.
pub(crate) fn from_body(error: &(dyn std::error::Error + 'static)) -> Status {
    if std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<LengthLimitError>()) {
        return Status::resource_exhausted("the message is larger than this call takes");
    }
    match BodyError::find(error) {
        Some(why @ BodyError::Late(_)) => Status::deadline_exceeded(why.to_string()),
        Some(why @ BodyError::Exhausted) => Status::resource_exhausted(why.to_string()),
        Some(why @ BodyError::Stopping) => Status::unavailable(why.to_string()),
        _ => Status::cancelled(format!("the request broke off: {error}")),
    }
}

/// An answer could not be encoded, which is the server's own failure.
pub(crate) fn unencodable(error: impl Into<FlightError>) -> Status {
    match error.into() {
        FlightError::Tonic(status) => *status,
        other => Status::internal(format!("the answer cannot be encoded: {other}")),
    }
}

/// A batch of our own making could not be read back.
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
