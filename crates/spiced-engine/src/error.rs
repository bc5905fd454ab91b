//! Why an engine did not answer, in terms that each protocol has a code for.

/// The class of a failure; an endpoint maps it to its own code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The statement or its parameters are wrong: HTTP 400, gRPC `INVALID_ARGUMENT`.
    InvalidStatement,
    /// The caller's role does not allow the effect: 403, `PERMISSION_DENIED`.
    Denied,
    /// What was named is not there: 404, `NOT_FOUND`.
    NotFound,
    /// The engine does not do this: 501, `UNIMPLEMENTED`.
    Unsupported,
    /// A limit (memory, concurrency, size) was reached: 503, `RESOURCE_EXHAUSTED`.
    Exhausted,
    /// The time limit was reached: 503, `DEADLINE_EXCEEDED`.
    Timeout,
    /// Something that the engine needs, another server say, does not answer: 503, `UNAVAILABLE`.
    Unavailable,
    /// The caller went away or asked to stop: `CANCELLED`.
    Cancelled,
    /// Anything else: 500, `INTERNAL`.
    Internal,
}

/// A failure of the engine: its class, and one sentence for the caller.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    kind: ErrorKind,
    message: String,
}

impl EngineError {
    /// A failure with a message that may be shown to the caller: no secret, no path of the host.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The class.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}
