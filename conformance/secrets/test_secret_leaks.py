"""Nothing leaks: marked secrets in every store and in every parameter of a store, through success and failure, with all
log levels. The server's output is checked against the ledger when it ends, and its responses are checked here."""

from __future__ import annotations

import base64
import contextlib
import signal
import uuid

import pyarrow
import pytest

from harness import clients, data, scripted_server
from harness.certificates import key_pem
from harness.cluster import Cluster
from harness.leak_scanner import LEDGER
from harness.stores import aws_environment
from harness.waiting import eventually

LOUD = {"-vv": (["-vv"], {}), "trace": ([], {"SPICED_LOG": "trace"})}


def secrets(pod) -> dict[str, str]:
    """A pair, and values for other settings."""
    return {
        "crt": pod.pair.certificate,
        "key": pod.pair.key_text,
        "tickets": LEDGER.mark("a ticket secret"),
        "unused": LEDGER.mark("a secret that nobody refers to"),
    }


def kubernetes(pod, request):
    cluster = Cluster(pod.ca.issue(), pod.ca.pem)
    request.addfinalizer(cluster.close)
    cluster.put("s", secrets(pod))
    return {"from": "kubernetes:s"}, {"KUBECONFIG": cluster.kubeconfig(pod.home)}, cluster.front


def aws(pod, request):
    moto = request.getfixturevalue("moto")
    name = f"leaks-{uuid.uuid4().hex}"
    moto.create(name, secrets(pod))
    between = scripted_server.Front(scripted_server.pass_on(moto.url))
    request.addfinalizer(between.close)
    params = {
        "aws_endpoint_url": between.url,
        "aws_access_key_id": "AKIDTEST",
        "aws_secret_access_key": "${env:KEY}",
        "aws_session_token": "${env:TOKEN}",
    }
    env = aws_environment(KEY=LEDGER.mark("a secret key"), TOKEN=LEDGER.mark("a session token"))
    return {"from": f"aws_secrets_manager:{name}", "params": params}, env, between


def vault(pod, request):
    bao = request.getfixturevalue("bao")
    mount = f"leaks-{uuid.uuid4().hex[:8]}"
    bao.mount(mount)
    bao.put(mount, "s", secrets(pod))
    bao.policy(mount, f'path "{mount}/*" {{ capabilities = ["read"] }}')
    if "approle/" not in bao.ask("GET", "sys/auth"):
        bao.ask("POST", "sys/auth/approle", {"type": "approle"})
    bao.ask("POST", f"auth/approle/role/{mount}", {"token_policies": [mount], "token_ttl": "3s"})
    role = bao.ask("GET", f"auth/approle/role/{mount}/role-id")["data"]["role_id"]
    secret = LEDGER.mark("a secret_id")
    bao.ask("POST", f"auth/approle/role/{mount}/custom-secret-id", {"secret_id": secret})
    between = scripted_server.Front(scripted_server.pass_on(bao.url, bao.trust), pod.ca.issue())
    request.addfinalizer(between.close)
    params = {
        "hashicorp_vault_address": between.url,
        "hashicorp_vault_ca_file": pod.ca_file,
        "hashicorp_vault_role_id": role,
        "hashicorp_vault_secret_id": "${env:SECRET_ID}",
    }
    return {"from": f"hashicorp_vault:{mount}/s", "params": params}, {"SECRET_ID": secret}, between


def files(pod, request):
    for name, value in secrets(pod).items():
        pod.write(f"mounted/{name}", value)
    return {"from": "file:mounted"}, {}, None


def environment(pod, request):
    return {"from": "env"}, {name.upper(): value for name, value in secrets(pod).items()}, None


STORES = {"kubernetes": kubernetes, "aws": aws, "vault": vault, "file": files, "env": environment}


