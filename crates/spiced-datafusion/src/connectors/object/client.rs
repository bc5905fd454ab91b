//! The HTTP client for object stores, over the outbound TLS of this workspace. TLS material is read again periodically,
//! so that a renewed CA or client certificate needs no restart.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use reqwest::Client;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use spiced_certs::outbound::HandshakeObserver;
use tls_core::Secret;

use super::super::outbound::{Material, refused};
use super::super::params::Params;
use crate::connectors::source::LoadError;

pub(super) const PARAMS: &[&str] = &["client_timeout"];

/// The maximum age of material from files; its connections are closed with it.
const FRESH: Duration = Duration::from_secs(60);

/// The timeout from the first packet to the end of the handshake.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// The timeout of one request with its response, if the pod sets none.
const REQUEST_WITHIN: Duration = Duration::from_secs(30);

/// The connection settings of the pod.
#[derive(Debug, Clone)]
pub(super) struct Way {
    material: Material,
    timeout: Duration,
    authorization: Option<HeaderValue>,
}

impl Way {
    pub(super) fn read(params: &mut Params<'_>) -> Self {
        let material = Material::read(params);
        let timeout = params.read("client_timeout", "seconds from 1, such as `30s`", |value| {
            let seconds: u64 = value.strip_suffix('s').unwrap_or(value).parse().ok()?;
            (seconds > 0).then(|| Duration::from_secs(seconds))
        });
        Self { material, timeout: timeout.unwrap_or(REQUEST_WITHIN), authorization: None }
    }

    /// Adds a user name and a password for the server (RFC 7617).
    pub(super) fn authorized(mut self, user: &str, password: &Secret) -> Result<Self, LoadError> {
        use base64::Engine as _;
        let password = password.expose_text().map_err(|_| "the password is not UTF-8")?;
        let basic = base64::prelude::BASE64_STANDARD.encode(format!("{user}:{password}"));
        let mut value = HeaderValue::try_from(format!("Basic {basic}"))
            .map_err(|error| LoadError::caused(error.to_string(), error))?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(self)
    }

    fn open(&self) -> Result<Opened, LoadError> {
        let tls = self.material.tls().observed(&["h2", "http/1.1"]);
        let (config, observer) = tls.map_err(|error| format!("{error}: {}", error.hint()))?;
        let headers = self.authorization.clone().map(|value| (AUTHORIZATION, value)).into_iter().collect::<HeaderMap>();
        let client = Client::builder()
            .tls_backend_preconfigured(Arc::unwrap_or_clone(config))
            .user_agent(concat!("spiced/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(CONNECT_WITHIN)
            .read_timeout(self.timeout)
            .build();
        Ok(Opened {
            client: client.map_err(|error| LoadError::caused(error.to_string(), error))?,
            observer,
            at: Instant::now(),
        })
    }
}

/// Creates clients for a store.
#[derive(Debug)]
pub(super) struct Connector(Way);

impl Connector {
    pub(super) fn new(way: Way) -> Self {
        Self(way)
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &object_store::ClientOptions) -> object_store::Result<HttpClient> {
        let opened =
            self.0.open().map_err(|why| object_store::Error::Generic { store: "remote", source: why.into() })?;
        Ok(HttpClient::new(Service { way: self.0.clone(), opened: Mutex::new(opened) }))
    }
}

/// A client with the TLS material of the time `at`.
#[derive(Debug, Clone)]
struct Opened {
    client: Client,
    observer: HandshakeObserver,
    at: Instant,
}

/// A client whose TLS material is read again.
#[derive(Debug)]
struct Service {
    way: Way,
    opened: Mutex<Opened>,
}

impl Service {
    /// Returns the current client. If the material cannot be read, the previous client is kept.
    fn opened(&self) -> Opened {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if self.way.material.is_of_files() && opened.at.elapsed() > FRESH {
            match self.way.open() {
                Ok(fresh) => *opened = fresh,
                Err(error) => {
                    opened.at = Instant::now();
                    tracing::warn!(%error, "the TLS material of a data set cannot be read again; the old one stays");
                }
            }
        }
        opened.clone()
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let Opened { client, observer, .. } = self.opened();
        let answer = HttpService::call(&client, request).await;
        answer.map_err(|error| match refused(&error, &observer) {
            // It is not retried: the certificate would be the same.
            Some(refusal) => HttpError::new(HttpErrorKind::Unknown, refusal),
            None => error,
        })
    }
}
