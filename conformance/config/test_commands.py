"""`config explain`, `schema`, `tls init` and `connect`, as a user runs them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import jsonschema
import pytest
import yaml

from harness import clients
from harness.commands import endpoints, run
from harness.leak_scanner import LEDGER
from harness.server import binary
from harness.waiting import DEADLINE, eventually

ROOT = Path(__file__).resolve().parents[2]


# --json

UNUSABLE = {
    "no YAML": "name: [\n",
    "an unknown key": "version: v1\nkind: Spicepod\nname: t\nnonsense: 1\n",
    "a secret that is missing": "version: v1\nkind: Spicepod\nname: t\nruntime: {tls: {certificate: '${env:A}', key: '${env:B}'}}\n",
    "a store that is none": "version: v1\nkind: Spicepod\nname: t\nsecrets: [{name: a, from: vualt}]\n",
    "no pod": None,
}


@pytest.mark.parametrize("name", UNUSABLE)
@pytest.mark.parametrize(
    "command, errors", [(("tls", "check"), "findings"), (("config", "explain"), "errors"), (("secrets", "check"), None)]
)
def test_json_is_one_document_whatever_is_wrong(pod, command, errors, name):
    """Exit code 78, and standard output holds one JSON object with the reason."""
    pod.folder.mkdir(parents=True, exist_ok=True)
    if UNUSABLE[name] is not None:
        pod.write("spicepod.yaml", UNUSABLE[name])
    done = run(pod, *command, "--json", pod.folder, code=78)
    document = json.loads(done.stdout)
    said = document[errors] if errors else document["errors"] + [r for r in document["references"] if r["problem"]]
    assert said and all((one.get("message") or one.get("problem")) and one["fix"] for one in said), document
    if command == ("tls", "check"):
        assert {one["severity"] for one in said} == {"error"} and document["accepted_by"] == {}, document


# config explain


def explained(pod, *words, **more) -> dict[str, dict]:
    done = run(pod, "config", "explain", "--json", *words, pod.folder, **more)
    return {setting["key"]: setting for setting in json.loads(done.stdout)["settings"]}


def test_explain_names_effective_and_overridden_values(pod):
    files = pod.write_pair()
    pod.yaml(tls={**files, "min_version": "1.3"})
    settings = explained(
        pod, "--tls-key-file", files["key_file"], env={"SPICED_RUNTIME__TLS__MIN_VERSION": "1.2"}
    )
    lost = settings["runtime.tls.min_version"]
    assert lost["value"] == "1.2" and lost["origin"] == "SPICED_RUNTIME__TLS__MIN_VERSION"
    assert lost["beat"] == [
        {"value": "1.3", "origin": "spicepod.yaml: runtime.tls.min_version", "why": "the environment beats spicepod.yaml"}
    ]
    assert settings["runtime.tls.key_file"]["origin"] == "--tls-key-file"
    assert settings["runtime.tls.enabled"]["value"] == "true"
    assert settings["runtime.limits.handshakes"]["origin"] == "the default"


def test_explain_shows_no_secret(pod):
    value, literal = LEDGER.mark("a secret in the environment"), LEDGER.mark("a literal secret")
    pod.yaml(
        tls={**pod.inline_pair(), "session_ticket_secret": literal},
        runtime={"sql": {"timeout": "${env:TIMEOUT}"}},
        datasets=[{"from": "memory:", "name": "t", "columns": [{"name": "a", "type": "bigint"}]}],
    )
    done = run(pod, "config", "explain", pod.folder, env={"TIMEOUT": "5s", "OTHER": value})
    text = done.stdout.decode()
    assert re.search(r"runtime\.tls\.key +\*\*\* +spicepod\.yaml: runtime\.tls\.key\n", text), text
    assert re.search(r"runtime\.sql\.timeout +\$\{env:TIMEOUT\} ", text), text


def test_explain_ends_as_the_start_would(pod):
    pod.yaml(runtime={"sql": {"timeout": "${env:NOT_THERE}"}})
    done = run(pod, "config", "explain", pod.folder, code=78)
    assert b"runtime.sql.timeout" in done.stdout, "whatever can be explained is explained"
    assert b"NOT_THERE" in done.stderr and b"hint: " in done.stderr


def test_explained_values_are_those_in_use(pod):
    """The effective addresses match those of a start with the same arguments."""
    pod.yaml(runtime={"listen": {"grpc": "[::1]:0"}})
    settings = explained(pod, "--http", "localhost:0", "--flight", "127.0.0.1:0")
    server = pod.serve("--flight", "127.0.0.1:0", endpoints=("http",))
    assert settings["runtime.listen.flight"]["value"] == "127.0.0.1:0"
    assert server.addresses("flight")[0].startswith("127.0.0.1:") and len(server.addresses("flight")) == 1
    assert settings["runtime.listen.grpc"]["value"] == "[::1]:0"
    assert server.addresses("grpc")[0].startswith("[::1]:")


# schema


@pytest.fixture(scope="module")
def schema():
    done = subprocess.run([binary(), "schema"], capture_output=True, timeout=DEADLINE, check=True)
    document = json.loads(done.stdout)
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document)


def complaints(schema, text: str) -> list[str]:
    return [f"{'.'.join(map(str, e.absolute_path))}: {e.message}" for e in schema.iter_errors(yaml.safe_load(text))]


GOOD = {
    "bundled": (ROOT / "spicepod.yaml").read_text(),
    "docs": re.search(r"```yaml\n(version.*?)```", (ROOT / "docs/configuration.md").read_text(), re.DOTALL).group(1),
    "unquoted": "runtime: { tls: { min_version: 1.2, enabled: true }, limits: { connections: 5 } }",
    "references": "runtime: { tls: { enabled: '${env:ON}', min_version: '${env:V}' }, limits: { handshakes: '${env:N}' } }",
    "params": "datasets: [{ from: 'postgres:t', name: t, params: { pg_port: 5432, ssl: true } }]",
    "foreign": "models: []\nruntime: { caching: {} }\ndatasets: [{ from: 'file:a.csv', name: a, acceleration: {} }]",
    "nobody": "runtime: { auth: { allow_anonymous: false } }",
}
BAD = {
    "unknown-top": "dataset: []",
    "unknown-below": "runtime: { tls: { certifcate_file: a } }",
    "word": "runtime: { tls: { profile: old } }",
    "number": "runtime: { limits: { connections: many } }",
    "missing": "datasets: [{ name: t }]",
    "version": "runtime: { tls: { min_version: 1.1 } }",
}


@pytest.mark.parametrize("name", GOOD)
def test_the_schema_accepts_served_pods(schema, name):
    assert complaints(schema, GOOD[name]) == []


@pytest.mark.parametrize("name", BAD)
def test_the_schema_and_the_start_refuse_the_same(schema, name, pod):
    assert complaints(schema, BAD[name]) != []
    pod.write("spicepod.yaml", BAD[name])
    pod.refuse()


# tls init


def test_tls_init_creates_a_trusted_certificate(pod):
    done = run(pod, "tls", "init", "--dir", "dev tls")
    folder = pod.cwd / "dev tls"
    for name, mode in [("ca.pem", 0o644), ("ca-key.pem", 0o600), ("server.pem", 0o644), ("server-key.pem", 0o600)]:
        assert stat.S_IMODE((folder / name).stat().st_mode) == mode, name
        assert name.encode() in done.stdout
    text = clients.openssl("x509", "-in", str(folder / "server.pem"), "-noout", "-text").decode()
    assert "DNS:localhost" in text and "CA:FALSE" in text and "TLS Web Server Authentication" in text

    pod.yaml()
    words = re.search(r"^  spiced (--tls-certificate-file .*)$", done.stdout.decode(), re.MULTILINE).group(1)
    server = pod.serve(*shlex.split(words))
    assert clients.curl(server.url("/health"), ca=str(folder / "ca.pem")).ok().text.strip() == "ok"

    # The instructions that it prints for clients that read a variable.
    url = server.url("/health")
    said = {line.split()[0]: line for line in done.stdout.decode().splitlines() if " export " in line}
    python = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
    node = "require('https').get(process.argv[1], (r) => r.on('data', (d) => process.stdout.write(d)))"
    grpc = (
        "import sys, grpc; from grpc_health.v1 import health_pb2 as p, health_pb2_grpc as s\n"
        "c = grpc.secure_channel(sys.argv[1], grpc.ssl_channel_credentials())\n"
        "print(s.HealthStub(c).Check(p.HealthCheckRequest(), timeout=20))"
    )
    for client, command, wanted in [
        ("Python", [sys.executable, "-c", python, url], "ok"),
        ("Node", ["node", "-e", node, url], "ok"),
        ("gRPC", [sys.executable, "-c", grpc, f"localhost:{server.port('grpc')}"], "SERVING"),
    ]:
        assert shutil.which(command[0]), f"{command[0]} is not installed"
        exports = said[client].split("export", 1)[1]
        script = f"export {exports} && exec \"$@\""
        for prefix, good in [(script, True), ('exec "$@"', False)]:
            ran = subprocess.run(
                ["bash", "-c", prefix, "bash", *command],
                cwd=pod.cwd,
                env={**pod.environment(), "GRPC_VERBOSITY": "NONE"},
                capture_output=True,
                timeout=DEADLINE,
            )
            assert (wanted in ran.stdout.decode()) is good, f"{client}: {ran.stdout}{ran.stderr.decode()[-500:]}"


def test_tls_init_keeps_the_ca(pod):
    run(pod, "tls", "init")
    folder = pod.cwd / ".spice/tls"
    before = (folder / "ca.pem").read_bytes(), (folder / "server.pem").read_bytes()
    done = run(pod, "tls", "init")
    assert b"existed already" in done.stdout
    assert before == ((folder / "ca.pem").read_bytes(), (folder / "server.pem").read_bytes())


def test_tls_init_says_why_it_cannot(pod):
    pod.write("file", "no folder")
    done = run(pod, "tls", "init", "--dir", pod.folder / "file", code=78)
    assert b"hint: " in done.stderr


# connect

PYTHON = Path(sys.executable).parent


def lines(pod, client: str, server, *more, **how) -> str:
    return run(pod, "connect", client, pod.folder, *endpoints(server), *more, **how).stdout.decode()


def paste(pod, text: str, **env) -> subprocess.CompletedProcess:
    """Runs lines exactly as printed, in a shell whose `spiced` is the one under test."""
    tools = pod.home / "bin"
    tools.mkdir(exist_ok=True)
    if not (tools / "spiced").exists():
        (tools / "spiced").symlink_to(binary())
    path = f"{tools}:{PYTHON}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-e"],
        input=text.encode(),
        cwd=pod.cwd,
        env={**pod.environment(), "PATH": path, "SPICED_LOG": "off", **env},
        capture_output=True,
        timeout=max(DEADLINE, 60),
    )


@pytest.fixture(params=["tls", "clear"])
def connectable(request, pod):
    """A server with a data set to query, and its pod."""
    pod.write("cities.csv", "city\nLima\nOslo\n")
    tls = pod.write_pair() if request.param == "tls" else None
    if tls:
        # The chain includes its root, so `connect` knows which CA to trust.
        pod.write("tls.crt", pod.pair.certificate + pod.ca.pem)
    pod.yaml(tls=tls, datasets=[{"from": "file:cities.csv", "name": "cities"}])
    return pod, pod.serve("--metrics", "localhost:0", "--probe", "localhost:0")


LINES = [
    ("curl", "Lima"),
    ("sql", "Lima"),
    ("pyarrow", "Lima"),
    ("adbc", "Lima"),
    ("polars", "Lima"),
    ("grpc", "SERVING"),
    ("go", "SERVING"),
    ("node", "Lima"),
]


@pytest.mark.parametrize("client, wanted", LINES)
def test_lines_are_pasted_as_they_are(connectable, client, wanted):
    pod, server = connectable
    pasted(pod, server, client, wanted)


@pytest.mark.parametrize("client, wanted", LINES)
@pytest.mark.parametrize("shows", ["key", "certificate"])
def test_lines_with_credentials(pod, shows, client, wanted):
    """A key in SPICE_API_KEY, or client.pem and client-key.pem in the current directory."""
    pod.write("cities.csv", "city\nLima\nOslo\n")
    tls = pod.write_pair()
    pod.write("tls.crt", pod.pair.certificate + pod.ca.pem)
    auth, env = {}, {}
    if shows == "key":
        env["SPICE_API_KEY"] = LEDGER.mark("an API key")
        auth["api_key"] = {"keys": ["${env:SPICE_API_KEY}:ro"]}
    else:
        mine = pod.ca.issue(names=(), common_name="a client", client=True)
        (pod.cwd / "client.pem").write_text(mine.certificate)
        (pod.cwd / "client-key.pem").write_text(mine.key_text)
        tls |= {"client_auth_mode": "required", "client_auth_ca_file": pod.ca_file}
    pod.yaml(tls=tls, runtime={"auth": auth}, datasets=[{"from": "file:cities.csv", "name": "cities"}])
    server = pod.serve(env=env)
    if shows == "certificate" and client in ("go", "node"):
        assert "these lines show no client certificate" in lines(pod, client, server)
        return
    pasted(pod, server, client, wanted, **env)


def pasted(pod, server, client: str, wanted: str, **env: str) -> None:
    """Pastes a client's lines, and expects this text in their output."""
    given = dict(env)
    if client == "go":
        # Debian's Go libraries form a GOPATH.
        env |= {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "", "GOCACHE": str(pod.home / "go")}
        env["GOCACHE"] = os.environ.get("SPICED_GO_CACHE", env["GOCACHE"])
    if client == "node":
        modules = os.environ.get("SPICED_CLIENT_SPICEJS", "")
        assert modules, "SPICED_CLIENT_SPICEJS is not set: the directory whose node_modules has @spiceai/spice"
        env |= {"NODE_PATH": f"{modules}/node_modules"}
    done = paste(pod, lines(pod, client, server, env=given), **env)
    assert done.returncode == 0, done.stderr.decode()
    assert wanted in done.stdout.decode(), done


