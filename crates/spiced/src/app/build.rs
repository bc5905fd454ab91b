//! From the settings to an [`App`] that is ready to serve, in stages: access (certificates, keys, roles), engine,
//! sockets, observation, routers. Each stage uses what the stages before it returned; none reaches back.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use spiced_certs::FileWatch;
use spiced_config::{RestartOnlySettings, Settings};
use spiced_datafusion::{Responsive, watch_for_stalls};
use spiced_engine::Engine;
use spiced_http::HttpOptions;
use spiced_middleware::{KeyRotation, Policy, Throttle, TrustedProxies};
use spiced_secrets::{Resolver, SecretValue, StoreStatus, WatchedSecrets};
use spiced_telemetry::Metrics;
use tls_core::rotation::Identities;
use tls_core::server::{Limits, Workers};
use tls_core::{ClientAuth, ClientAuthPolicy, Secret, Sourced};
use tokio::sync::{Semaphore, watch};

use super::connections::{connections, request_memory};
use super::engine::{self, QueryRuntimes};
use crate::args::PodArgs;
use crate::auth_policy;
use crate::endpoints::routes::{self, AuthContext, EndpointDeps};
use crate::endpoints::{BoundEndpoint, Endpoints, exposure};
use crate::failure::Failure;
use crate::observe::banner;
use crate::observe::status::{self, StatusSources, readiness};
use crate::reload::state::{Follower, ReloadableState};
use crate::reload::{self, ReloadCoordinator};
use crate::tls::{self, Served, expiry};

/// Everything that has been loaded and bound, before the endpoints start to serve.
pub(super) struct App {
    pub(super) routers: Vec<(BoundEndpoint, Router)>,
    pub(super) reloading: ReloadCoordinator,
    pub(super) connections: usize,
    pub(super) limits: Limits,
    pub(super) workers: Workers,
    pub(super) stopping: watch::Sender<bool>,
    /// `runtime.shutdown_delay` and `runtime.shutdown_timeout`.
    pub(super) shutdown: (Duration, Duration),
    pub(super) banner: String,
}

impl App {
    /// Loads the certificates, starts the engine and binds the endpoints. Must be called from within a Tokio runtime.
    pub(super) fn build(
        pod: &PodArgs,
        pod_files: FileWatch,
        mut settings: Settings,
        resolver: Resolver,
        key_log: bool,
        queries: &QueryRuntimes,
    ) -> Result<Self, Failure> {
        let restart_only = RestartOnlySettings::of(&settings);
        let (reload, requests) = reload::handle();

        let access = Access::establish(&mut settings, resolver, key_log)?;
        let http = routes::http_options(&settings, access.served.as_ref(), reload)?;
        let engine = engine::start(&settings, access.identities(), queries)?;
        let endpoints = Endpoints::bind(&settings.runtime.listen, access.served.as_ref().map(|served| &served.tls))?;

        let Access { served, signing_secret, handshake_timeout, mode, policy, policies, rotation, followed } = access;
        let follower = Follower::start(followed, rotation, policy.clone());
        let stores = watch::channel(follower.status.clone());
        let (stopping, stop) = watch::channel(false);
        let observed =
            Observed::start(&settings, &endpoints, &served, &engine, (policies.clone(), stores.1), stop, queries)?;

        let connections = connections(&settings, endpoints.iter().count());
        let limits = limits(&settings, connections.spare, handshake_timeout);
        let banner = banner::text(&settings, &endpoints, served.as_ref(), mode == ClientAuth::Required);
        let callers = AuthContext {
            policy: policies,
            throttle: Arc::new(Throttle::new(settings.runtime.limits.auth_failures)),
            proxies: TrustedProxies::new(std::mem::take(&mut settings.runtime.http.trusted_proxies)),
        };
        exposure::report(&settings, &endpoints, &callers);
        let Observed { ready, responsive, status, metrics } = observed;
        let behind = EndpointDeps {
            engine,
            ready,
            status,
            metrics,
            http: HttpOptions { responsive: Some(responsive), ..http },
            signing_secret,
            guards_metrics: settings.runtime.auth.metrics,
            query_timeout: settings.runtime.sql.timeout,
        };
        let routers = routes::build(endpoints, behind, &callers);
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let live = ReloadableState::new(pod.clone(), pod_files, served, policy, restart_only);
        Ok(Self {
            routers,
            reloading: ReloadCoordinator::new(live, follower, stores.0, requests),
            connections: connections.own,
            limits,
            workers: Workers::start(cores).map_err(|e| Failure::Other(e.to_string()))?,
            stopping,
            shutdown: (settings.runtime.shutdown_delay, settings.runtime.shutdown_timeout),
            banner,
        })
    }
}

