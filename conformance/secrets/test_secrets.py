"""Behaviour common to all secret stores: references between stores, a single report, refresh, `spiced secrets check`,
core dumps."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from harness import clients, scripted_server
from harness.leak_scanner import LEDGER
from harness.messages import plain
from harness.server import text_of
from harness.stores import aws_environment
from harness.waiting import DEADLINE, eventually

MOUNTED = {"name": "mounted", "from": "file:mounted", "refresh_interval": "1s"}
PAIR = {"certificate": "${mounted:crt}", "key": "${mounted:key}"}


def mount(pod, pair) -> None:
    pod.write("mounted/crt", pair.certificate)
    pod.write("mounted/key", pair.key_text)


# Refresh


def test_text_around_a_reference_is_rendered_again(pod):
    """The certificate's intermediates are literal text in the pod; the leaf comes from the store."""
    from harness.certificates import Authority, certificate_pem

    intermediate = Authority("Conformance Intermediate", pod.ca)
    pair = intermediate.issue()
    pod.write("mounted/leaf", certificate_pem(pair.leaf))
    pod.write("mounted/key", pair.key_text)
    chain = "${mounted:leaf}\n" + certificate_pem(*pair.intermediates)
    pod.yaml(secrets=[MOUNTED], tls={"certificate": chain, "key": "${mounted:key}"})
    server = pod.serve()
    clients.assert_serves(server, pair)
    renewed = intermediate.issue(common_name="renewed")
    pod.write("mounted/leaf", certificate_pem(renewed.leaf))
    pod.write("mounted/key", renewed.key_text)
    eventually(lambda: clients.presented(server) == renewed.der, "the new leaf")
    clients.assert_serves(server, renewed)  # curl trusts only the root: the intermediate is still sent


def test_connections_in_flight_are_untouched(pod):
    mount(pod, pod.pair)
    pod.yaml(secrets=[MOUNTED], tls=PAIR)
    server = pod.serve()
    with clients.handshake(server.port("http"), alpn=("http/1.1",)) as connection:
        renewed = pod.ca.issue(common_name="renewed")
        mount(pod, renewed)
        eventually(lambda: clients.presented(server) == renewed.der, "the new certificate")
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_without_an_interval_a_file_store_is_read_on_reload(pod):
    mount(pod, pod.pair)
    pod.yaml(secrets=[{"name": "mounted", "from": "file:mounted"}], tls=PAIR)
    server = pod.serve()
    assert clients.get(server, "/v1/status").ok().json()["stores"][0]["refresh"] == "on reload"
    renewed = pod.ca.issue(common_name="renewed")
    mount(pod, renewed)
    server.signal(signal.SIGHUP)
    for endpoint in ("http", "flight", "grpc"):
        eventually(lambda endpoint=endpoint: clients.presented(server, endpoint) == renewed.der, f"the new certificate on {endpoint}")


def test_a_certificate_file_and_a_key_secret_change_together(pod):
    """The key from a store, the certificate from a file: SIGHUP reads both."""
    mount(pod, pod.pair)
    pod.write("tls.crt", pod.pair.certificate)
    pod.yaml(secrets=[MOUNTED], tls={"certificate_file": "tls.crt", "key": "${mounted:key}"})
    server = pod.serve()
    renewed = pod.ca.issue(common_name="renewed")
    pod.write("mounted/key", renewed.key_text)
    server.wait_for_log("ERROR", match="is rejected")
    assert clients.presented(server) == pod.pair.der
    pod.write("tls.crt", renewed.certificate)
    server.signal(signal.SIGHUP)
    eventually(lambda: clients.presented(server) == renewed.der, "the whole pair")


def test_sighup_while_a_store_hangs_does_not_delay_a_stop(pod, fronts):
    answer = json.dumps({"SecretString": json.dumps({"crt": pod.pair.certificate, "key": pod.pair.key_text})}).encode()
    aws = fronts(lambda asked: asked.answer(200, answer, "application/x-amz-json-1.1"))
    store = {"name": "aws", "from": "aws_secrets_manager:s", "params": {"aws_endpoint_url": aws.url}}
    pod.yaml(secrets=[store], tls={"certificate": "${aws:crt}", "key": "${aws:key}"})
    server = pod.serve(env=aws_environment())
    aws.behave = scripted_server.slow
    asked = len(aws.requests)
    server.signal(signal.SIGHUP)
    eventually(lambda: len(aws.requests) > asked, "the store is asked")
    clients.assert_serves(server, pod.pair)
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit(10) == 0


# One report


def test_everything_that_is_missing_or_unreachable_comes_in_one_report(pod):
    port = scripted_server.refused_port()
    pod.write("here/A", "a")
    pod.yaml(
        secrets=[
            {"name": "here", "from": "file:here"},
            {
                "name": "vault",
                "from": "hashicorp_vault:secret/spice",
                "params": {"hashicorp_vault_address": f"https://localhost:{port}", "hashicorp_vault_token": "${here:T}"},
            },
            {
                "name": "aws",
                "from": "aws_secrets_manager:s",
                "params": {"aws_endpoint_url": f"https://localhost:{port}"},
            },
        ],
        tls={"certificate": "${aws:crt}", "key": "${vault:key}"},
        datasets=[{"from": "file:${here:FILE}", "name": "x"}, {"from": "file:${aws:file}", "name": "y"}],
    )
    assert plain(pod.refuse(env=aws_environment()).report, pod.folder) == (
        "error: 3 problems keep spiced from starting\n"
        "  - spicepod.yaml: secrets[1].params.hashicorp_vault_token: ${here:T}: there is no `T`\n"
        "    fix: set it in one of: POD/here/T\n"
        "  - spicepod.yaml: secrets[2]: secret store `aws`: cannot reach https://localhost:PORT: Connection refused "
        "(os error N) (needed by spicepod.yaml: datasets[1].from and 1 more)\n"
        "    fix: check that this machine reaches it, and aws_endpoint_url if it is set\n"
        "  - spicepod.yaml: datasets[0].from: ${here:FILE}: there is no `FILE`\n"
        "    fix: set it in one of: POD/here/FILE\n"
        "hint: do what each `fix` says for the lines above it; all of them are needed"
    )


