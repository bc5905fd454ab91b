//! Composes and runs the server: settings, then identity, engine and sockets, then endpoints, then the shutdown.

use std::io::{self, Write};
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use spiced_certs::FileWatch;
use spiced_config::Settings;
use spiced_datafusion::{ColumnSpec, DataFusionEngine, DatasetSpec, EngineOptions, RetainedSpec, Retention, ViewSpec};
use spiced_engine::{AdmissionControl, Engine, Guarded, ResultLimits, RoleLimits};
use spiced_http::HttpOptions;
use spiced_middleware::{AuditLog, Throttle, TrustedProxies, request_metrics, well_formed};
use spiced_secrets::Resolver;
use spiced_telemetry::Metrics;
use tls_core::listener::{Limits, RequestMemory};
use tls_core::rotation::Identities;
use tls_core::{ClientAuth, Workers, drain};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::layer::util::Stack;
use tracing::{info, warn};

use crate::args::{Args, LogArgs, PodArgs};
use crate::endpoints::{BoundEndpoint, Endpoints};
use crate::failure::Failure;
use crate::history::History;
use crate::reload::{self, ReloadCoordinator};
use crate::reloadable::{Follower, ReloadableState, RestartOnlySettings};
use crate::routes::{AuthContext, EndpointDeps};
use crate::signals::{Signals, StartSignals, Told};
use crate::statements::Statements;
use crate::status::{EndpointStatus, Status, readiness};
use crate::{
    banner, commands, core_dumps, engine_watch, expiry, exposure, identity, load, policy, routes, secrets, tables,
};

/// How long each runtime may take to shut down when the process exits.
const LAST_WAIT: Duration = Duration::from_millis(500);

/// File descriptors kept free for data files, secrets and logs when the number of connections is limited.
const SPARE_DESCRIPTORS: u64 = 256;

/// Runs the command that the command line asks for. Without a subcommand, loads the configuration, serves, and returns
/// after a clean shutdown.
///
/// # Errors
/// Fails if the command fails, or if the server cannot start or shut down cleanly.
pub fn run(args: Args, signals: StartSignals) -> Result<(), Failure> {
    // Before any secret is read.
    let core_dumps = if args.allows_core_dumps() { Ok(()) } else { core_dumps::forbid() };
    match args.split() {
        (Some(command), ..) => {
            signals.leave_to_defaults();
            commands::run(command)
        }
        (None, pod, log) => serve(&pod, &log, core_dumps, &signals),
    }
}

fn serve(pod: &PodArgs, log: &LogArgs, core_dumps: io::Result<()>, signals: &StartSignals) -> Result<(), Failure> {
    signals.stop_the_start();
    let filter = std::env::var("SPICED_LOG").ok();
    spiced_telemetry::init_logs(log.format(), log.verbosity(), filter.as_deref())
        .map_err(|e| Failure::configuration(e, "SPICED_LOG takes a filter such as info,spiced=debug"))?;
    tls_core::install_provider();
    if let Err(error) = core_dumps {
        warn!(%error, "core dumps cannot be switched off; one would hold secrets");
    }
    // This thread runs the accept loops, signals and timers; connections and queries run on other threads.
    let control = Builder::new_current_thread().enable_all().build().map_err(|e| Failure::Other(e.to_string()))?;
    let queries = || spiced_datafusion::query_runtime().map_err(|e| Failure::Other(e.to_string()));
    let queries = Queries { readers: queries()?, writers: queries()? };
    let start = async {
        let (settings, resolver) = load::settle(pod).await?;
        if pod.shows_key() {
            warn!("--tls-key shows the key to everybody who can list processes; use --tls-key-file or a secret");
        }
        for warning in &settings.warnings {
            warn!("{warning}");
        }
        let key_log = key_log(log);
        App::build(pod, settings, resolver, key_log, &queries)
    };
    let outcome = control.block_on(async {
        let app = tokio::select! {
            biased;
            () = signals.stopped() => None,
            app = start => Some(app?),
        };
        match app.filter(|_| !signals.is_stopped()) {
            Some(app) => app.serve(signals).await,
            None => {
                info!("stopped during the start");
                Ok(())
            }
        }
    });
    // The shutdown timeout has expired. The runtimes are still given a moment: a thread that runs on while the process
    // exits would use state that is being torn down.
    queries.readers.shutdown_timeout(LAST_WAIT);
    queries.writers.shutdown_timeout(LAST_WAIT);
    control.shutdown_timeout(LAST_WAIT);
    outcome
}