/// Returns the limits of every endpoint. `spare` connections are shared by all of them.
fn limits(settings: &Settings, spare: usize, handshake_timeout: Duration) -> Limits {
    Limits {
        spare: Arc::new(Semaphore::new(spare)),
        handshakes: settings.runtime.limits.handshakes,
        memory: request_memory(settings.runtime.http.body_limit),
        handshake_timeout,
        ..Limits::default()
    }
}

/// Who the server is, and who may do what: the certificates, and the credentials that are accepted.
struct Access {
    served: Option<Served>,
    /// The secret that replicas share for their tickets.
    signing_secret: Option<Secret>,
    handshake_timeout: Duration,
    mode: ClientAuth,
    policy: Arc<watch::Sender<Arc<Policy>>>,
    policies: watch::Receiver<Arc<Policy>>,
    rotation: KeyRotation,
    followed: WatchedSecrets,
}

impl Access {
    /// Takes the TLS settings and the ticket secret out of `settings`, and loads what they name.
    fn establish(settings: &mut Settings, mut resolver: Resolver, key_log: bool) -> Result<Self, Failure> {
        let tls = settings.runtime.tls.take();
        let handshake_timeout = tls.as_ref().map_or(Limits::default().handshake_timeout, |tls| tls.handshake_timeout);
        let signing_secret = settings.runtime.session_ticket_secret.take();
        let mut subscribe = |value: &Sourced<SecretValue>| resolver.subscribe(value);
        let served =
            tls.map(|tls| tls::establish(tls, signing_secret.as_ref(), &mut subscribe, key_log)).transpose()?;
        let mode = served.as_ref().map_or(ClientAuth::None, |served| served.clients.borrow().mode());
        let asks = mode != ClientAuth::None;
        auth_policy::findings(&settings.runtime.auth, asks).iter().for_each(tls::say);
        let (policy, rotation) = auth_policy::establish(&settings.runtime.auth, asks, &mut subscribe)?;
        let (policy, policies) = watch::channel(Arc::new(policy));
        let (policy, followed) = (Arc::new(policy), resolver.follow());
        Ok(Self { served, signing_secret, handshake_timeout, mode, policy, policies, rotation, followed })
    }

    fn identities(&self) -> Option<Identities> {
        self.served.as_ref().map(|served| served.identities.clone())
    }
}

/// What the server reports about itself.
struct Observed {
    ready: watch::Receiver<bool>,
    /// False while the query threads are stuck.
    responsive: watch::Receiver<bool>,
    status: StatusSources,
    metrics: Metrics,
}

impl Observed {
    /// Starts the tasks that watch the engine and the certificates, on this thread, which no query can block.
    fn start(
        settings: &Settings,
        endpoints: &Endpoints,
        served: &Option<Served>,
        engine: &Arc<dyn Engine>,
        (policy, stores): (watch::Receiver<Arc<Policy>>, watch::Receiver<watch::Receiver<Vec<StoreStatus>>>),
        stop: watch::Receiver<bool>,
        queries: &QueryRuntimes,
    ) -> Result<Self, Failure> {
        let Responsive { ready: running, healthy } =
            watch_for_stalls(queries.readers.handle(), queries.writers.handle());
        let (ready, follow) = readiness(engine.datasets(), stop, running);
        tokio::spawn(follow);
        let identities = served.as_ref().map(|served| served.identities.clone());
        let clients: Option<watch::Receiver<Arc<ClientAuthPolicy>>> =
            served.as_ref().map(|served| served.clients.clone());
        if let Some((identities, clients)) = identities.clone().zip(clients.clone()) {
            tokio::spawn(expiry::remind(identities, clients));
        }
        let tls_endpoints = endpoints.iter().filter(|endpoint| endpoint.is_tls()).map(|endpoint| endpoint.endpoint);
        let presented = tls_endpoints.filter_map(|endpoint| Some((endpoint, identities.clone()?))).collect();
        let metrics = Metrics::install(presented).map_err(|e| Failure::Other(e.to_string()))?;
        let metrics = match &clients {
            Some(clients) => metrics.with_clients(clients.clone()),
            None => metrics,
        };
        let status = StatusSources {
            name: settings.name.clone(),
            endpoints: endpoints.iter().map(status::endpoint).collect(),
            identities,
            clients,
            policy,
            stores,
            datasets: engine.datasets(),
            readiness: ready.clone(),
        };
        Ok(Self { ready, responsive: healthy, status, metrics })
    }
}
