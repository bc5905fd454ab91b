"""Every example of the reference, as printed, with indented YAML and with ports, directories and host names of the
test.

Examples that cannot work anywhere are listed in docs/errata.md; the nearest form that works is tested here. Examples
that other tests run are marked there (`reference(…)`). docs/clients.md lists the outcome of each.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from harness import clients
from harness.certificates import Authority, Pair, self_signed
from harness.clients import assert_serves
from harness.drivers import At
from harness.drivers.driver import program
from harness.drivers.programs import Go
from harness.leak_scanner import LEDGER
from harness.pod import Pod
from harness.proxies import Nginx, Upstream
from harness.tables import NEAREST, NOT_BUILT, reference
from harness.waiting import DEADLINE

# Pods


@dataclass(frozen=True)
class Example:
    """A pod of the reference."""

    name: str
    text: str
    # The printed paths of certificate and key and, if a secret holds them, the variables.
    paths: tuple[str, str] | None = None
    env: dict[str, str] = field(default_factory=dict)
    # The variable that holds the callers' API key.
    key: str = ""
    # Names in the refusal while a feature is missing: remove this line once the feature exists.
    refused: str = ""

    def mark(self):
        return reference(self.name, **({"answer": NOT_BUILT} if self.refused else {}))


PODS = [
    Example(
        "Method 1: certificate files",
        """\
        version: v1
        kind: Spicepod
        name: my-app
        runtime:
          tls:
            enabled: true
            certificate_file: /path/to/certificate.pem
            key_file: /path/to/private-key.pem
        """,
        paths=("/path/to/certificate.pem", "/path/to/private-key.pem"),
    ),
    Example(
        "Method 2: inline certificates",
        """\
        runtime:
          tls:
            enabled: true
            certificate: |
              -----BEGIN CERTIFICATE-----
              MIIDXTCCAkWgAwIBAgIJAKJ...
              -----END CERTIFICATE-----
            key: |
              -----BEGIN PRIVATE KEY-----
              MIIEvQIBADANBgkqhki...
              -----END PRIVATE KEY-----
        """,
    ),
    Example(
        "Method 3: paths from secrets",
        """\
        runtime:
          tls:
            enabled: true
            certificate_file: ${secrets:TLS_CERT_PATH}
            key_file: ${secrets:TLS_KEY_PATH}
        """,
        env={"TLS_CERT_PATH": "certificate path", "TLS_KEY_PATH": "key path"},
    ),
    Example(
        "Method 3: content from secrets",
        """\
        runtime:
          tls:
            enabled: true
            certificate: ${secrets:TLS_CERTIFICATE}
            key: ${secrets:TLS_PRIVATE_KEY}
        """,
        env={"TLS_CERTIFICATE": "certificate", "TLS_PRIVATE_KEY": "key"},
    ),
    Example(
        "Let's Encrypt: the pod",
        """\
        runtime:
          tls:
            enabled: true
            certificate_file: /etc/letsencrypt/live/your-domain.com/fullchain.pem
            key_file: /etc/letsencrypt/live/your-domain.com/privkey.pem
        """,
        paths=(
            "/etc/letsencrypt/live/your-domain.com/fullchain.pem",
            "/etc/letsencrypt/live/your-domain.com/privkey.pem",
        ),
    ),
    Example(
        "Kubernetes: the pod",
        """\
        runtime:
          tls:
            enabled: true
            certificate_file: /etc/spice/tls/tls.crt
            key_file: /etc/spice/tls/tls.key
        """,
        paths=("/etc/spice/tls/tls.crt", "/etc/spice/tls/tls.key"),
    ),
    Example(
        "Complete configuration",
        """\
        version: v1
        kind: Spicepod
        name: secure-app
        secrets:
          - name: env
            from: env
        runtime:
          # TLS Configuration
          tls:
            enabled: true
            certificate_file: /etc/spice/tls/cert.pem
            key_file: /etc/spice/tls/key.pem
          # API Key Authentication
          auth:
            api_key:
              enabled: true
              keys:
                - ${env:SPICE_API_KEY_READONLY}:ro
                - ${env:SPICE_API_KEY_READWRITE}:rw
        datasets:
          - from: postgres:production_db
            name: customers
            params:
              pg_host: db.example.com
              pg_port: "5432"
              pg_db: production
              pg_user: ${env:PG_USER}
              pg_pass: ${env:PG_PASSWORD}
              pg_sslmode: require # Require TLS for database connection
        """,
        paths=("/etc/spice/tls/cert.pem", "/etc/spice/tls/key.pem"),
        env={name: "marked" for name in ("SPICE_API_KEY_READONLY", "SPICE_API_KEY_READWRITE", "PG_USER", "PG_PASSWORD")},
        key="SPICE_API_KEY_READWRITE",
    ),
    Example(
        "TLS for all environments: development",
        """\
        # Development
        runtime:
          tls:
            enabled: true
            certificate_file: ./dev-cert.pem
            key_file: ./dev-key.pem
        """,
        paths=("./dev-cert.pem", "./dev-key.pem"),
    ),
    Example(
        "TLS for all environments: production",
        """\
        # Production
        runtime:
          tls:
            enabled: true
            certificate_file: /etc/letsencrypt/live/api.example.com/fullchain.pem
            key_file: /etc/letsencrypt/live/api.example.com/privkey.pem
        """,
        paths=(
            "/etc/letsencrypt/live/api.example.com/fullchain.pem",
            "/etc/letsencrypt/live/api.example.com/privkey.pem",
        ),
    ),
    Example(
        "Combined with authentication",
        """\
        runtime:
          tls:
            enabled: true
            certificate_file: /path/to/cert.pem
            key_file: /path/to/key.pem
          auth:
            api_key:
              enabled: true
              keys:
                - ${secrets:API_KEY}:rw
        """,
        paths=("/path/to/cert.pem", "/path/to/key.pem"),
        env={"API_KEY": "marked"},
        key="API_KEY",
    ),
]


def _laid(pod: Pod, example: Example) -> dict[str, str]:
    """Writes the pod as printed, and its material at the printed paths; returns the environment."""
    text = textwrap.dedent(example.text)
    for printed, content in zip(example.paths or (), (pod.pair.certificate, pod.pair.key_text)):
        # The test's directory is prepended to an absolute path; a relative one is unchanged.
        path = pod.write(printed.lstrip("/"), content)
        if printed.startswith("/"):
            text = text.replace(printed, str(path))
    # The reference's PEM is three lines with an ellipsis, which a real one replaces.
    text = text.replace("MIIDXTCCAkWgAwIBAgIJAKJ...", _body(pod.pair.certificate, text))
    text = text.replace("MIIEvQIBADANBgkqhki...", _body(pod.pair.key_text, text))
    pod.write("spicepod.yaml", text)
    files = pod.write_pair()
    values = {
        "certificate": pod.pair.certificate,
        "key": pod.pair.key_text,
        "certificate path": files["certificate_file"],
        "key path": files["key_file"],
    }
    return {name: values.get(what) or LEDGER.mark(name) for name, what in example.env.items()}


def _body(pem: str, text: str) -> str:
    """The lines between BEGIN and END, with the indentation of the block."""
    lines = pem.strip().splitlines()[1:-1]
    return "\n      ".join(lines)


@pytest.mark.parametrize("example", [pytest.param(e, id=e.name, marks=e.mark()) for e in PODS])
def test_pod(pod, example):
    env = _laid(pod, example)
    if example.refused:
        pod.refuse(env=env).names(example.refused, "not built yet")
        return
    server = pod.serve(env=env)
    if example.key:
        nobody = clients.get(server, "/v1/sql", "-d", "SELECT 1 AS x")
        assert nobody.status == 401, nobody
    assert_serves(server, pod.pair, *(["-H", f"X-API-Key: {env[example.key]}"] if example.key else []))


def test_the_complete_configuration_reads_rows(pod, postgres):
    """As printed, except for the address of the database."""
    (example,) = (example for example in PODS if example.name == "Complete configuration")
    postgres.sql("CREATE DATABASE production")
    postgres.sql("CREATE TABLE production_db AS SELECT 7 AS id, 'Ada' AS name; GRANT SELECT ON production_db TO app", "production")
    env = {**_laid(pod, example), "PG_USER": "app", "PG_PASSWORD": postgres.password}
    text = (pod.folder / "spicepod.yaml").read_text()
    pod.write("spicepod.yaml", text.replace("db.example.com", "localhost").replace('"5432"', f'"{postgres.port}"'))
    server = pod.serve(env=env)
    key = ("-H", f"X-API-Key: {env['SPICE_API_KEY_READONLY']}")
    assert clients.sql(server, "SELECT * FROM customers", *key).ok().json() == [{"id": 7, "name": "Ada"}]


# Shell


def _shell(script: str, folder: Path, shell: str = "bash", **env: str) -> subprocess.CompletedProcess:
    kept = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(folder)}
    return subprocess.run(
        [shell, "-c", textwrap.dedent(script)],
        cwd=folder,
        env={**kept, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


@pytest.mark.parametrize("shell", ["bash", "dash"])
@reference("Environment variables")
def test_environment_variables(pod, shell):
    pod.write("certificate.pem", pod.pair.certificate)
    pod.write("private-key.pem", pod.pair.key_text)
    pod.write(
        "spicepod.yaml",
        textwrap.dedent("""\
        runtime:
          tls:
            enabled: true
            certificate: ${env:SPICE_TLS_CERT}
            key: ${env:SPICE_TLS_KEY}
        """),
    )
    printed = "export SPICE_TLS_CERT=$(cat certificate.pem)\nexport SPICE_TLS_KEY=$(cat private-key.pem)\n"
    server = pod.serve(wrap=[clients.tool(shell), "-c", printed + 'exec "$0" "$@"'], cwd=pod.folder)
    assert_serves(server, pod.pair)


@reference("Self-signed certificate", answer=NEAREST)
def test_self_signed_recipe_with_a_name(pod):
    """The recipe of docs/errata.md, which Go accepts as well."""
    done = _shell(
        """
        openssl genrsa -out key.pem 2048
        openssl req -new -x509 -key key.pem -out cert.pem -days 365 \\
        -subj "/C=US/ST=State/L=City/O=Organization/CN=localhost" \\
        -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE
        """,
        pod.folder,
    )
    assert done.returncode == 0, done.stderr
    key = load_pem_private_key((pod.folder / "key.pem").read_bytes(), None)
    LEDGER.add_key(key)
    pod.yaml(tls={"certificate_file": "cert.pem", "key_file": "key.pem"})
    server = pod.serve()
    server.ca = str(pod.folder / "cert.pem")
    assert_serves(server, Pair(x509.load_pem_x509_certificate((pod.folder / "cert.pem").read_bytes()), key))
    assert not server.logged("WARN", match=r"\bSANs?\b|subject alternative"), server.stderr
    assert Go().rows(At.of(server), "SELECT 42 AS x") == [{"x": 42}]


@reference("HTTP: curl without TLS")
def test_curl_without_tls(in_clear):
    done = _shell(f'curl http://localhost:{in_clear.port("http")}/v1/sql -d "SELECT 1"', Path("/"))
    assert (done.returncode, done.stdout) == (0, '[{"Int64(1)":1}]'), done


@reference("HTTP: curl with TLS")
def test_curl_with_tls(over_tls):
    """The variable replaces the machine's trust store."""
    printed = f'curl https://localhost:{over_tls.port("http")}/v1/sql -d "SELECT 1"'
    done = _shell(printed, Path("/"), CURL_CA_BUNDLE=over_tls.ca)
    assert (done.returncode, done.stdout) == (0, '[{"Int64(1)":1}]'), done
    assert _shell(printed, Path("/")).returncode == 60, "without the trusted CA, curl refuses"