/// Returns whether TLS keys are logged. Warns if they are, and reports `SSLKEYLOGFILE` or the option being set without
/// the other.
fn key_log(log: &LogArgs) -> bool {
    let file = std::env::var_os("SSLKEYLOGFILE").filter(|name| !name.is_empty());
    match (log.keys(), file) {
        (true, Some(file)) => {
            let file = file.display();
            warn!(%file, "--insecure-key-log: whoever reads this file can read every connection; for debugging alone");
            return true;
        }
        (true, None) => warn!("--insecure-key-log has no effect: SSLKEYLOGFILE names no file"),
        (false, Some(_)) => info!("SSLKEYLOGFILE is set and has no effect without --insecure-key-log"),
        (false, None) => {}
    }
    false
}

/// The runtimes for statements: read-only callers never take a thread from callers that write.
struct Queries {
    readers: Runtime,
    writers: Runtime,
}

/// Everything that has been loaded and bound, before the endpoints start to serve.
struct App {
    routers: Vec<(BoundEndpoint, Router)>,
    reloading: ReloadCoordinator,
    connections: usize,
    limits: Limits,
    workers: Workers,
    stopping: watch::Sender<bool>,
    shutdown: (Duration, Duration),
    banner: String,
}

impl App {
    /// Loads the certificates, starts the engine and binds the endpoints. Must be called from within a Tokio runtime.
    fn build(
        pod: &PodArgs,
        mut settings: Settings,
        resolver: Resolver,
        key_log: bool,
        queries: &Queries,
    ) -> Result<Self, Failure> {
        let fixed = RestartOnlySettings::of(&settings);
        let files = FileWatch::new(load::files(pod));
        let tls = settings.tls.take();
        let handshake_timeout = tls.as_ref().map_or(Limits::default().handshake_timeout, |tls| tls.handshake_timeout);
        let ticket_secret = settings.session_ticket_secret.take();
        let (values, followed) = secrets::follow(resolver, tls.as_ref(), &settings.auth);
        let served =
            tls.map(|tls| identity::establish(tls, ticket_secret.as_ref(), values.tls, key_log)).transpose()?;
        let clients = served.as_ref().map(|served| served.clients.clone());
        let mode = clients.as_ref().map_or(ClientAuth::None, |trust| trust.borrow().mode());
        policy::findings(&settings.auth, mode != ClientAuth::None).iter().for_each(identity::say);
        let (policy, rotation) = policy::establish(&settings.auth, mode != ClientAuth::None, values.keys)?;
        let (policy, policies) = watch::channel(Arc::new(policy));
        let (reload, asked) = reload::handle();
        let http = routes::http_options(&settings, served.as_ref(), reload)?;
        let history = History::of(settings.query_history);
        let identities = served.as_ref().map(|served| served.identities.clone());
        let engine = start_engine(&settings, identities.clone(), &history, queries)?;
        let engine: Arc<dyn Engine> = Arc::new(guarded(engine, &settings, history));

        let endpoints = Endpoints::bind(&settings.listen, served.as_ref().map(|served| &served.tls))?;

        let (stopping, stop) = watch::channel(false);
        let responsive = engine_watch::start(queries.readers.handle(), queries.writers.handle());
        let (ready, follow) = readiness(engine.datasets(), stop, responsive.ready);
        // On this thread, which no query can block.
        tokio::spawn(follow);
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
        let policy = Arc::new(policy);
        let follower = Follower::start(followed, rotation, policy.clone());
        let stores = watch::channel(follower.status.clone());
        let status = Status {
            name: settings.name.clone(),
            endpoints: endpoints.iter().map(EndpointStatus::of).collect(),
            identities,
            clients,
            policy: policies.clone(),
            stores: stores.1,
            datasets: engine.datasets(),
            readiness: ready.clone(),
        };
        let connections = connections(&settings, endpoints.iter().count());
        let limits = Limits {
            spare: Arc::new(Semaphore::new(connections.spare)),
            handshakes: settings.limits.handshakes,
            memory: request_memory(settings.http_body_limit),
            handshake_timeout,
            ..Limits::default()
        };
        let banner = {
            let ca = served.as_ref().and_then(|served| served.development_ca.as_deref());
            let names =
                status.identities.as_ref().map(|i| i.served().identity().leaf().names.clone()).unwrap_or_default();
            banner::text(&settings, &endpoints, &names, ca, mode == ClientAuth::Required)
        };
        let callers = AuthContext {
            policy: policies,
            throttle: Arc::new(Throttle::new(settings.limits.auth_failures)),
            proxies: TrustedProxies::new(std::mem::take(&mut settings.trusted_proxies)),
        };
        exposure::report(&settings, &endpoints, &callers);
        let behind = EndpointDeps {
            engine,
            ready,
            status,
            metrics,
            http: HttpOptions { responsive: Some(responsive.healthy), ..http },
            signing_secret: ticket_secret,
            guards_metrics: settings.auth.metrics,
            query_timeout: settings.query_timeout,
        };
        let routers = routes::build(endpoints, behind, &callers);
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Ok(Self {
            routers,
            reloading: ReloadCoordinator::new(
                ReloadableState::new(pod.clone(), files, served, policy, fixed),
                follower,
                stores.0,
                asked,
            ),
            connections: connections.own,
            limits,
            workers: Workers::start(cores).map_err(|e| Failure::Other(e.to_string()))?,
            stopping,
            shutdown: (settings.shutdown_delay, settings.shutdown_timeout),
            banner,
        })
    }

