//! The protocol of an endpoint: how its callers send credentials, and how it words a refusal.

/// The protocol in which an endpoint words a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// An HTTP status and problem JSON.
    Http,
    /// `grpc-status` in a response without a body ("Trailers-Only" of the gRPC protocol).
    Grpc,
}