@reference("HTTP: curl -k")
def test_curl_without_verification(over_tls):
    done = _shell(f'curl -k https://localhost:{over_tls.port("http")}/v1/sql -d "SELECT 1"', Path("/"))
    assert (done.returncode, done.stdout) == (0, '[{"Int64(1)":1}]'), done


def _python(lines: str, **env: str) -> subprocess.CompletedProcess:
    """Runs the printed lines in a separate Python process, followed by a query."""
    asked = """
    info = client.get_flight_info(flight.FlightDescriptor.for_command(b"SELECT 42 AS x"))
    print(client.do_get(info.endpoints[0].ticket).read_all().to_pylist())
    """
    script = "import pyarrow.flight as flight\n" + textwrap.dedent(lines) + textwrap.dedent(asked)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE, env={"PATH": "/usr/bin", **env}
    )


@reference("Flight SQL: pyarrow without TLS")
def test_pyarrow_without_tls(in_clear):
    done = _python(f'client = flight.FlightClient("grpc://localhost:{in_clear.port("flight")}")')
    assert (done.returncode, done.stdout) == (0, "[{'x': 42}]\n"), done


@reference("Flight SQL: pyarrow with TLS")
def test_pyarrow_with_tls(over_tls):
    """The variable replaces gRPC's built-in list of roots."""
    printed = f'client = flight.FlightClient("grpc+tls://localhost:{over_tls.port("flight")}")'
    done = _python(printed, GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=over_tls.ca)
    assert (done.returncode, done.stdout) == (0, "[{'x': 42}]\n"), done


