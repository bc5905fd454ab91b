//! The recorder behind the `metrics` facade, and the text format for Prometheus.

use std::sync::Arc;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::Redirect;
use axum::routing::get;
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tls_core::ClientAuthPolicy;
use tls_core::rotation::Identities;
use tokio::sync::watch;

use crate::certificates;
use crate::metric::METRICS;

/// Histogram buckets, from a tenth of a millisecond to a minute.
const SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// The metrics of this process.
#[derive(Clone)]
pub struct Metrics {
    recorder: PrometheusHandle,
    served: Arc<[(&'static str, Identities)]>,
    clients: Option<watch::Receiver<Arc<ClientAuthPolicy>>>,
}

impl Metrics {
    /// Installs the recorder behind the facade. `served` holds the identities of each endpoint.
    ///
    /// # Errors
    /// Fails if a recorder is already installed.
    pub fn install(served: Vec<(&'static str, Identities)>) -> Result<Self, MetricsError> {
        let builder = PrometheusBuilder::new().set_buckets(SECONDS).map_err(|e| MetricsError(e.to_string()))?;
        let recorder = builder.install_recorder().map_err(|e| MetricsError(e.to_string()))?;
        for metric in METRICS {
            match metric.kind {
                "counter" => describe_counter!(metric.name, metric.help),
                "histogram" => describe_histogram!(metric.name, Unit::Seconds, metric.help),
                _ => describe_gauge!(metric.name, metric.help),
            }
        }
        Ok(Self { recorder, served: served.into(), clients: None })
    }

    /// Adds the metrics of the CAs whose client certificates are accepted.
    #[must_use]
    pub fn with_clients(self, clients: watch::Receiver<Arc<ClientAuthPolicy>>) -> Self {
        Self { clients: Some(clients), ..self }
    }

    /// Returns the metrics in the Prometheus text format.
    pub fn render(&self) -> String {
        self.recorder.run_upkeep();
        let mut text = self.recorder.render();
        certificates::render(&self.served, &mut text);
        if let Some(clients) = &self.clients {
            certificates::render_clients(&clients.borrow(), &mut text);
        }
        text
    }

    /// Returns a router for `GET /metrics`.
    pub fn router(self) -> Router {
        let text = move || async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], self.render()) };
        Router::new().route("/metrics", get(text)).route("/", get(|| async { Redirect::temporary("/metrics") }))
    }
}

/// Metrics cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be set up: {0}")]
pub struct MetricsError(String);
