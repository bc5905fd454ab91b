//! Logs and metrics: how they are set up, and what they are called. Whoever records uses the
//! facades (`tracing`, `metrics`); only the program calls this.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod certificates;
mod logs;
mod prometheus;

pub use logs::{LogError, LogFormat, init_logs};
pub use prometheus::{METRICS, Metric, Metrics, MetricsError};