@reference("Flight SQL: pyarrow, self-signed", answer=NEAREST)
def test_pyarrow_self_signed(pod):
    """The printed code calls functions that pyarrow does not have; docs/errata.md has the nearest form that works."""
    done = _python("flight.FlightClientMiddlewareFactory.create_option('grpc.ssl_target_name_override', 'localhost')")
    assert "has no attribute 'FlightClientMiddlewareFactory'" in done.stderr, done
    pair = self_signed()
    pod.yaml(tls=pod.write_pair(pair, stem="ca"))
    server = pod.serve()
    done = _python(
        f"""
        client = flight.FlightClient("grpc+tls://127.0.0.1:{server.port("flight")}",
            tls_root_certs=open("{pod.folder}/ca.crt","rb").read(), override_hostname="localhost")
        """
    )
    assert (done.returncode, done.stdout) == (0, "[{'x': 42}]\n"), done


GO = """
package main
{imports}
func main() {{
{printed}
defer conn.Close()
answer, err := grpc_health_v1.NewHealthClient(conn).Check(context.Background(), &grpc_health_v1.HealthCheckRequest{{}})
if err != nil {{
log.Fatal(err)
}}
fmt.Println(answer.Status)
}}
"""


@reference("gRPC: Go")
def test_go(over_tls, tmp_path):
    """The printed lines, compiled inside a `main` of the test, followed by a health check."""
    program("SPICED_CLIENT_GO")  # built from the same packages
    imports = """
import (
"context"
"fmt"
"google.golang.org/grpc/health/grpc_health_v1"
"log"
)
import (
"google.golang.org/grpc"
"google.golang.org/grpc/credentials"
)
"""
    printed = """
// With TLS
creds, err := credentials.NewClientTLSFromFile("cert.pem", "")
if err != nil {
log.Fatal(err)
}
conn, err := grpc.Dial(
"localhost:50052",
grpc.WithTransportCredentials(creds),
)
"""
    printed = printed.replace(":50052", f":{over_tls.port('grpc')}")
    # The reference does not check `err` after Dial; Go allows that, because `err` was declared before.
    (tmp_path / "main.go").write_text(GO.format(imports=imports, printed=printed))
    (tmp_path / "cert.pem").write_text(Path(over_tls.ca).read_text())
    cache = Path.home() / ".cache/go-build"
    env = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": str(cache), "GOFLAGS": "-p=1"}
    built = _shell("go build -o client main.go", tmp_path, **env)
    assert built.returncode == 0, built.stderr
    done = _shell("./client", tmp_path)
    assert (done.returncode, done.stdout) == (0, "SERVING\n"), done


