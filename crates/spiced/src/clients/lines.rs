//! The lines, client by client. What is printed here is run by the tests as it is.

use crate::clients::{DoorAt, Target};
use crate::shell::quoted;

pub(crate) fn curl(target: &Target) -> String {
    let url = format!("{}/v1/sql", url(target, &target.http));
    let ca = option(target, "--cacert");
    format!("curl {ca}{url} -H 'Accept: text/plain' -d {}\n", quoted(&target.query))
}

/// A plain GET, over TLS or not.
pub(crate) fn curl_get(target: &Target, door: &DoorAt, tls: bool, path: &str) -> String {
    let (scheme, ca) = if tls { ("https", option(target, "--cacert")) } else { ("http", String::new()) };
    format!("curl {ca}{scheme}://{}{path}\n", door.authority())
}

pub(crate) fn sql(target: &Target) -> String {
    let ca = option(target, "--tls-root-certificate-file");
    format!("spiced sql --endpoint {} {ca}{}\n", flight_url(target), quoted(&target.query))
}

pub(crate) fn openssl(target: &Target) -> String {
    if !target.tls() {
        return "# the doors speak plain text: there is no certificate to see\n".to_owned();
    }
    let DoorAt { host, .. } = &target.http;
    let name = if host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok() {
        format!("-verify_ip {}", host.trim_matches(['[', ']']))
    } else {
        format!("-servername {host} -verify_hostname {host}")
    };
    let ca = option(target, "-CAfile");
    format!("openssl s_client -connect {} {name} {ca}-verify_return_error -brief </dev/null\n", target.http.authority())
}

pub(crate) fn pyarrow(target: &Target) -> String {
    let trust = target.ca().map_or(String::new(), |ca| format!(", tls_root_certs=open({ca:?}).read()"));
    python(&format!(
        "import pyarrow.flight as flight\n\
         client = flight.connect(\"{}\"{trust})\n\
         info = client.get_flight_info(flight.FlightDescriptor.for_command({:?}))\n\
         print(client.do_get(info.endpoints[0].ticket).read_all())\n",
        flight_url(target),
        target.query,
    ))
}

pub(crate) fn adbc(target: &Target) -> String {
    python(&format!(
        "{}with flightsql.connect({}) as connection, connection.cursor() as cursor:\n    \
             cursor.execute({:?})\n    \
             print(cursor.fetch_arrow_table())\n",
        adbc_imports(target),
        adbc_arguments(target),
        target.query,
    ))
}

pub(crate) fn polars(target: &Target) -> String {
    python(&format!(
        "import polars\n{}with flightsql.connect({}) as connection:\n    print(polars.read_database({:?}, connection))\n",
        adbc_imports(target),
        adbc_arguments(target),
        target.query,
    ))
}

fn adbc_imports(target: &Target) -> &'static str {
    match target.ca() {
        Some(_) => {
            "import adbc_driver_flightsql.dbapi as flightsql\nfrom adbc_driver_flightsql import DatabaseOptions\n"
        }
        None => "import adbc_driver_flightsql.dbapi as flightsql\n",
    }
}

fn adbc_arguments(target: &Target) -> String {
    let trust = target
        .ca()
        .map_or(String::new(), |ca| format!(", {{DatabaseOptions.TLS_ROOT_CERTS.value: open({ca:?}).read()}}"));
    format!("\"{}\"{trust}, autocommit=True", flight_url(target))
}

pub(crate) fn grpc(target: &Target) -> String {
    let authority = target.grpc.authority();
    let channel = match (target.tls(), target.ca()) {
        (true, Some(ca)) => {
            format!("grpc.secure_channel(\"{authority}\", grpc.ssl_channel_credentials(open({ca:?}, \"rb\").read()))")
        }
        (true, None) => format!("grpc.secure_channel(\"{authority}\", grpc.ssl_channel_credentials())"),
        (false, _) => format!("grpc.insecure_channel(\"{authority}\")"),
    };
    python(&format!(
        "import grpc\n\
         from grpc_health.v1 import health_pb2, health_pb2_grpc\n\
         with {channel} as channel:\n    \
             print(health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()))\n"
    ))
}

pub(crate) fn go(target: &Target) -> String {
    let (import, credentials, option) = match (target.tls(), target.ca()) {
        (true, Some(ca)) => (
            "\n\t\"google.golang.org/grpc/credentials\"",
            format!(
                "\tcreds, err := credentials.NewClientTLSFromFile({ca:?}, \"\")\n\tif err != nil {{\n\t\tlog.Fatal(err)\n\t}}\n"
            ),
            "grpc.WithTransportCredentials(creds)",
        ),
        (true, None) => (
            "\n\t\"google.golang.org/grpc/credentials\"",
            "\tcreds := credentials.NewClientTLSFromCert(nil, \"\")\n".to_owned(),
            "grpc.WithTransportCredentials(creds)",
        ),
        // Old releases, such as Debian's, have no package `insecure`.
        (false, _) => ("", String::new(), "grpc.WithInsecure()"),
    };
    format!(
        "cat > main.go <<'EOF'\n\
         package main\n\n\
         import (\n\t\"context\"\n\t\"fmt\"\n\t\"log\"\n\n\t\"google.golang.org/grpc\"{import}\n\
         \thealth \"google.golang.org/grpc/health/grpc_health_v1\"\n)\n\n\
         func main() {{\n\
         {credentials}\
         \tconn, err := grpc.Dial({:?}, {option})\n\
         \tif err != nil {{\n\t\tlog.Fatal(err)\n\t}}\n\
         \tdefer conn.Close()\n\
         \tanswer, err := health.NewHealthClient(conn).Check(context.Background(), &health.HealthCheckRequest{{}})\n\
         \tif err != nil {{\n\t\tlog.Fatal(err)\n\t}}\n\
         \tfmt.Println(answer.Status)\n\
         }}\n\
         EOF\n\
         go run main.go\n",
        target.grpc.authority(),
    )
}

