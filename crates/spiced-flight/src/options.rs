//! Settings of the Flight endpoint and their defaults.

use std::time::Duration;

use aws_lc_rs::rand;
use tls_core::Secret;

/// Settings of the Flight endpoint.
#[derive(Debug, Clone)]
pub struct FlightOptions {
    /// The key that signs tickets and handles. Random by default, so they become invalid when the process ends;
    /// replicas that share a secret accept each other's. An empty secret is replaced by a random one.
    pub signing_secret: Secret,
    /// How long a ticket or a handle is accepted. Default: 1 hour.
    pub handle_lifetime: Duration,
    /// The largest message accepted from a client, in bytes. Default: 16 MiB.
    pub max_message_bytes: usize,
    /// How long a client may take to send the start of a `DoPut`: the schema of its rows, or all its parameters.
    /// Default: 30 s. The rows after a schema are subject to the engine's query timeout.
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

/// A random 256-bit secret.
pub(crate) fn random_secret() -> Secret {
    Secret::new(random::<32>().to_vec())
}

/// Unpredictable random bytes.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