def look_everywhere(server) -> None:
    """Every response that describes the server, and some errors."""
    for endpoint, path in [("http", "/v1/status"), ("http", "/v1/datasets"), ("metrics", "/metrics"), ("http", "/nowhere")]:
        answer = clients.get(server, path, endpoint=endpoint)
        LEDGER.assert_clean(answer.body, path)
        LEDGER.assert_clean(str(answer.headers), f"the headers of {path}")
    for text in ("SELECT 1", "SHOW ALL", "SELECT * FROM information_schema.df_settings", "SELECT nonsense", "EXPLAIN SELECT 1"):
        LEDGER.assert_clean(clients.sql(server, text).body, text)


@pytest.mark.parametrize("loud", LOUD)
@pytest.mark.parametrize("kind", STORES)
def test_through_success_change_and_failure(pod, request, kind, loud):
    declared, env, between = STORES[kind](pod, request)
    args, more = LOUD[loud]
    name = "env" if kind == "env" else "store"
    data.write(data.PEOPLE, pod.folder / "people.parquet")
    pod.yaml(
        secrets=[{"name": name, "refresh_interval": "1s", **declared}],
        tls={
            "certificate": "${%s:crt}" % name,
            "key": "${%s:key}" % name,
            "session_ticket_secret": "${%s:tickets}" % name,
        },
        datasets=[{"from": "file:people.parquet", "name": "people"}],
    )
    server = pod.serve(*args, "--metrics", "localhost:0", env={**env, **more})
    clients.assert_serves(server, pod.pair)
    clients.query(clients.flight_client(server), "SELECT * FROM people")
    look_everywhere(server)
    server.signal(signal.SIGHUP)
    server.wait_for_log(match="was read again and is unchanged")
    if between is not None:
        for behave in (scripted_server.nonsense, scripted_server.endless, lambda asked: asked.answer(500, b"{}")):
            between.behave = behave
            asked = len(between.requests)
            eventually(lambda asked=asked: len(between.requests) >= asked + 2, "it is asked again")
        server.wait_for_log("WARN", match="the last good values are kept")
        look_everywhere(server)


@pytest.mark.parametrize("loud", LOUD)
@pytest.mark.parametrize("kind", ["kubernetes", "aws", "vault"])
@pytest.mark.parametrize("behave", ["nonsense", "endless", "echo"])
def test_a_start_that_fails(pod, request, kind, loud, behave):
    declared, env, between = STORES[kind](pod, request)
    args, more = LOUD[loud]
    between.behave = {"nonsense": scripted_server.nonsense, "endless": scripted_server.endless, "echo": echo}[behave]
    pod.yaml(secrets=[{"name": "store", **declared}], tls={"certificate": "${store:crt}", "key": "${store:key}"})
    pod.refuse(*args, env={**env, **more})


def echo(asked) -> None:
    """Returns the whole request in an error."""
    said = {"errors": [f"{asked.headers} {asked.body}"], "message": f"{asked.headers}", "__type": "Nonsense", "code": 400}
    import json

    asked.answer(400, json.dumps(said).encode())


@pytest.mark.parametrize("loud", LOUD)
def test_invalid_material(pod, loud):
    """Secrets in place of PEM, of an address and of a number."""
    args, more = LOUD[loud]
    marked = {name: LEDGER.mark(f"a secret as a {name}") for name in ("CERT", "ADDRESS", "NUMBER", "PATH_TO")}
    for setting in (
        {"tls": {"certificate": "${env:CERT}", "key": pod.pair.key_text}},
        {"tls": {"certificate_file": "${env:PATH_TO}", "key": pod.pair.key_text}},
        {"runtime": {"listen": {"metrics": "${env:ADDRESS}"}}},
        {"runtime": {"limits": {"connections": "${env:NUMBER}"}}},
    ):
        pod.yaml(**setting)
        done = pod.refuse(*args, env={**marked, **more})
        LEDGER.assert_clean(done.stderr, "standard error")


