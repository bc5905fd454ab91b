//! The settings that only a restart changes.

use std::time::Duration;

use tls_core::{ListenAddress, Sourced};

use super::{Column, Dataset, EndpointKind, Http, Limits, Listen, Otel, Settings, Sql, TlsVersion, View};

/// Settings that a reload does not change, without the places where they are written.
#[derive(Debug, PartialEq, Eq)]
pub struct RestartOnlySettings {
    listen: ([Option<ListenAddress>; 5], Vec<EndpointKind>),
    tls: Option<(TlsVersion, Duration)>,
    guards_metrics: bool,
    sql: Sql,
    otel: Otel,
    limits: Limits,
    http: Http,
    allowed_origins: Option<Vec<String>>,
    shutdown: (Duration, Duration),
    datasets: Vec<RestartOnlyDataset>,
    views: Vec<View>,
}

/// A data set without the values of its parameters: a secret that has changed is not a change of the pod.
#[derive(Debug, PartialEq, Eq)]
struct RestartOnlyDataset {
    name: String,
    from: String,
    writable: bool,
    params: Vec<String>,
    columns: Vec<Column>,
}

impl RestartOnlySettings {
    /// Takes them from `settings`.
    pub fn of(settings: &Settings) -> Self {
        let Settings { runtime, datasets, views, .. } = settings;
        let Listen { http, flight, grpc, metrics, probe, proxy_protocol } = &runtime.listen;
        let addresses = [Some(http), Some(flight), Some(grpc), metrics.as_ref(), probe.as_ref()];
        let dataset = |set: &Dataset| RestartOnlyDataset {
            name: set.name.clone(),
            from: set.from.clone(),
            writable: set.writable,
            params: set.params.keys().cloned().collect(),
            columns: set.columns.clone(),
        };
        let allowed = |origins: &Vec<Sourced<String>>| origins.iter().map(|origin| origin.value.clone()).collect();
        Self {
            listen: (addresses.map(|address| address.map(|a| a.value.clone())), proxy_protocol.clone()),
            tls: runtime.tls.as_ref().map(|tls| (tls.min_version, tls.handshake_timeout)),
            guards_metrics: runtime.auth.metrics,
            sql: runtime.sql.clone(),
            otel: runtime.otel.clone(),
            limits: runtime.limits.clone(),
            http: runtime.http.clone(),
            allowed_origins: runtime.cors.allowed_origins.as_ref().map(allowed),
            shutdown: (runtime.shutdown_delay, runtime.shutdown_timeout),
            datasets: datasets.iter().map(dataset).collect(),
            views: views.clone(),
        }
    }

    /// Returns the keys in the pod whose values are not those of `other`.
    pub fn changed(&self, other: &Self) -> Vec<&'static str> {
        let parts = [
            ("runtime.listen", self.listen == other.listen),
            ("runtime.tls.min_version or handshake_timeout", self.tls == other.tls),
            ("runtime.auth.metrics", self.guards_metrics == other.guards_metrics),
            ("runtime.sql", self.sql == other.sql),
            ("runtime.otel", self.otel == other.otel),
            ("runtime.limits", self.limits == other.limits),
            ("runtime.http or runtime.cors", self.http == other.http && self.allowed_origins == other.allowed_origins),
            ("runtime.shutdown", self.shutdown == other.shutdown),
            ("datasets", self.datasets == other.datasets),
            ("views", self.views == other.views),
        ];
        parts.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
    }
}