# Commands that operators run on the files


@reference("Secure private keys: chmod")
def test_permissions(pod):
    files = pod.write_pair()
    Path(files["key_file"]).chmod(0o644)
    done = _shell(f"chmod 600 {files['key_file']}", pod.folder)
    assert done.returncode == 0, done.stderr
    pod.yaml(tls=files)
    server = pod.serve()
    assert not server.logged("WARN", match="permission|open to|readable"), server.stderr


@reference("Expiration: openssl x509")
def test_expiration(pod):
    pod.write("certificate.pem", pod.pair.certificate)
    done = _shell("openssl x509 -in certificate.pem -noout -enddate", pod.folder)
    assert done.stdout.startswith("notAfter="), done
    done = _shell("openssl x509 -in certificate.pem -noout -text", pod.folder)
    assert "CN = localhost" in done.stdout, done


CONVERSIONS = {
    "pkcs8": ("openssl rsa -in key-pkcs8.pem -out key.pem", "key-pkcs8.pem", None),
    "encrypted": ("openssl rsa -in encrypted-key.pem -out unencrypted-key.pem", "encrypted-key.pem", b"correct horse"),
}


@reference("Key formats: openssl rsa")
@pytest.mark.parametrize("printed, name, passphrase", CONVERSIONS.values(), ids=CONVERSIONS.keys())
def test_conversion(pod, printed, name, passphrase):
    """`-passin` supplies the passphrase that openssl would ask for at a terminal."""
    from harness.certificates import key_pem

    pair = pod.ca.issue(kind="rsa2048")
    pod.write(name, key_pem(pair.key, passphrase=passphrase))
    asked = " -passin pass:'correct horse'" if passphrase else ""
    done = _shell(printed + asked, pod.folder)
    assert done.returncode == 0, done.stderr
    pod.yaml(tls={"certificate": pair.certificate, "key_file": printed.rsplit(" ", 1)[1]})
    assert_serves(pod.serve(), pair)


