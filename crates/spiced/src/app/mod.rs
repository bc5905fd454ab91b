//! Runs the program: a command, or the server from its settings to its shutdown.

mod build;
mod connections;
mod core_dumps;
mod engine;
mod serve;
mod signals;

use std::io;
use std::time::Duration;

use spiced_certs::FileWatch;
use tokio::runtime::Builder;
use tracing::{info, warn};

use crate::args::{Args, LogArgs, PodArgs};
use crate::failure::Failure;
use crate::{commands, config};
use build::App;
use engine::QueryRuntimes;
use signals::Signals;

/// How long each runtime may take to shut down when the process exits.
const LAST_WAIT: Duration = Duration::from_millis(500);

/// Runs the command that the command line asks for. Without a subcommand, loads the configuration, serves, and returns
/// after a clean shutdown.
///
/// # Errors
/// Fails if the command fails, or if the server cannot start or shut down cleanly.
pub fn run(args: Args) -> Result<(), Failure> {
    // Before any secret is read.
    let core_dumps = if args.allows_core_dumps() { Ok(()) } else { core_dumps::forbid() };
    match args.split() {
        (Some(command), ..) => commands::run(command),
        (None, pod, log) => {
            let signals = Signals::listen().map_err(|e| Failure::Other(format!("cannot handle signals: {e}")))?;
            serve(&pod, &log, core_dumps, signals)
        }
    }
}

fn serve(pod: &PodArgs, log: &LogArgs, core_dumps: io::Result<()>, mut signals: Signals) -> Result<(), Failure> {
    let filter = std::env::var("SPICED_LOG").ok();
    spiced_telemetry::init_logs(log.format(), log.verbosity(), filter.as_deref())
        .map_err(|e| Failure::configuration(e, "SPICED_LOG takes a filter such as info,spiced=debug"))?;
    tls_core::install_provider();
    if let Err(error) = core_dumps {
        warn!(%error, "core dumps cannot be disabled; one would contain secrets");
    }
    // This thread runs the accept loops, signals and timers; connections and queries run on other threads.
    let control = Builder::new_current_thread().enable_all().build().map_err(|e| Failure::Other(e.to_string()))?;
    let queries = QueryRuntimes::start()?;
    let start = async {
        // Created before the pod is read, so that a change in between is noticed.
        let files = FileWatch::new(config::files(pod));
        let (settings, resolver) = config::settle(pod).await?;
        if pod.shows_key() {
            warn!("--tls-key exposes the key to anyone who can list processes; use --tls-key-file or a secret");
        }
        for warning in &settings.warnings {
            warn!("{warning}");
        }
        let key_log = key_log(log);
        App::build(pod, files, settings, resolver, key_log, &queries)
    };
    let outcome = control.block_on(async {
        let app = tokio::select! {
            biased;
            () = signals.stopped() => None,
            app = start => Some(app),
        };
        match app.filter(|_| !signals.stopped_the_start()) {
            Some(app) => app?.serve(signals).await,
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
            warn!(%file, "--insecure-key-log: anyone who reads this file can read every connection; for debugging only");
            return true;
        }
        (true, None) => warn!("--insecure-key-log has no effect: SSLKEYLOGFILE names no file"),
        (false, Some(_)) => info!("SSLKEYLOGFILE is set and has no effect without --insecure-key-log"),
        (false, None) => {}
    }
    false
}
