//! The snippets of each client. The tests run them exactly as printed.

use super::shell_quote::quoted;
use crate::{EndpointUrl, Target};

/// A query over HTTP.
pub fn curl(target: &Target) -> String {
    let url = format!("{}/v1/sql", url(target, &target.http));
    let ca = option(target, "--cacert");
    let who = curl_credentials(target, target.key);
    format!("curl {ca}{who}{url} -H 'Accept: text/plain' -d {}\n", quoted(&target.query))
}

fn curl_credentials(target: &Target, key: bool) -> String {
    let certificate = if target.certificate { "--cert client.pem --key client-key.pem " } else { "" };
    format!("{certificate}{}", if key { "-H \"X-API-Key: $SPICE_API_KEY\" " } else { "" })
}

/// A plain GET request, with or without TLS.
pub fn curl_get(target: &Target, endpoint: &EndpointUrl, tls: bool, path: &str) -> String {
    let (scheme, ca) = if tls {
        let who = curl_credentials(target, target.metrics_key);
        ("https", format!("{}{who}", option(target, "--cacert")))
    } else {
        ("http", String::new())
    };
    format!("curl {ca}{scheme}://{}{path}\n", endpoint.authority())
}

/// A query with the prompt of spiced itself.
pub fn sql(target: &Target) -> String {
    let ca = option(target, "--tls-root-certificate-file");
    let key = if target.key { "SPICED_SQL_API_KEY=\"$SPICE_API_KEY\" " } else { "" };
    let certificate = match target.certificate {
        true => "--client-certificate-file client.pem --client-key-file client-key.pem ",
        false => "",
    };
    format!("{key}spiced sql --endpoint {} {ca}{certificate}{}\n", flight_url(target), quoted(&target.query))
}

pub(crate) fn openssl(target: &Target) -> String {
    if !target.tls() {
        return "# the endpoints use plain text: there is no certificate to show\n".to_owned();
    }
    let EndpointUrl { host, .. } = &target.http;
    let name = if host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok() {
        format!("-verify_ip {}", host.trim_matches(['[', ']']))
    } else {
        format!("-servername {host} -verify_hostname {host}")
    };
    let ca = option(target, "-CAfile");
    let certificate = if target.certificate { "-cert client.pem -key client-key.pem " } else { "" };
    format!(
        "openssl s_client -connect {} {name} {ca}{certificate}-verify_return_error -brief </dev/null\n",
        target.http.authority()
    )
}

