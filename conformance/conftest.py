"""Fixtures. `pod` provides a directory, an authority and servers for one test. `served` provides the shared servers,
one with TLS and one without, for tests that only read.
"""

from __future__ import annotations

import os

# Set before grpc is imported: processes are spawned, never forked, and grpc's log would clutter the suite's.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
os.environ["GRPC_VERBOSITY"] = "NONE"
for _name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "SSL_CERT_FILE"):
    os.environ.pop(_name, None)

import pytest

from harness import data, features
from harness.scripted_server import Front
from harness.cert_kinds import Certified
from harness.pod import Pod
from harness.postgres import Postgres
from harness.server import binary
from harness.stores import Bao, Moto


def pytest_addoption(parser):
    parser.addoption(
        "--clients-table",
        choices=["off", "check", "write"],
        default="off",
        help="hold docs/clients.md against this run, or rewrite it",
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "feature(table, row, column, answer, why): fills a cell of docs/clients.md")
    mode = config.getoption("--clients-table")
    if mode != "off" and not hasattr(config, "workerinput"):
        config.pluginmanager.register(features.Features(mode))


def pytest_collection_modifyitems(items):
    for item in items:
        for mark in item.iter_markers("feature"):
            item.user_properties.append(("feature", features.cell(*mark.args, **mark.kwargs)))


def pytest_sessionstart(session):
    """Reports a missing binary once instead of in every test."""
    if not session.config.option.collectonly:
        try:
            binary()
        except AssertionError as error:
            raise pytest.UsageError(str(error)) from None


@pytest.fixture
def pod(tmp_path):
    """The pod of one test. Its servers must stop cleanly and must not have shown a secret."""
    pod = Pod(tmp_path)
    yield pod
    pod.close()


def _shared(root, tls: bool):
    pod = Pod(root)
    data.write(data.PEOPLE, pod.folder / "data/people.parquet")
    pod.yaml(
        tls=pod.write_pair() if tls else None,
        datasets=[{"from": "file:data/people.parquet", "name": "people"}],
    )
    server = pod.serve("--metrics", "localhost:0", "--probe", "localhost:0")
    server.pair = pod.pair if tls else None
    return pod, server


@pytest.fixture(scope="session")
def over_tls(tmp_path_factory):
    """A server with TLS, metrics and probe endpoints, and the read-only data set `people`."""
    pod, server = _shared(tmp_path_factory.mktemp("over_tls"), True)
    yield server
    pod.close()


@pytest.fixture(scope="session")
def in_clear(tmp_path_factory):
    """The same server without TLS."""
    pod, server = _shared(tmp_path_factory.mktemp("in_clear"), False)
    yield server
    pod.close()


@pytest.fixture(params=["tls", "clear"])
def served(request):
    """Both shared servers, one after the other."""
    return request.getfixturevalue("over_tls" if request.param == "tls" else "in_clear")


@pytest.fixture(scope="session")
def certified(tmp_path_factory):
    """A server for each kind of certificate: `certified("P-256")`."""
    certified = Certified(lambda: tmp_path_factory.mktemp("certified"))
    yield certified
    certified.close()


@pytest.fixture(scope="session")
def moto(tmp_path_factory):
    """AWS by moto, shared by all tests; secrets are named after the test."""
    moto = Moto(tmp_path_factory.mktemp("moto"))
    yield moto
    moto.stop()


@pytest.fixture(scope="session")
def bao(tmp_path_factory):
    """An OpenBao shared by all tests; engines and policies are named after the test."""
    bao = Bao(tmp_path_factory.mktemp("bao"))
    yield bao
    bao.stop()


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL shared by all tests; tables are named after the test."""
    postgres = Postgres()
    yield postgres
    postgres.stop()


@pytest.fixture
def fronts():
    """Creates servers that the test controls, and closes them."""
    made = []

    def make(behave, pair=None):
        made.append(Front(behave, pair))
        return made[-1]

    yield make
    for front in made:
        front.close()
