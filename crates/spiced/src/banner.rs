//! What a person reads on standard output at the start: each door's address and a line to paste.

use std::fmt::Write;
use std::path::Path;

use crate::doors::Opened;

/// The lines. `ca` is what a client has to trust, where that is known; `query` a statement worth
/// trying.
pub(crate) fn text<'d>(name: &str, doors: impl Iterator<Item = &'d Opened>, ca: Option<&Path>, query: &str) -> String {
    let mut out = format!("\nspiced {} serves `{name}`\n\n", env!("CARGO_PKG_VERSION"));
    for door in doors {
        let host = format!("{}:{}", door.host(), door.port());
        let address = format!("{}://{host}", door.scheme());
        let _ = writeln!(out, "  {:<8} {address}", door.endpoint);
        let _ = writeln!(out, "           {}", line(door, &host, ca, query));
    }
    out.push('\n');
    out
}

fn line(door: &Opened, host: &str, ca: Option<&Path>, query: &str) -> String {
    let tls = door.is_tls();
    let ca = ca.filter(|_| tls).map(|path| path.display().to_string());
    let curl_ca = ca.as_ref().map_or(String::new(), |ca| format!("--cacert {} ", quoted(ca)));
    let scheme = if tls { "https" } else { "http" };
    match door.endpoint {
        "http" => format!("curl {curl_ca}{scheme}://{host}/v1/sql -H 'Accept: text/plain' -d {}", quoted(query)),
        "flight" => {
            let (scheme, trust) = match (&ca, tls) {
                (Some(ca), _) => ("grpc+tls", format!(", tls_root_certs=open({ca:?}).read()")),
                (None, true) => ("grpc+tls", String::new()),
                (None, false) => ("grpc", String::new()),
            };
            let python = format!(
                "import pyarrow.flight as f; c = f.connect(\"{scheme}://{host}\"{trust}); i = c.get_flight_info(f.FlightDescriptor.for_command({query:?})); print(c.do_get(i.endpoints[0].ticket).read_all())"
            );
            format!("python3 -c {}", quoted(&python))
        }
        "grpc" => {
            let trust = match (&ca, tls) {
                (Some(ca), _) => format!("-cacert {}", quoted(ca)),
                (None, true) => String::new(),
                (None, false) => "-plaintext".to_owned(),
            };
            format!("grpcurl {trust} {host} grpc.health.v1.Health/Check").replace("  ", " ")
        }
        "metrics" => format!("curl {curl_ca}{scheme}://{host}/metrics"),
        _ => format!("curl {scheme}://{host}/v1/ready"),
    }
}

/// As a shell reads it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
