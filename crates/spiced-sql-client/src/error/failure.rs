//! How a run of the client fails.

/// Why the client ends without having done all that was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// An option or a variable is invalid, or one of two that belong together is missing.
    #[error("{origin}: {reason}")]
    Usage {
        /// The option or variable.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no connection, or a statement failed: the message and a hint, ready to be printed.
    #[error("{0}")]
    Failed(String),
}
