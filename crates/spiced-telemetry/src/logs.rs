//! Sets up the log: its format, its destination and its filter.

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::line_limit::LineLimit;
use crate::printable::PrintableFields;

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Human-readable text.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Writes log lines to standard error. `filter` is a tracing filter (`SPICED_LOG`). Without a filter, `verbosity`
/// selects the lines: 0 for what an operator should see, 1 for more from spiced, 2 for everything from spiced.
///
/// # Errors
/// Fails if the filter is malformed.
pub fn init_logs(format: LogFormat, verbosity: u8, filter: Option<&str>) -> Result<(), LogError> {
    let ours = match verbosity {
        0 => {
            "warn,aws_config=off,kube_client=off,rustls_platform_verifier=off,spiced=info,tls_core=info,spiced_certs=info,spiced_secrets=info,spiced_datafusion=info,spiced_http=info,spiced_flight=info,spiced_grpc=info"
        }
        1 => {
            "info,aws_config=off,kube_client=off,rustls_platform_verifier=off,spiced=debug,tls_core=debug,spiced_certs=debug,spiced_secrets=debug,spiced_datafusion=debug,spiced_http=debug,spiced_flight=debug"
        }
        _ => "debug,h2=info,hyper_util=info,sqlparser=info,datafusion=info,datafusion_optimizer=info",
    };
    // The error quotes the filter, which must not be repeated.
    let filter = EnvFilter::try_new(filter.unwrap_or(ours)).map_err(|_| LogError("it is malformed".to_owned()))?;
    // Without the hint, every line of every library would be built, regardless of its level, before it is discarded.
    let harmless = filter_fn(|line| !tells_secrets(line)).with_max_level_hint(LevelFilter::TRACE);
    let filter = filter.and(harmless).and(LineLimit);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Json => tracing_subscriber::registry().with(lines.json().with_filter(filter)).try_init(),
        LogFormat::Text => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
            let lines = lines.fmt_fields(PrintableFields).with_ansi(colour).with_target(false);
            tracing_subscriber::registry().with(lines.with_filter(filter)).try_init()
        }
    }
    .map_err(|e| LogError(e.to_string()))
}

/// Returns true for lines that no filter may enable. At `trace` the AWS SDK logs whole requests and responses,
/// including session tokens. At `debug` the SQL parser and planner log a statement's text and literals, which may be
/// another user's data or a credential. `EXPLAIN VERBOSE` shows a plan to the caller it belongs to.
fn tells_secrets(line: &Metadata<'_>) -> bool {
    const STATEMENTS: [&str; 4] = ["sqlparser", "datafusion", "tokio_postgres", "postgres"];
    let is_of = |krate: &str| {
        let rest = line.target().strip_prefix(krate);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::") || rest.starts_with('_'))
    };
    match *line.level() {
        Level::TRACE if line.target().starts_with("aws_") => true,
        Level::TRACE | Level::DEBUG => STATEMENTS.into_iter().any(is_of),
        _ => false,
    }
}

/// The log cannot be set up with this filter.
#[derive(Debug, thiserror::Error)]
#[error("the log filter cannot be used: {0}")]
pub struct LogError(String);
