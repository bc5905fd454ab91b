//! What an embedder may set, and what it is otherwise.

use std::time::Duration;

use aws_lc_rs::rand;
use tls_core::Secret;

/// Settings of the Flight endpoint.
#[derive(Debug, Clone)]
pub struct FlightOptions {
    /// What tickets and handles are signed with. Random by default, so that they end with the
    /// process; replicas that share it accept each other's. An empty one is replaced by a random one.
    pub signing_secret: Secret,
    /// How long a ticket or a handle is accepted. Default: 1 hour.
    pub handle_lifetime: Duration,
    /// The largest message taken from a client, in bytes. Default: 16 MiB.
    pub max_message_bytes: usize,
    /// How long a client may take to send what a `DoPut` begins with: the schema of its rows, or all its parameters.
    /// Default: 30 s. Messages after the schema have the time limit of a query.
    pub request_timeout: Duration,
}

impl Default for FlightOptions {
    fn default() -> Self {
        Self {
            signing_secret: random_secret(),
            handle_lifetime: Duration::from_secs(60 * 60),
            max_message_bytes: 16 * 1024 * 1024,
            request_timeout: Duration::from_secs(30),
        }
    }
}

/// A secret of 256 bits that nobody else knows.
pub(crate) fn random_secret() -> Secret {
    Secret::new(random::<32>().to_vec())
}

/// Bytes that nobody can foresee.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
