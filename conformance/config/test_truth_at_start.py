"""What startup reports: variables that are almost settings, all errors in one report, plain text, and what callers can
write into the log and the history. Also, what the revocation of a key or certificate ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess

import pyarrow
import pyarrow.flight as flight
import pytest

from harness import clients, data, wire
from harness.access import RO, Access, asking, replace
from harness.commands import run
from harness.leak_scanner import LEDGER
from harness.server import binary
from harness.waiting import DEADLINE, eventually

NEARLY = {
    "SPICED_RUNTIME_TLS__CERTIFICATE_FILE": "SPICED_RUNTIME__TLS__CERTIFICATE_FILE",
    "SPICED_RUNTIME_TLS_KEY_FILE": "SPICED_RUNTIME__TLS__KEY_FILE",
    "SPICED_RUNTIME__TLS_ENABLED": "SPICED_RUNTIME__TLS__ENABLED",
    "SPICED_TLS_CERTIFICATE_FILE": "SPICED_RUNTIME__TLS__CERTIFICATE_FILE",
    "SPICED_TLS_KEY": "SPICED_RUNTIME__TLS__KEY",
    "SPICE_RUNTIME__TLS__ENABLED": "SPICED_RUNTIME__TLS__ENABLED",
    "spiced_runtime__tls__self_signed": "SPICED_RUNTIME__TLS__SELF_SIGNED",
    "SPICED_HTTP": "SPICED_RUNTIME__LISTEN__HTTP",
    "SPICED_OPEN_TELEMETRY": "SPICED_RUNTIME__LISTEN__GRPC",
    "SPICED_LOG_FORMAT": "--log-format",
}

LINKS = {
    f"{service}_{link}": value
    for service in ("SPICED", "SPICED_HTTP", "SPICED_TLS", "SPICED_TLS_KEY", "SPICE", "SPICED_RUNTIME")
    for link, value in {
        "PORT": "tcp://10.0.0.1:3000",
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "3000",
        "SERVICE_PORT_HTTP": "3000",
        "PORT_3000_TCP": "tcp://10.0.0.1:3000",
        "PORT_3000_TCP_ADDR": "10.0.0.1",
        "PORT_3000_TCP_PORT": "3000",
        "PORT_3000_TCP_PROTO": "tcp",
    }.items()
}


def test_every_variable_similar_to_a_setting_in_one_report(pod):
    refusal = pod.refuse(env={name: LEDGER.mark(f"the value of {name}") for name in NEARLY})
    refusal.names(*NEARLY, *NEARLY.values())


@pytest.mark.parametrize("command", [["tls", "check"], ["config", "explain"], ["connect", "curl"], ["secrets", "check"]], ids=" ".join)
def test_commands_report_it_as_the_start_does(pod, command):
    pod.yaml()
    done = run(pod, *command, pod.folder, code=78, env={"SPICED_TLS_KEY_FILE": LEDGER.mark("a value")})
    assert b"SPICED_TLS_KEY_FILE" in done.stderr and b"SPICED_RUNTIME__TLS__KEY_FILE" in done.stderr


def test_service_links_and_secrets_are_left_alone(pod):
    pod.yaml(tls={"certificate": "${env:TLS_CERTIFICATE}", "key": "${secrets:TLS_KEY}"})
    secrets = {"SPICE_TLS_CERTIFICATE": pod.pair.certificate, "SPICE_TLS_KEY": pod.pair.key_text}
    server = pod.serve(env={**LINKS, **secrets})
    clients.assert_serves(server, pod.pair)
    assert not server.logged("WARN", match="no setting")


def test_a_similar_variable_is_a_warning(pod):
    value = LEDGER.mark("the value of a variable")
    server = pod.serve(env={"SPICED_TLS_CERT_FILE": value, "SPICED_RUNTIME_TLS_KEYFILE": value})
    for name, right in [("SPICED_TLS_CERT_FILE", "CERTIFICATE_FILE"), ("SPICED_RUNTIME_TLS_KEYFILE", "KEY_FILE")]:
        assert server.logged("WARN", match=f"{name}.*SPICED_RUNTIME__TLS__{right}"), server.stderr


def test_everything_that_is_wrong_in_one_report(pod):
    pod.write(
        "spicepod.yaml",
        "version: v1\nkind: Spicepod\nname: odd\nruntime:\n  tsl: { enabled: true }\n  limits: { connections: many }\n"
        "  sql: { timeout: '${env:NOT_THERE}' }\ndataset: []\ndatasets:\n  - { frm: a, name: b }\n",
    )
    refusal = pod.refuse(env={"SPICED_TLS_KEY_FILE": "k", "SPICED_RUNTIME__SHUTDOWN_DELAY": LEDGER.mark("a value")})
    refusal.names("SPICED_TLS_KEY_FILE", "SPICED_RUNTIME__SHUTDOWN_DELAY", "`tsl`", "connections", "NOT_THERE", "`dataset`", "`frm`")
    assert sum(line.startswith("  - ") for line in refusal.report) == 7, refusal.stderr
    assert "keep spiced from starting" in refusal.report[0]


FAR = ("--http", "0.0.0.0:0")
PLAIN = {
    "loopback": ((), {}, "INFO"),
    "beyond": (FAR, {}, "WARN"),
    "beyond-read": (FAR, {"allow_anonymous": "ro"}, "WARN"),
    "beyond-write": (FAR, {"allow_anonymous": "rw"}, "ERROR"),
    "loopback-write": ((), {"allow_anonymous": "rw"}, "INFO"),
}


@pytest.mark.parametrize("case", PLAIN)
def test_a_start_without_tls_says_so(pod, case):
    args, auth, level = PLAIN[case]
    pod.yaml(runtime={"auth": auth} if auth else None)
    server = pod.serve(*args, endpoints=("flight", "grpc") if args else ("http", "flight", "grpc"))
    for other in ("INFO", "WARN", "ERROR"):
        assert bool(server.logged(other, match="TLS is off")) == (other == level), f"{other}: {server.stderr}"


def test_a_start_with_tls_does_not(pod):
    pod.yaml(tls=pod.write_pair())
    assert "TLS is off" not in pod.serve().stderr


@pytest.mark.parametrize("origin, anonymous, warned", [("*", "rw", True), ("*", "ro", False), ("https://a.example", "rw", False)])
def test_cors_for_all_with_anonymous_writers(pod, origin, anonymous, warned):
    pod.yaml(
        tls=pod.write_pair(),
        runtime={"cors": {"enabled": True, "allowed_origins": [origin]}, "auth": {"allow_anonymous": anonymous}},
    )
    assert bool(pod.serve().logged("WARN", match="any origin")) == warned


HOSTILE = "a\x1b[2J\x1b]0;owned\x07\nERROR forged\r\u202e\u009b31m"


def test_callers_cannot_write_lines_or_commands_into_the_text_log(pod):
    """Whatever a caller sends, each log line comes from the server, and contains no terminal control sequences."""
    access = Access(pod)
    shown = clients.showing(access.certificate(common_name=HOSTILE), pod.home)
    pod.yaml(tls=access.tls("request"), datasets=[data.MEMORY])
    log = pod.home / "log"
    with log.open("wb") as stderr:
        server = subprocess.Popen(
            [binary(), *(f"--{endpoint}=localhost:0" for endpoint in ("http", "flight", "grpc")), str(pod.folder)],
            cwd=pod.cwd, env=pod.environment({"SPICED_LOG": "trace"}), stdout=subprocess.DEVNULL, stderr=stderr,
        )
    try:
        eventually(lambda: "serving" in log.read_text(), "it serves")
        ports = dict(re.findall(r'listening endpoint="(\w+)" address=127.0.0.1:(\d+)', log.read_text()))
        url = f"https://127.0.0.1:{ports['http']}"
        quoted = "".join(f"%{byte:02x}" for byte in HOSTILE.encode())
        for args in (
            [f"{url}/v1/sql", "-d", f"INSERT INTO {data.MEMORY['name']} VALUES (1, 'x')"],
            [f"{url}/{quoted}"],
            [f"{url}/v1/sql", "--data-binary", f"SELECT '{HOSTILE}' FROM \"{HOSTILE}\""],
            [f"{url}/v1/sql", "-H", "Authorization: " + HOSTILE.replace("\n", "").replace("\r", ""), "-d", "SELECT 1"],
            [f"{url}/v1/sql", "-H", "Content-Type: " + HOSTILE.replace("\n", "").replace("\r", ""), "-d", "SELECT 1"],
        ):
            subprocess.run([clients.tool("curl"), "-sk", *shown, *args], capture_output=True, timeout=DEADLINE, check=False)
    finally:
        server.terminate()
        server.wait(DEADLINE)
    assert "forged" in log.read_text(), "part of it was logged"
    for line in log.read_text().split("\n"):
        assert not [c for c in line if ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u202e\u2028"], repr(line)
        assert not line.startswith("ERROR forged"), line


KEYS = {"READ": "key-of-a-reader-0123456789", "WRITE": "key-of-a-writer-0123456789"}


def keyed(pod, **names: str):
    names = names or {"READ": "ro", "WRITE": "rw"}
    pod.write(".env", "".join(f"{name}={KEYS[name]}\n" for name in KEYS))
    keys = ["${env:%s}:%s" % (name, role) for name, role in names.items()]
    pod.yaml(
        tls=pod.write_pair(),
        runtime={"auth": {"api_key": {"keys": keys}}},
        datasets=[{"from": "memory:", "name": "notes", "access": "read_write", "columns": [{"name": "id", "type": "bigint"}]}],
    )


SECRETIVE = [
    "COPY notes TO 's3://b/x' STORED AS CSV OPTIONS ('aws.secret_access_key' '{}')",
    "EXPLAIN COPY notes TO 's3://b/x' STORED AS CSV OPTIONS ('aws.secret_access_key' '{}')",
    "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION 's3://b/x' OPTIONS ('aws.secret_access_key' '{}')",
    "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION 's3://b/x' OPTIONS ('aws.secret_access_key' '{}'",
    "PREPARE p AS SELECT * FROM nothing WHERE password = '{}'",
    "SELECT * FROM notes WHERE api_key = '{}'",
    "SELECT * FROM nothing WHERE 'postgres://me:{}@db/x' = id",
    "SET datafusion.secret_token = '{}'",
]


def test_no_credential_of_a_statement_is_kept(pod):
    """Whether the statement is denied, malformed or executed, its record in `runtime.queries` has no credential."""
    keyed(pod)
    server = pod.serve()
    marked = LEDGER.mark("a credential in a statement")
    for key in KEYS.values():
        for text in SECRETIVE:
            clients.sql(server, text.format(marked), "-H", f"X-API-Key: {key}")
    asked = clients.sql(server, "SELECT statement, error, outcome FROM runtime.queries", "-H", f"X-API-Key: {KEYS['WRITE']}").ok()
    LEDGER.assert_clean(asked.body, "runtime.queries")
    kept = [row["statement"] for row in json.loads(asked.body)]
    assert len(kept) >= 2 * len(SECRETIVE), kept
    assert any(text and "'aws.secret_access_key' '***'" in text for text in kept), kept
    assert any(text and "password = '***'" in text for text in kept), kept


ENDLESS = "SELECT a.value + b.value AS x FROM range(0, 10000000) a CROSS JOIN range(0, 10000000) b"


def reading(server, *caller: str) -> subprocess.Popen:
    """A client that has received part of an endless answer, and keeps reading."""
    process = subprocess.Popen(
        [clients.tool("curl"), "-sS", "--limit-rate", "1M", "--cacert", server.ca, server.url("/v1/sql"), *caller,
         "-H", "Accept: application/x-ndjson", "-d", ENDLESS],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )
    assert process.stdout.read(1000)
    return process


@pytest.mark.parametrize("change", ["taken away", "lesser role", "another key"])
def test_a_revoked_key_ends_running_requests(pod, change):
    keyed(pod)
    server = pod.serve()
    mine = clients.call(headers=[(b"x-api-key", KEYS["WRITE"].encode())])
    revoked, other = (reading(server, "-H", f"X-API-Key: {KEYS[name]}") for name in ("WRITE", "READ"))
    client = clients.flight_client(server)
    info = client.get_flight_info(clients.command(ENDLESS), mine)
    answer = client.do_get(info.endpoints[0].ticket, mine)
    answer.read_chunk()
    if change == "another key":
        pod.write(".env", f"READ={KEYS['READ']}\nWRITE=another-key-0123456789\n")
    else:
        keyed(pod, READ="ro", **({"WRITE": "ro"} if change == "lesser role" else {}))
        server.signal(signal.SIGHUP)
    out, err = revoked.communicate(timeout=DEADLINE)
    assert revoked.returncode in (18, 92), f"{revoked.returncode}: {err}"
    with pytest.raises(flight.FlightUnauthenticatedError):
        while True:
            answer.read_chunk()
    assert other.poll() is None and other.stdout.read(1000), "other callers keep reading"
    other.kill()
    other.communicate()
    eventually(lambda: server.logged("WARN", match='"reason": *"revoked"') or "revoked" in server.stderr, "the audit log tells")


def test_a_revoked_key_ends_an_upload(pod):
    keyed(pod)
    server = pod.serve()
    client = clients.flight_client(server)
    batch = pyarrow.record_batch({"id": pyarrow.array(range(1000), pyarrow.int64())})
    ingest = flight.FlightDescriptor.for_command(wire.ingest("notes"))
    writer, _ = client.do_put(ingest, batch.schema, clients.call(headers=[(b"x-api-key", KEYS["WRITE"].encode())]))
    writer.write_batch(batch)
    pod.write(".env", f"READ={KEYS['READ']}\nWRITE=another-key-0123456789\n")
    with pytest.raises(flight.FlightUnauthenticatedError):
        while True:
            writer.write_batch(batch)
    pod.write(".env", "".join(f"{name}={KEYS[name]}\n" for name in KEYS))
    count = lambda: clients.sql(server, "SELECT count(*) AS n FROM notes", "-H", f"X-API-Key: {KEYS['WRITE']}")
    eventually(lambda: count().status == 200, "the key is taken again")
    assert count().json() == [{"n": 0}], "no row of it is kept"


def test_a_revoked_certificate_ends_running_requests(pod):
    access = Access(pod)
    pairs = {"a": access.certificate(RO), "b": access.certificate(RO)}
    server = asking(pod, "request", access=access, crls=[access.clients.crl()])
    revoked, other = (reading(server, *clients.showing(pair, pod.home)) for pair in pairs.values())
    replace(pod, server, **{"0.crl": access.clients.crl(pairs["a"], number=2)})
    _, err = revoked.communicate(timeout=DEADLINE)
    assert revoked.returncode in (18, 56, 92), f"{revoked.returncode}: {err}"
    assert other.poll() is None and other.stdout.read(1000), "other callers keep reading"
    other.kill()
    other.communicate()


ODD = {
    "two URIs": ("spiffe://conformance/rw", "spiffe://conformance/ro"),
    "a URI of another kind beside it": ("spiffe://conformance/rw", "https://conformance/x"),
    "dot segments": ("spiffe://conformance/ns/../rw",),
    "a coded slash": ("spiffe://conformance/a%2Frw",),
    "a query": ("spiffe://conformance/rw?x=y",),
    "a fragment": ("spiffe://conformance/rw#x",),
    "an empty segment": ("spiffe://conformance//rw",),
}


@pytest.mark.parametrize("identities", ["by pattern", "none"])
def test_an_invalid_spiffe_id_has_no_access(pod, identities):
    access = Access(pod)
    patterns = ["spiffe://conformance/*", "spiffe://conformance/*/*", "spiffe://conformance/*/*/*", "https://conformance/*"]
    mtls = {"identities": [{"san_uri": pattern, "role": "rw"} for pattern in patterns]} if identities == "by pattern" else False
    server = asking(pod, "request", access=access, mtls=mtls)
    good = access.certificate("spiffe://conformance/rw")
    assert clients.sql(server, "SELECT 1", *clients.showing(good, pod.home)).status == 200
    for name, uris in ODD.items():
        pair = access.certificate(*uris)
        assert clients.sql(server, "SELECT 1", *clients.showing(pair, pod.home)).status == 403, name


def test_the_log_filter_is_not_repeated(pod):
    marked = LEDGER.mark("a log filter")
    pod.refuse(env={"SPICED_LOG": f"{marked}=nonsense=[{marked}"}).names("SPICED_LOG")
