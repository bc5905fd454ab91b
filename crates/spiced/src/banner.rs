//! What a person reads on standard output at the start: each door's address and a line to paste.

use std::fmt::Write;
use std::path::Path;

use spiced_config::Settings;

use crate::clients::{self, DoorAt, Target, Trust};
use crate::doors::{Doors, Opened};

/// The lines. `names` are those of the certificate, `ca` what a client has to trust, where that is known;
/// `required`: there is no connection without a client certificate.
pub(crate) fn text(settings: &Settings, doors: &Doors, names: &[String], ca: Option<&Path>, required: bool) -> String {
    let (name, auth) = (&settings.name, &settings.auth);
    let at = |door: &Opened| DoorAt::new(door.asked(), door.port(), if door.is_tls() { names } else { &[] });
    let trust = match ca {
        Some(ca) => Trust::File(ca.to_owned()),
        None => Trust::System,
    };
    let target = Target {
        http: at(&doors.http),
        flight: at(&doors.flight),
        grpc: at(&doors.grpc),
        metrics: doors.metrics.as_ref().map(at),
        probe: doors.probe.as_ref().map(at),
        trust: doors.http.is_tls().then_some(trust),
        query: settings.sample_query(),
        key: auth.keys.is_some(),
        metrics_key: auth.keys.is_some() && auth.metrics,
        certificate: required,
    };
    let mut out = format!("\nspiced {} serves `{name}`\n\n", env!("CARGO_PKG_VERSION"));
    for door in doors.iter() {
        let _ = writeln!(out, "  {:<8} {}://{}", door.endpoint, door.scheme(), at(door).authority());
        let line = match door.endpoint {
            "http" => clients::curl(&target),
            "flight" => clients::sql(&target),
            "metrics" => clients::curl_get(&target, &at(door), door.is_tls(), "/metrics"),
            "probe" => clients::curl_get(&target, &at(door), false, "/v1/ready"),
            _ => continue,
        };
        let _ = write!(out, "           {line}");
    }
    out.push_str("\n  more clients: spiced connect\n\n");
    out
}
