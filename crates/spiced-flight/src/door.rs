//! What every call shares: the engine, the signing key, and what little is kept between requests.

use std::sync::Arc;
use std::time::Duration;

use spiced_engine::{Engine, Prepared, Principal, Session, Statement};
use tonic::Status;

use crate::FlightOptions;
use crate::bound::Bound;
use crate::options;
use crate::running::Running;
use crate::seal::Sealer;
use crate::status;

/// The Flight SQL service. Its parts are in `service`, `statements`, `prepared`, `metadata`, `actions`.
pub(crate) struct Door {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) sealer: Sealer,
    pub(crate) bound: Bound,
    pub(crate) running: Running,
    /// How long what a request begins with may take to come.
    pub(crate) request_timeout: Duration,
}

impl Door {
    /// A service over `engine`.
    pub(crate) fn new(engine: Arc<dyn Engine>, options: FlightOptions) -> Self {
        let mut secret = options.signing_secret;
        if secret.is_empty() {
            // Anybody could sign with an empty secret.
            tracing::warn!("the signing secret for Flight tickets is empty, so a random one is used instead");
            secret = options::random_secret();
        }
        Self {
            engine,
            sealer: Sealer::new(&secret, options.handle_lifetime),
            bound: Bound::default(),
            running: Running::default(),
            request_timeout: options.request_timeout,
        }
    }

    /// A session of the caller's own, for this request alone.
    pub(crate) async fn session(&self, caller: &Principal) -> Result<Box<dyn Session>, Status> {
        self.engine.session(caller).await.map_err(status::from_engine)
    }

    /// Plans a statement, which is also where the engine says whether this caller may run it.
    pub(crate) async fn plan(&self, caller: &Principal, sql: String) -> Result<Box<dyn Prepared>, Status> {
        self.session(caller).await?.prepare(Statement::Sql(sql)).await.map_err(status::from_engine)
    }
}