@reference("Chain: cat server and intermediate")
def test_full_chain(pod):
    middle = Authority("Conformance Intermediate", pod.ca)
    pair = middle.issue()
    pod.write("server-cert.pem", Pair(pair.leaf, pair.key).certificate)
    pod.write("intermediate-cert.pem", middle.pem)
    done = _shell("cat server-cert.pem intermediate-cert.pem > fullchain.pem", pod.folder)
    assert done.returncode == 0, done.stderr
    pod.yaml(tls={"certificate_file": "fullchain.pem", "key": pair.key_text})
    assert_serves(pod.serve(), pair)


@reference("Trust store: Linux")
def test_system_trust_store(over_tls, tmp_path):
    """The printed commands, with directories of the test in place of the machine's."""
    own = tmp_path / "usr/local/share/ca-certificates"
    for folder in (own, tmp_path / "etc/ssl/certs", tmp_path / "usr/share/ca-certificates"):
        folder.mkdir(parents=True)
    (tmp_path / "ca-certificate.pem").write_text(Path(over_tls.ca).read_text())
    (tmp_path / "ca-certificates.conf").write_text("")
    done = _shell(
        f"""
        cp ca-certificate.pem {own}/spice-ca.crt
        update-ca-certificates --certsconf {tmp_path}/ca-certificates.conf --certsdir {tmp_path}/usr/share/ca-certificates \\
            --localcertsdir {own} --etccertsdir {tmp_path}/etc/ssl/certs --hooksdir {tmp_path}
        """,
        tmp_path,
    )
    assert done.returncode == 0, done
    bundle = tmp_path / "etc/ssl/certs/ca-certificates.crt"
    assert clients.curl(over_tls.url("/health"), ca=str(bundle)).ok().text.strip() == "ok"


# Verifying


@reference("Checking: curl -v")
def test_curl_verbose(over_tls):
    done = _shell(f"curl -v https://localhost:{over_tls.port('http')}/health", Path("/"), CURL_CA_BUNDLE=over_tls.ca)
    assert done.returncode == 0 and done.stdout.strip() == "ok", done
    assert "SSL certificate verify ok" in done.stderr, done.stderr


@reference("Checking: openssl s_client")
def test_s_client(over_tls):
    printed = f"openssl s_client -connect localhost:{over_tls.port('http')} -servername localhost"
    done = _shell(printed, Path("/"), SSL_CERT_FILE=over_tls.ca)
    assert "Verify return code: 0 (ok)" in done.stdout, done


# A proxy that asks for client certificates


class AsPrinted(Nginx):
    """The server block of the reference; by default nginx does not verify its upstream."""

    def configuration(self) -> str:
        block = """
        server {
            listen 443 ssl;
            ssl_certificate /path/to/server-cert.pem;
            ssl_certificate_key /path/to/server-key.pem;
            # Client certificate validation
            ssl_client_certificate /path/to/ca.pem;
            ssl_verify_client on;
            location / {
                proxy_pass https://spice:3000;
            }
        }
        """
        for printed, ours in {
            "listen 443": f"listen 127.0.0.1:{self.port('http')}",
            "/path/to/server-cert.pem": str(self.certificate),
            "/path/to/server-key.pem": str(self.key),
            "/path/to/ca.pem": self.clients_ca,
            "spice:3000": f"localhost:{self.upstream.server.port('http')}",
        }.items():
            assert printed in block
            block = block.replace(printed, ours)
        whole = super().configuration()
        return whole[: whole.index("    server {")] + textwrap.dedent(block) + "}\n"


@reference("Client certificates: nginx")
def test_nginx_checks_client_certificates(over_tls, tmp_path):
    trusted, stranger = Authority("Clients"), Authority("Stranger")
    (tmp_path / "clients.pem").write_text(trusted.pem)
    proxy = AsPrinted(tmp_path, Upstream(over_tls, over_tls.ca), str(tmp_path / "clients.pem"))
    known = clients.as_client(trusted, tmp_path)
    assert clients.sql(proxy, "SELECT 42 AS x", *known).ok().json() == [{"x": 42}]
    for args in ([], clients.as_client(stranger, tmp_path)):
        assert clients.sql(proxy, "SELECT 42 AS x", *args).status == 400
    proxy.close()