def test_a_cycle_of_stores_is_refused_and_named(pod):
    pod.yaml(
        secrets=[
            {"name": "a", "from": "env", "params": {"file_path": "${b:X}"}},
            {"name": "b", "from": "env", "params": {"file_path": "${a:X}"}},
        ],
        tls={"certificate": "${a:crt}", "key": "${b:key}"},
    )
    assert pod.refuse().report == [
        "error: spicepod.yaml: secrets[1]: secret store `b`: the params of stores refer to each other in a cycle: "
        "b -> a -> b",
        "hint: give one of them its value from another store, such as `${env:KEY}`",
    ]


def test_an_unused_store_may_be_down(pod):
    store = {
        "name": "aws",
        "from": "aws_secrets_manager:s",
        "params": {"aws_endpoint_url": f"https://localhost:{scripted_server.refused_port()}"},
    }
    pod.yaml(secrets=[store])
    server = pod.serve(env=aws_environment())
    assert clients.get(server, "/v1/status").ok().json()["stores"][0]["state"] == "not asked"


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"refresh_interval": "0s"}, "takes a duration of a second or more"),
        ({"refresh_interval": "soon"}, "takes a duration, such as 10s"),
        ({"from": "file:${env:X}"}, "only the params of a store may hold references"),
    ],
    ids=["no-interval", "interval-in-words", "reference-in-from"],
)
def test_declarations_that_are_refused(pod, declared, said):
    pod.yaml(secrets=[{**MOUNTED, **declared}])
    pod.refuse().names("spicepod.yaml: secrets[0].", said)


# spiced secrets check


def check(pod, *args, env=None) -> subprocess.CompletedProcess:
    """Runs it; its output must contain no secret."""
    command = [pod.command([], None)[0], "secrets", "check", *args, str(pod.folder)]
    done = subprocess.run(
        command, cwd=pod.cwd, env=pod.environment(env), stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE
    )
    LEDGER.assert_clean(done.stdout, "standard output")
    LEDGER.assert_clean(done.stderr, "standard error")
    return done


def test_check_of_a_pod_that_is_well(pod):
    mount(pod, pod.pair)
    pod.yaml(secrets=[MOUNTED], tls=PAIR, datasets=[{"from": "file:${secrets:FILE}", "name": "x"}])
    done = check(pod, env={"FILE": LEDGER.mark("a file's name")})
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().splitlines() == [
        "spicepod.yaml: datasets[0].from         ${secrets:FILE}  found in env",
        "spicepod.yaml: runtime.tls.certificate  ${mounted:crt}   found in mounted",
        "spicepod.yaml: runtime.tls.key          ${mounted:key}   found in mounted",
        "3 found, 0 missing, 0 unreachable",
    ]


def test_check_of_a_pod_that_is_not(pod, fronts):
    pod.write("mounted/crt", pod.pair.certificate)
    address = f"https://localhost:{scripted_server.refused_port()}"
    vault = {"hashicorp_vault_address": address, "hashicorp_vault_token": LEDGER.mark("a token of Vault")}
    pod.yaml(
        secrets=[MOUNTED, {"name": "vault", "from": "hashicorp_vault:secret/spice", "params": vault}],
        tls={**PAIR, "session_ticket_secret": "${vault:TICKETS}"},
    )
    done = check(pod, "--json")
    assert done.returncode == 78, done.stderr
    report = json.loads(done.stdout)
    assert {r["reference"]: (r["outcome"], r["answered_by"], r["asked"]) for r in report["references"]} == {
        "${mounted:crt}": ("found", "mounted", ["mounted"]),
        "${mounted:key}": ("missing", None, ["mounted"]),
        "${vault:TICKETS}": ("unreachable", None, ["vault"]),
    }
    unreachable = report["references"][2]
    assert unreachable["place"] == "spicepod.yaml: runtime.tls.session_ticket_secret"
    assert f"cannot reach {address}" in unreachable["problem"] and unreachable["fix"]
    assert (report["found"], report["missing"], report["unreachable"]) == (1, 1, 1)


def test_check_of_a_pod_that_cannot_be_read(pod):
    pod.yaml(secrets=[MOUNTED], nonsense=1)
    done = check(pod)
    assert done.returncode == 78 and b"unknown key `nonsense`" in done.stderr, done


# Core dumps


def _soft_limit(server) -> str:
    limits = Path(f"/proc/{server.process.pid}/limits").read_text()
    return re.search(r"Max core file size\s+(\S+)", limits)[1]


def test_core_dumps_are_off_unless_they_are_allowed(pod):
    raise_limit = ["bash", "-c", 'ulimit -S -c 4096; exec "$0" "$@"']
    server = pod.serve(wrap=raise_limit)
    assert _soft_limit(server) == "0"
    allowed = pod.serve("--allow-core-dumps", wrap=raise_limit)
    assert int(_soft_limit(allowed)) > 0
