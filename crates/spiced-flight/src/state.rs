//! The state that all calls share: the engine, the signing key, and the little that is kept between requests.

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::sql::metadata::SqlInfoData;
use spiced_engine::{Engine, Prepared, Statement};
use tonic::Status;

use crate::FlightOptions;
use crate::handles::bound_parameters::BoundParameterCache;
use crate::handles::running_queries::RunningQueries;
use crate::handles::signed_handle::HandleSigner;
use crate::options;
use crate::session::Caller;
use crate::sql::sql_info;
use crate::status;

/// The Flight SQL service. Its parts are in `service`, `statements`, `prepared`, `metadata`, `actions`.
pub(crate) struct FlightServiceState {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) sealer: HandleSigner,
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
    /// Creates the service over `engine`.
    pub(crate) fn new(engine: Arc<dyn Engine>, options: FlightOptions) -> Self {
        let mut secret = options.signing_secret;
        if secret.is_empty() {
            // Anyone could sign with an empty secret.
            tracing::warn!("the signing secret for Flight tickets is empty, so a random one is used instead");
            secret = options::random_secret();
        }
        Self {
            sql_info: sql_info::info(engine.dialect().as_ref()),
            engine,
            sealer: HandleSigner::new(&secret, options.handle_lifetime),
            bound: BoundParameterCache::default(),
            running: RunningQueries::default(),
            max_message_bytes: options.max_message_bytes,
            request_timeout: options.request_timeout,
        }
    }

    /// Plans a statement. The engine checks here whether this caller may run it.
    pub(crate) async fn plan(&self, caller: &Caller, sql: String) -> Result<Box<dyn Prepared>, Status> {
        self.session(caller).await?.prepare(Statement::Sql(sql)).await.map_err(status::from_engine)
    }
}