def test_openssl_line(connectable):
    pod, server = connectable
    done = paste(pod, lines(pod, "openssl", server))
    assert done.returncode == 0, done
    if server.tls():
        assert "Verification: OK" in done.stderr.decode(), done
    else:
        assert not done.stdout and not done.stderr


def test_prometheus_lines_scrape(connectable, tmp_path):
    pod, server = connectable
    (pod.cwd / "prometheus.yml").write_text(lines(pod, "prometheus", server))
    checked = subprocess.run(
        [clients.tool("promtool"), "check", "config", "prometheus.yml"], cwd=pod.cwd, capture_output=True, timeout=DEADLINE
    )
    assert checked.returncode == 0, checked
    config = yaml.safe_load((pod.cwd / "prometheus.yml").read_text())
    # By default Prometheus scrapes once a minute; the first scrape happens within that time.
    text = f"global: {{ scrape_interval: 1s }}\n{yaml.dump(config)}"
    (pod.cwd / "prometheus.yml").write_text(text)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = subprocess.Popen(
        [
            clients.tool("prometheus"),
            "--config.file=prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/tsdb",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        cwd=pod.cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:

        def scraped():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?query=up", timeout=5) as answer:
                results = json.load(answer)["data"]["result"]
            return any(r["metric"]["job"] == "spiced" and r["value"][1] == "1" for r in results)

        eventually(scraped, "a scrape that succeeds", DEADLINE)
    finally:
        running.terminate()
        running.wait(DEADLINE)


def test_probe_lines_match_a_kubelets_requests(connectable):
    """A kubelet does not check the certificate, and neither does `-k`."""
    pod, server = connectable
    for words in (endpoints(server), endpoints(server)[:-2]):  # with the probe endpoint, and without it
        text = run(pod, "connect", "kubernetes-probe", pod.folder, *words).stdout.decode()
        probes = yaml.safe_load(text)
        for probe in ("livenessProbe", "readinessProbe"):
            check = probes[probe]["httpGet"]
            url = f"{check['scheme'].lower()}://localhost:{check['port']}{check['path']}"
            clients.curl(url, "-k").ok()


def test_jdbc_url_names_the_endpoint(connectable):
    """No registry that this suite reaches has the driver: the URL's parts are those of its documentation."""
    pod, server = connectable
    url = lines(pod, "jdbc", server).strip()
    wanted = rf"jdbc:arrow-flight-sql://localhost:{server.port('flight')}/\?useEncryption="
    assert re.match(wanted + (r"true&tlsRootCerts=.+\.crt$" if server.tls() else "false$"), url), url


def test_a_missing_ca_is_named(pod):
    pod.yaml(tls=pod.write_pair())
    text = run(pod, "connect", "curl", pod.folder).stdout.decode()
    assert text.startswith("# ca.pem: the certificate of the CA CN=Conformance Root"), text
    (pod.cwd / "ca.pem").write_text(pod.ca.pem)
    server = pod.serve()
    assert paste(pod, lines(pod, "curl", server)).returncode == 0


def test_a_name_that_the_certificate_has(pod):
    pod.yaml(tls=pod.write_pair(pod.ca.issue(("db.example.com",), common_name="db.example.com")))
    text = run(pod, "connect", "curl", pod.folder, "--http", "0.0.0.0:3000").stdout.decode()
    assert "https://db.example.com:3000/v1/sql" in text, text


def test_connect_without_a_client_prints_all(pod):
    pod.yaml()
    text = run(pod, "connect", cwd=pod.folder).stdout.decode()
    for client in ("curl", "pyarrow", "adbc", "go", "grpc", "jdbc", "prometheus", "kubernetes-probe"):
        assert f"# {client}: " in text, client


def test_connect_refuses_incomplete_settings(pod):
    pod.yaml()
    done = run(pod, "connect", "curl", pod.folder, "--http", "localhost:0", code=78)
    assert b"port 0" in done.stderr and b"hint: " in done.stderr
    done = run(pod, "connect", "crul", pod.folder, code=64)
    assert b"no client is called `crul`" in done.stderr and b"curl" in done.stderr