    /// Serves until a stop signal arrives, then drains the connections.
    async fn serve(self, start: &StartSignals) -> Result<(), Failure> {
        let mut signals = Signals::listen(start).map_err(|e| Failure::Other(e.to_string()))?;
        let (trigger, drain) = drain::channel();
        let mut loops = JoinSet::new();
        for (endpoint, router) in self.routers {
            for address in endpoint.addresses() {
                info!(endpoint = endpoint.endpoint, %address, tls = endpoint.is_tls(), "listening");
            }
            let router = router.layer(Stack::new(well_formed(), request_metrics(endpoint.endpoint)));
            endpoint.serve(router, self.connections, &self.limits, &self.workers, &drain, &mut loops);
        }
        // Standard output may be closed; the server runs all the same.
        let _ = std::io::stdout().write_all(self.banner.as_bytes()).and_then(|()| std::io::stdout().flush());
        info!("serving");

        tokio::spawn(spiced_telemetry::report_suppressed());
        let mut reloading = self.reloading;
        loop {
            tokio::select! {
                told = signals.next() => match told {
                    Told::Stop => break,
                    Told::Reload => reloading.told(),
                },
                () = reloading.next() => {}
                Some(ended) = loops.join_next() => {
                    let cause = match ended {
                        Ok(Ok(())) => "it ended by itself".to_owned(),
                        Ok(Err(e)) => e.to_string(),
                        Err(e) => e.to_string(),
                    };
                    return Err(Failure::Other(format!("an accept loop is lost: {cause}")));
                }
            }
        }
        let (delay, timeout) = self.shutdown;
        self.stopping.send_replace(true);
        trigger.announce();
        info!(?delay, ?timeout, "stopping: readiness is off; a second signal ends at once");
        let orderly = async {
            tokio::time::sleep(delay).await;
            // The health watches end when readiness ends; otherwise they would hold their connections open.
            drop(self.stopping);
            trigger.drain(timeout).await
        };
        tokio::select! {
            left = orderly => match left {
                0 => info!("stopped"),
                left => warn!(connections = left, "stopped; the shutdown timeout ended what still ran"),
            },
            () = signals.stop() => warn!("stopped at once by a second signal"),
        }
        Ok(())
    }
}

/// Wraps the engine for the endpoints: every statement is subject to the caller's role and the limits, and is observed.
fn guarded(engine: DataFusionEngine, settings: &Settings, history: Arc<History>) -> Guarded<DataFusionEngine> {
    let limits =
        |turns: spiced_config::ConcurrencySettings| RoleLimits { running: turns.running, waiting: turns.waiting };
    let admission = AdmissionControl::new(limits(settings.readers), limits(settings.writers), settings.queue_timeout);
    let bound = |bound: Option<usize>| bound.map(|bound| bound as u64);
    let bounds = ResultLimits { rows: bound(settings.max_result_rows), bytes: bound(settings.max_result_bytes) };
    let guarded = Guarded::new(engine).admitted_by(admission).limited(bounds);
    guarded.observed(Arc::new(AuditLog)).observed(Arc::new(Statements)).observed(history)
}