pub(crate) fn node(target: &Target) -> String {
    let trust = target.ca().map_or(String::new(), |ca| format!("NODE_EXTRA_CA_CERTS={} ", quoted(&ca)));
    format!(
        "{trust}node - <<'EOF'\n\
         const {{ SpiceClient }} = require(\"@spiceai/spice\");\n\
         const client = new SpiceClient({{ httpUrl: \"{}\", flightUrl: \"{}\", flightTlsEnabled: {} }});\n\
         client.sql({:?}).then((table) => console.log(table.toArray().map(String).join(\"\\n\")));\n\
         EOF\n",
        url(target, &target.http),
        target.flight.authority(),
        target.tls(),
        target.query,
    )
}

pub(crate) fn jdbc(target: &Target) -> String {
    let trust = target.ca().map_or(String::new(), |ca| format!("&tlsRootCerts={ca}"));
    format!("jdbc:arrow-flight-sql://{}/?useEncryption={}{trust}\n", target.flight.authority(), target.tls())
}

pub(crate) fn prometheus(target: &Target) -> String {
    let Some(metrics) = &target.metrics else {
        return "# the metrics door is off: switch it on with --metrics localhost:9090, or runtime.listen.metrics\n"
            .to_owned();
    };
    let scheme = if target.tls() { "https" } else { "http" };
    let trust = target.ca().map_or(String::new(), |ca| format!("    tls_config: {{ ca_file: {ca:?} }}\n"));
    format!(
        "scrape_configs:\n  - job_name: spiced\n    scheme: {scheme}\n{trust}    static_configs: [{{ targets: [{:?}] }}]\n",
        metrics.authority(),
    )
}

pub(crate) fn kubernetes_probe(target: &Target) -> String {
    // A kubelet does not check the certificate, so there is nothing to trust.
    let (door, scheme) = match &target.probe {
        Some(probe) => (probe, "HTTP"),
        None => (&target.http, if target.tls() { "HTTPS" } else { "HTTP" }),
    };
    let option = if target.probe.is_some() { "probe" } else { "http" };
    let reach = match door.loopback {
        true => format!(
            "# a kubelet comes from outside the pod: listen on all addresses, --{option} 0.0.0.0:{}\n",
            door.port
        ),
        false => String::new(),
    };
    let check = |path: &str| format!("{{ path: {path}, port: {}, scheme: {scheme} }}", door.port);
    format!(
        "{reach}livenessProbe:\n  httpGet: {}\nreadinessProbe:\n  httpGet: {}\n",
        check("/health"),
        check("/v1/ready")
    )
}

fn python(program: &str) -> String {
    format!("python3 - <<'EOF'\n{program}EOF\n")
}

/// `--option FILE ` where a CA is to be named.
fn option(target: &Target, option: &str) -> String {
    target.ca().map_or(String::new(), |ca| format!("{option} {} ", quoted(&ca)))
}

fn url(target: &Target, door: &DoorAt) -> String {
    format!("{}://{}", if target.tls() { "https" } else { "http" }, door.authority())
}

fn flight_url(target: &Target) -> String {
    format!("{}://{}", if target.tls() { "grpc+tls" } else { "grpc" }, target.flight.authority())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::{CLIENTS, Trust};

    fn every_line(trust: Option<Trust>, port: u16) -> String {
        let door = |port| DoorAt { host: "localhost".to_owned(), port, loopback: true };
        let target = Target {
            http: door(3000),
            flight: door(50051),
            grpc: door(50052),
            metrics: (port > 0).then(|| door(port)),
            probe: (port > 0).then(|| door(port + 1)),
            trust,
            query: "SELECT 'it''s' LIMIT 5".to_owned(),
        };
        CLIENTS
            .iter()
            .map(|client| format!("# {}\n{}{}\n", client.name, target.note(), (client.lines)(&target)))
            .collect()
    }

    #[test]
    fn with_a_ca_of_ones_own() {
        insta::assert_snapshot!(every_line(Some(Trust::File("a folder/ca.pem".into())), 9090));
    }

    #[test]
    fn with_a_ca_that_is_not_here() {
        insta::assert_snapshot!(every_line(Some(Trust::Issuer("CN=Corporate Root".into())), 0));
    }

    #[test]
    fn with_a_public_ca() {
        insta::assert_snapshot!(every_line(Some(Trust::System), 0));
    }

    #[test]
    fn in_plain_text() {
        insta::assert_snapshot!(every_line(None, 9090));
    }
}
