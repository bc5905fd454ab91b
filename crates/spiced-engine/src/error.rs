//! Errors of an engine, in classes that each protocol has a code for.

/// The class of an error; each endpoint maps it to a code of its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The statement or its parameters are wrong: HTTP 400, gRPC `INVALID_ARGUMENT`.
    InvalidStatement,
    /// The caller's role does not allow the effect: 403, `PERMISSION_DENIED`.
    Denied,
    /// The named object does not exist: 404, `NOT_FOUND`.
    NotFound,
    /// The engine does not support the operation: 501, `UNIMPLEMENTED`.
    Unsupported,
    /// A limit (memory, concurrency, size) was reached: 503, `RESOURCE_EXHAUSTED`.
    Exhausted,
    /// The time limit was reached: 503, `DEADLINE_EXCEEDED`.
    Timeout,
    /// A resource that the engine needs, such as another server, does not respond: 503, `UNAVAILABLE`.
    Unavailable,
    /// The caller disconnected or cancelled the request: `CANCELLED`.
    Cancelled,
    /// Anything else: 500, `INTERNAL`.
    Internal,
}

/// An error of the engine: its class, and one sentence for the caller.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    kind: ErrorKind,
    message: String,
}

impl EngineError {
    /// Creates an error. The message may be shown to the caller, so it must not contain a secret or a path of the host.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Returns the class.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}
