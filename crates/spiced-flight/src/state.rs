//! What every call shares: the engine, the signing key, and what little is kept between requests.

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::sql::metadata::SqlInfoData;
use spiced_engine::{Engine, Prepared, Statement};
use tonic::Status;

use crate::FlightOptions;
use crate::bound_parameters::BoundParameterCache;
use crate::options;
use crate::running_queries::RunningQueries;
use crate::session::Caller;
use crate::signed_handle::HandleSigner;
use crate::sql_info;
use crate::status;

/// The Flight SQL service. Its parts are in `service`, `statements`, `prepared`, `metadata`, `actions`.
pub(crate) struct FlightServiceState {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) sealer: HandleSigner,
    pub(crate) bound: BoundParameterCache,
    pub(crate) running: RunningQueries,
    /// What drivers ask of the server.
    pub(crate) sql_info: SqlInfoData,
    /// The largest message that is taken.
    pub(crate) max_message_bytes: usize,
    /// How long what a request begins with may take to come.
    pub(crate) request_timeout: Duration,
}

impl FlightServiceState {
    /// A service over `engine`.
    pub(crate) fn new(engine: Arc<dyn Engine>, options: FlightOptions) -> Self {
        let mut secret = options.signing_secret;
        if secret.is_empty() {
            // Anybody could sign with an empty secret.
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

    /// Plans a statement, which is also where the engine says whether this caller may run it.
    pub(crate) async fn plan(&self, caller: &Caller, sql: String) -> Result<Box<dyn Prepared>, Status> {
        self.session(caller).await?.prepare(Statement::Sql(sql)).await.map_err(status::from_engine)
    }
}