@pytest.mark.parametrize("loud", LOUD)
def test_secrets_of_callers_and_data_sets(pod, loud):
    """Keys in every header and payload, valid, wrong and malformed; credentials in statements; parameters of data sets
    whose sources answer, refuse, or are missing; a passphrase; a reload of all of these.
    """
    args, more = LOUD[loud]
    mark = LEDGER.mark
    keys = {"KEY_RO": mark("a read-only key"), "KEY_RW": mark("a read-write key")}
    other = {name: mark(f"the parameter {name}") for name in ("PG_PASS", "TOKEN", "S3_KEY", "S3_SECRET", "HTTP_PASS")}
    passphrase = mark("a passphrase")
    pod.write("tls.crt", pod.pair.certificate)
    pod.write("tls.key", key_pem(pod.pair.key, "pkcs8", passphrase.encode()))
    nowhere = f"localhost:{scripted_server.refused_port()}"
    pod.yaml(
        tls={"certificate_file": "tls.crt", "key_file": "tls.key", "key_passphrase": "${env:PASSPHRASE}"},
        runtime={"auth": {"api_key": {"keys": ["${env:KEY_RO}:ro", "${env:KEY_RW}:rw"]}}},
        datasets=[
            {"from": "memory:", "name": "notes", "access": "read_write", "columns": [{"name": "id", "type": "bigint"}]},
            {
                "from": "postgres:public.t",
                "name": "pg",
                "params": {
                    "pg_host": "127.0.0.1", "pg_port": nowhere.rsplit(":")[-1], "pg_db": "d", "pg_user": "u",
                    "pg_pass": "${env:PG_PASS}", "pg_sslmode": "disable",
                },
            },
            {
                "from": "flightsql:t",
                "name": "fl",
                "params": {"flightsql_endpoint": f"grpc+tls://{nowhere}", "flightsql_token": "${env:TOKEN}"},
            },
            {
                "from": "s3://bucket/x.parquet",
                "name": "s3",
                "params": {
                    "s3_endpoint": f"http://{nowhere}", "allow_http": "true", "s3_key": "${env:S3_KEY}", "s3_secret": "${env:S3_SECRET}",
                    "client_timeout": "1s",
                },
            },
            {
                "from": f"https://{nowhere}/x.csv",
                "name": "web",
                "params": {"http_username": "u", "http_password": "${env:HTTP_PASS}", "client_timeout": "1s"},
            },
        ],
    )
    server = pod.serve(*args, env={**keys, **other, "PASSPHRASE": passphrase, **more})
    wrong = mark("a wrong key")
    for key in (*keys.values(), wrong):
        basic = base64.b64encode(f"anybody:{key}".encode()).decode()
        LEDGER.add("Basic credentials", basic)
        for header in (f"X-API-Key: {key}", f"Authorization: Bearer {key}", f"Authorization: Basic {basic}", f"Authorization: {key}", f"Cookie: k={key}"):
            for http in ("--http1.1", "--http2"):
                clients.sql(server, "SELECT 1", http, "-H", header)
        client = clients.flight_client(server)
        for options in ([(b"x-api-key", key.encode())], [(b"authorization", f"Bearer {key}".encode())], [(b"authorization", f"Basic {basic}".encode())]):
            with contextlib.suppress(pyarrow.ArrowException):
                clients.query(client, "SELECT 1", clients.call(headers=options))
        with contextlib.suppress(pyarrow.ArrowException):
            client.authenticate_basic_token("anybody", key)
    for key in keys.values():
        for text in (
            "COPY notes TO 's3://b/x' STORED AS CSV OPTIONS ('aws.secret_access_key' '{}')",
            "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION 's3://b/x' OPTIONS ('aws.secret_access_key' '{}')",
            "SELECT '{}' AS password FROM notes WHERE 'password={}' = 'x'",
            "SELECT * FROM nothing WHERE password = '{}'",
            "SELECT 'broken password={}",
            "SET datafusion.secret_token = '{}'",
        ):
            in_statement = mark("a credential in a statement")
            clients.sql(server, text.replace("{}", in_statement), "-H", f"X-API-Key: {key}")
            with contextlib.suppress(pyarrow.ArrowException):
                clients.query(client, text.replace("{}", in_statement), clients.call(headers=[(b"x-api-key", key.encode())]))
    server.signal(signal.SIGHUP)
    server.wait_for_log(match="was read again and is unchanged")
