//! The state that the routes share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use spiced_engine::Engine;
use spiced_middleware::{Access, AllowedOrigins, Hsts};
use tokio::sync::watch;

use crate::reload::ReloadHandle;
use crate::status::Status;

/// The parts of the API that the program supplies.
#[derive(Clone)]
pub struct HttpState {
    /// The engine that runs the statements.
    pub engine: Arc<dyn Engine>,
    /// True while `/v1/ready` returns `ready`.
    pub readiness: watch::Receiver<bool>,
    /// Returns the document of `/v1/status`. It is called for each request and must be fast.
    pub status: Arc<dyn Fn() -> Status + Send + Sync>,
    /// The rules that authenticate callers.
    pub access: Access,
    /// The limits and options of the API.
    pub options: HttpOptions,
}

impl fmt::Debug for HttpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpState")
            .field("access", &self.access)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// The limits and options of the API. The engine limits how long a query may run.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// The maximum size of a request body, in bytes. A larger one is refused with 413. Default: 16 MiB.
    pub body_limit: usize,
    /// How long a request's body may take to arrive. A slower one is refused with 408. Default: 30 s.
    pub request_timeout: Duration,
    /// The origins whose web pages may call. `None` allows no origin and sends no CORS headers.
    pub allowed_origins: Option<AllowedOrigins>,
    /// The HSTS header that tells browsers to use HTTPS only.
    pub hsts: Option<Hsts>,
    /// The function behind `POST /v1/tls/reload`. `None` if there is nothing to reload.
    pub reload: Option<ReloadHandle>,
    /// False while the query engine has not responded for so long that `/health` fails. `None`: `/health` never fails.
    pub responsive: Option<watch::Receiver<bool>>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            body_limit: 16 * 1024 * 1024,
            request_timeout: Duration::from_secs(30),
            allowed_origins: None,
            hsts: None,
            reload: None,
            responsive: None,
        }
    }
}

/// A response extension that exempts the response from compression.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AsIs;
