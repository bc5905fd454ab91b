//! The banner on standard output at startup: the address of each endpoint, and a command to paste.

use std::fmt::Write;

use spiced_client_snippets::{EndpointUrl, Target, Trust};
use spiced_config::Settings;

use crate::endpoints::{BoundEndpoint, Endpoints};
use crate::tls::Served;

/// Returns the banner. `required` means that every connection needs a client certificate.
pub(crate) fn text(settings: &Settings, endpoints: &Endpoints, served: Option<&Served>, required: bool) -> String {
    let names = served.map(|served| served.identities.served().identity().leaf().names.clone()).unwrap_or_default();
    let ca = served.and_then(|served| served.development_ca.as_deref());
    let (name, auth) = (&settings.name, &settings.runtime.auth);
    let at = |endpoint: &BoundEndpoint| {
        EndpointUrl::new(endpoint.asked(), endpoint.port(), if endpoint.is_tls() { names.as_slice() } else { &[] })
    };
    let trust = match ca {
        Some(ca) => Trust::File(ca.to_owned()),
        None => Trust::System,
    };
    let target = Target {
        http: at(&endpoints.http),
        flight: at(&endpoints.flight),
        grpc: at(&endpoints.grpc),
        metrics: endpoints.metrics.as_ref().map(at),
        probe: endpoints.probe.as_ref().map(at),
        trust: endpoints.http.is_tls().then_some(trust),
        query: settings.sample_query(),
        key: auth.keys.is_some(),
        metrics_key: auth.keys.is_some() && auth.metrics,
        certificate: required,
    };
    let mut out = format!("\nspiced {} serves `{name}`\n\n", env!("CARGO_PKG_VERSION"));
    for endpoint in endpoints.iter() {
        let _ = writeln!(out, "  {:<8} {}://{}", endpoint.endpoint, endpoint.scheme(), at(endpoint).authority());
        let line = match endpoint.endpoint {
            "http" => spiced_client_snippets::curl(&target),
            "flight" => spiced_client_snippets::sql(&target),
            "metrics" => spiced_client_snippets::curl_get(&target, &at(endpoint), endpoint.is_tls(), "/metrics"),
            "probe" => spiced_client_snippets::curl_get(&target, &at(endpoint), false, "/v1/ready"),
            _ => continue,
        };
        let _ = write!(out, "           {line}");
    }
    out.push_str("\n  more clients: spiced connect\n\n");
    out
}
