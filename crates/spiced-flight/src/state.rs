//! The state that all calls share: the engine, the signing key, and the data kept between requests.

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::sql::metadata::SqlInfoData;
use spiced_engine::Engine;

use crate::handles::bound_parameters::BoundParameterCache;
use crate::handles::running_queries::RunningQueries;
use crate::handles::signed_handle::HandleSigner;
use crate::options::{self, FlightOptions};

/// The state that the functions of `service` and `sql` share.
pub(crate) struct FlightServiceState {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) signer: HandleSigner,
    pub(crate) bound: BoundParameterCache,
    pub(crate) running: RunningQueries,
    /// The properties that drivers request.
    pub(crate) sql_info: SqlInfoData,
    /// The maximum size of an accepted message, in bytes.
    pub(crate) max_message_bytes: usize,
    /// How long the start of a request may take to arrive.
    pub(crate) request_timeout: Duration,
}

impl FlightServiceState {
    /// Creates the state of a service over `engine`, which describes itself with `sql_info`.
    pub(crate) fn new(engine: Arc<dyn Engine>, sql_info: SqlInfoData, options: FlightOptions) -> Self {
        let mut secret = options.signing_secret;
        if secret.is_empty() {
            // Anyone could sign with an empty secret.
            tracing::warn!("the signing secret for Flight tickets is empty, so a random one is used instead");
            secret = options::random_secret();
        }
        Self {
            engine,
            signer: HandleSigner::new(&secret, options.handle_lifetime),
            bound: BoundParameterCache::default(),
            running: RunningQueries::default(),
            sql_info,
            max_message_bytes: options.max_message_bytes,
            request_timeout: options.request_timeout,
        }
    }
}
