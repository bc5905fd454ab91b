//! Sets up logs and metrics, and names the metrics. Other crates record through the facades (`tracing` and `metrics`);
//! only the program itself calls this crate.
//!
//! ```
//! use spiced_telemetry::{LogFormat, METRICS, Metrics, init_logs};
//!
//! init_logs(LogFormat::Text, 0, Some("warn")).expect("a filter, and nobody was here before");
//! let metrics = Metrics::install(Vec::new()).expect("nobody was here before");
//! metrics::counter!("spiced_tls_reload_total", "result" => "swapped").increment(1);
//! assert!(metrics.render().contains("spiced_tls_reload_total{result=\"swapped\"} 1"));
//! assert!(METRICS.iter().any(|metric| metric.name == "spiced_tls_reload_total"));
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod certificates;
mod line_limit;
mod logs;
mod metric;
mod printable;
mod prometheus;

pub use line_limit::report_suppressed;
pub use logs::{LogError, LogFormat, init_logs};
pub use metric::{METRICS, Metric};
pub use prometheus::{Metrics, MetricsError};