pub(crate) fn pyarrow(target: &Target) -> String {
    let mut trust = target.ca().map_or(String::new(), |ca| format!(", tls_root_certs=open({ca:?}).read()"));
    if target.certificate {
        trust.push_str(", cert_chain=open(\"client.pem\").read(), private_key=open(\"client-key.pem\").read()");
    }
    let (import, options, and) = match target.key {
        true => (
            "import os\n",
            "options = flight.FlightCallOptions(headers=[(b\"authorization\", b\"Bearer \" + os.environb[b\"SPICE_API_KEY\"])])\n",
            ", options",
        ),
        false => ("", "", ""),
    };
    python(&format!(
        "{import}import pyarrow.flight as flight\n\
         client = flight.connect(\"{}\"{trust})\n\
         {options}info = client.get_flight_info(flight.FlightDescriptor.for_command({:?}){and})\n\
         print(client.do_get(info.endpoints[0].ticket{and}).read_all())\n",
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

fn adbc_imports(target: &Target) -> String {
    let os = if target.key { "import os\n" } else { "" };
    let options = match adbc_options(target).is_empty() {
        true => "",
        false => "from adbc_driver_flightsql import DatabaseOptions\n",
    };
    format!("{os}import adbc_driver_flightsql.dbapi as flightsql\n{options}")
}

fn adbc_arguments(target: &Target) -> String {
    let options = adbc_options(target);
    let options = if options.is_empty() { String::new() } else { format!(", {{{}}}", options.join(", ")) };
    format!("\"{}\"{options}, autocommit=True", flight_url(target))
}

fn adbc_options(target: &Target) -> Vec<String> {
    let mut options = Vec::new();
    options.extend(target.ca().map(|ca| format!("DatabaseOptions.TLS_ROOT_CERTS.value: open({ca:?}).read()")));
    if target.certificate {
        options.push("DatabaseOptions.MTLS_CERT_CHAIN.value: open(\"client.pem\").read()".to_owned());
        options.push("DatabaseOptions.MTLS_PRIVATE_KEY.value: open(\"client-key.pem\").read()".to_owned());
    }
    if target.key {
        options
            .push("DatabaseOptions.AUTHORIZATION_HEADER.value: \"Bearer \" + os.environ[\"SPICE_API_KEY\"]".to_owned());
    }
    options
}

pub(crate) fn grpc(target: &Target) -> String {
    let authority = target.grpc.authority();
    let mut trust: Vec<String> = target.ca().map(|ca| format!("open({ca:?}, \"rb\").read()")).into_iter().collect();
    if target.certificate {
        trust.push("private_key=open(\"client-key.pem\", \"rb\").read()".to_owned());
        trust.push("certificate_chain=open(\"client.pem\", \"rb\").read()".to_owned());
    }
    let channel = match target.tls() {
        true => format!("grpc.secure_channel(\"{authority}\", grpc.ssl_channel_credentials({}))", trust.join(", ")),
        false => format!("grpc.insecure_channel(\"{authority}\")"),
    };
    python(&format!(
        "import grpc\n\
         from grpc_health.v1 import health_pb2, health_pb2_grpc\n\
         with {channel} as channel:\n    \
             print(health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()))\n"
    ))
}

/// Returns a note for clients that need more than one line to present a client certificate.
fn shows_no_certificate(target: &Target) -> &'static str {
    if target.certificate {
        "# these lines show no client certificate yet: see the client's own documentation\n"
    } else {
        ""
    }
}

pub(crate) fn go(target: &Target) -> String {
    let note = shows_no_certificate(target);
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
        // Old releases of grpc-go, such as Debian's, have no package `insecure`.
        (false, _) => ("", String::new(), "grpc.WithInsecure()"),
    };
    format!(
        "{note}cat > main.go <<'EOF'\n\
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
    let note = shows_no_certificate(target);
    let key = if target.key { ", apiKey: process.env.SPICE_API_KEY" } else { "" };
    format!(
        "{note}{trust}node - <<'EOF'\n\
         const {{ SpiceClient }} = require(\"@spiceai/spice\");\n\
         const client = new SpiceClient({{ httpUrl: \"{}\", flightUrl: \"{}\", flightTlsEnabled: {}{key} }});\n\
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
    let certificate = match target.certificate {
        true => "&clientCertificate=client.pem&clientKey=client-key.pem",
        false => "",
    };
    let key = if target.key { "&token=$SPICE_API_KEY" } else { "" };
    format!(
        "jdbc:arrow-flight-sql://{}/?useEncryption={}{trust}{certificate}{key}\n",
        target.flight.authority(),
        target.tls()
    )
}

pub(crate) fn prometheus(target: &Target) -> String {
    let Some(metrics) = &target.metrics else {
        return "# the metrics endpoint is off: switch it on with --metrics localhost:9090, or runtime.listen.metrics\n"
            .to_owned();
    };
    let scheme = if target.tls() { "https" } else { "http" };
    let mut files: Vec<String> = target.ca().map(|ca| format!("ca_file: {ca:?}")).into_iter().collect();
    if target.certificate {
        files.push("cert_file: client.pem, key_file: client-key.pem".to_owned());
    }
    let mut trust = String::new();
    if !files.is_empty() {
        trust = format!("    tls_config: {{ {} }}\n", files.join(", "));
    }
    if target.metrics_key {
        trust.push_str("    authorization: { credentials_file: spice-api-key }   # a file with your API key\n");
    }
    format!(
        "scrape_configs:\n  - job_name: spiced\n    scheme: {scheme}\n{trust}    static_configs: [{{ targets: [{:?}] }}]\n",
        metrics.authority(),
    )
}

pub(crate) fn kubernetes_probe(target: &Target) -> String {
    // A kubelet does not verify the certificate, so there is no CA to trust.
    if target.probe.is_none() && target.certificate {
        return "# a kubelet has no client certificate: switch the probe endpoint on with --probe 0.0.0.0:8081, or runtime.listen.probe\n"
            .to_owned();
    }
    let (endpoint, scheme) = match &target.probe {
        Some(probe) => (probe, "HTTP"),
        None => (&target.http, if target.tls() { "HTTPS" } else { "HTTP" }),
    };
    let option = if target.probe.is_some() { "probe" } else { "http" };
    let reach = match endpoint.loopback {
        true => format!(
            "# a kubelet comes from outside the pod: listen on all addresses, --{option} 0.0.0.0:{}\n",
            endpoint.port
        ),
        false => String::new(),
    };
    let check = |path: &str| format!("{{ path: {path}, port: {}, scheme: {scheme} }}", endpoint.port);
    format!(
        "{reach}livenessProbe:\n  httpGet: {}\nreadinessProbe:\n  httpGet: {}\n",
        check("/health"),
        check("/v1/ready")
    )
}

fn python(program: &str) -> String {
    format!("python3 - <<'EOF'\n{program}EOF\n")
}

/// Returns `--option FILE ` if the client needs a CA file.
fn option(target: &Target, option: &str) -> String {
    target.ca().map_or(String::new(), |ca| format!("{option} {} ", quoted(&ca)))
}

fn url(target: &Target, endpoint: &EndpointUrl) -> String {
    format!("{}://{}", if target.tls() { "https" } else { "http" }, endpoint.authority())
}

fn flight_url(target: &Target) -> String {
    format!("{}://{}", if target.tls() { "grpc+tls" } else { "grpc" }, target.flight.authority())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CLIENTS, Trust};

    fn every_line(trust: Option<Trust>, port: u16) -> String {
        lines_for(trust, port, false)
    }

    fn lines_for(trust: Option<Trust>, port: u16, credentials: bool) -> String {
        let endpoint = |port| EndpointUrl { host: "localhost".to_owned(), port, loopback: true };
        let target = Target {
            http: endpoint(3000),
            flight: endpoint(50051),
            grpc: endpoint(50052),
            metrics: (port > 0).then(|| endpoint(port)),
            probe: (port > 0).then(|| endpoint(port + 1)),
            trust,
            query: "SELECT 'it''s' LIMIT 5".to_owned(),
            key: credentials,
            metrics_key: credentials,
            certificate: credentials,
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
    fn with_credentials() {
        insta::assert_snapshot!(lines_for(Some(Trust::File("ca.pem".into())), 9090, true));
    }

    #[test]
    fn in_plain_text() {
        insta::assert_snapshot!(every_line(None, 9090));
    }
}