fn start_engine(
    settings: &Settings,
    identities: Option<Identities>,
    history: &Arc<History>,
    runtimes: &Queries,
) -> Result<DataFusionEngine, Failure> {
    let Queries { readers, writers } = runtimes;
    let mut options = EngineOptions::new(writers.handle().clone());
    let metrics = settings.listen.metrics.as_ref().map(|_| "metrics");
    let endpoints = ["http", "flight", "grpc"].into_iter().chain(metrics).collect();
    options.views =
        settings.views.iter().map(|view| ViewSpec { name: view.name.clone(), sql: view.sql.clone() }).collect();
    options.system = vec![tables::tls(endpoints, identities), history.table()];
    let retention = Retention { age: settings.telemetry_retention, bytes: settings.telemetry_memory };
    let kept = |(table, columns): (&str, _)| RetainedSpec {
        schema: spiced_grpc::TELEMETRY_SCHEMA.to_owned(),
        table: table.to_owned(),
        columns,
        retention,
    };
    options.retained = spiced_grpc::telemetry_tables().into_iter().map(kept).collect();
    options.host_paths = settings.host_paths.clone();
    options.query_timeout = settings.query_timeout;
    options.memory_limit = settings.query_memory;
    options.process_memory_limit = Some(settings.process_memory);
    options.max_statement_size = settings.max_statement_size;
    options.spill_directory = settings.spill_directory.clone();
    options.spill_limit = settings.spill_limit as u64;
    options.readers = Some(readers.handle().clone());
    options.datasets = settings
        .datasets
        .iter()
        .map(|set| DatasetSpec {
            name: set.name.clone(),
            from: set.from.clone(),
            writable: set.writable,
            folder: settings.folder.clone(),
            params: set.params.clone(),
            columns: set
                .columns
                .iter()
                .map(|c| ColumnSpec { name: c.name.clone(), sql_type: c.data_type.clone(), nullable: c.nullable })
                .collect(),
        })
        .collect();
    DataFusionEngine::start(options).map_err(|e| Failure::Configuration {
        causes: e.causes().to_vec(),
        hints: vec!["change the data sets in spicepod.yaml".to_owned()],
    })
}

/// Limits how much memory request bodies may use: enough for several bodies of the maximum size.
fn request_memory(body_limit: usize) -> RequestMemory {
    const PROCESS: usize = 512 << 20;
    const CONNECTION: usize = 64 << 20;
    RequestMemory::new(PROCESS.max(body_limit.saturating_mul(8)), CONNECTION.max(body_limit.saturating_mul(2)))
}

/// Returns how many connections the endpoints may have: the configured limit, capped by the file descriptors that the
/// system allows this process.
fn connections(settings: &Settings, endpoints: usize) -> Shares {
    let open_files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
    let all = open_files.saturating_sub(SPARE_DESCRIPTORS.min(open_files / 2));
    let most = settings.limits.connections.min(Semaphore::MAX_PERMITS);
    let shares = Shares::of(most, usize::try_from(all).unwrap_or(usize::MAX), endpoints);
    if shares.own < most {
        let Shares { own, spare } = shares;
        info!(
            each = own,
            shared = spare,
            open_files,
            "the limit of open files bounds how many connections there can be"
        );
    }
    shares
}

/// How connections are divided: those reserved for each endpoint, and those shared by all. A flooded endpoint cannot
/// use up the connections of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shares {
    own: usize,
    spare: usize,
}

impl Shares {
    /// Divides `all` connections: no endpoint gets more than `most`. All endpoints together get no more than `all`,
    /// except that each gets at least one.
    fn of(most: usize, all: usize, endpoints: usize) -> Self {
        let endpoints = endpoints.max(1);
        if all / endpoints >= most {
            return Self { own: most, spare: 0 };
        }
        // Reserves half of an even share for each endpoint; more if the other endpoints can still reach their maximum.
        let own = (all / (2 * endpoints)).max(all.saturating_sub(most) / (endpoints - 1).max(1)).max(1);
        Self { own, spare: all.saturating_sub(own * endpoints).min(most - own) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_endpoint_leaves_the_others_theirs() {
        for (most, all, own, spare) in [
            (10_000, 1 << 20, 10_000, 0),
            (10_000, 30_000, 10_000, 0),
            (10_000, 29_999, 9_999, 1),
            (10_000, 19_744, 4_872, 5_128),
            (10_000, 768, 128, 384),
            (10, 20, 5, 5),
            (10, 0, 1, 0),
            (1, 0, 1, 0),
        ] {
            assert_eq!(Shares::of(most, all, 3), Shares { own, spare }, "{most} of {all}");
        }
    }
}
