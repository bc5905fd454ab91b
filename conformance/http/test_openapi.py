"""The API's own description: it matches the served API, and invalid requests do no harm."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness import clients

KEY = "a-key-of-openapi"


@pytest.fixture
def server(pod):
    keys = [f"{KEY}:rw"]
    sets = [{"from": "memory:", "name": "t", "access": "read_write", "columns": [{"name": "x", "type": "BIGINT"}]}]
    pod.yaml(tls=pod.write_pair(), runtime={"auth": {"api_key": {"keys": keys}}}, datasets=sets)
    return pod.serve()


def test_every_route_is_described(server):
    document = clients.get(server, "/openapi.json", "-H", f"X-API-Key: {KEY}").ok().json()
    assert document["openapi"].startswith("3.1") and document["info"]["title"] == "spiced"
    elsewhere = clients.get(server, "/no/such/route", "-H", f"X-API-Key: {KEY}")
    assert elsewhere.status == 404
    for path, methods in document["paths"].items():
        assert f"{'POST' if 'post' in methods else 'GET,HEAD'} {path}" in elsewhere.text, path
    open_to_all = {path for path, methods in document["paths"].items() for method in methods.values() if "security" not in method}
    assert open_to_all == {"/health", "/v1/ready"}
    for path in document["paths"]:
        status = clients.get(server, path).status
        assert (status in (200, 503)) == (path in open_to_all), (path, status)


@pytest.mark.timeout(300)
def test_schemathesis(server, tmp_path):
    """Schemathesis finds no undocumented response, no server error and no way around the keys. A schema cannot express
    which text is valid SQL, so the check that valid data is accepted is excluded.
    """
    program = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    command = [
        *program, "--config-file", str(tmp_path / "schemathesis.toml"), "run", server.url("/openapi.json"),
        "--header", f"X-API-Key: {KEY}", "--tls-verify", server.ca, "--max-examples", "40", "--seed", "1",
        "--exclude-checks", "positive_data_acceptance", "--no-color", "--phases", "examples,coverage,fuzzing",
    ]  # fmt: skip
    (tmp_path / "schemathesis.toml").write_text("")
    run = subprocess.run(command, capture_output=True, text=True, timeout=290, cwd=tmp_path)
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert "❌" not in run.stdout and "✅" in run.stdout, run.stdout[-8000:]
    clients.get(server, "/health").ok()
