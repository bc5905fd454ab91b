"""Features of the Spice SDKs only: typed and named parameters, chunked results, JSON, health, fallback from Flight to
HTTP."""

from __future__ import annotations

import pytest

from harness.drivers import At, Refused
from harness.drivers.programs import SpiceJs, SpiceJsHttp, SpiceRust

PEOPLE = [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Grace"}, {"id": 3, "name": "Edsger"}]


class BothWays(SpiceJs):
    """The SDK's default: Flight first, HTTP if that fails."""

    def options(self, at: At) -> dict:
        flight = {k: v for k, v in super().options(at).items() if k != "flightOnly"}
        return {**flight, "httpUrl": f"http{'s' if at.ca else ''}://{at.address('http')}"}


@pytest.fixture
def at(served):
    return At.of(served)


@pytest.mark.parametrize("client", [SpiceJs(), SpiceJsHttp()], ids=repr)
def test_js_named_parameters(at, client):
    rows = client.ask(at, "rows", sql="SELECT id FROM people WHERE name = $who", parameters={"who": "Grace"})
    assert rows == [{"id": 2}]


def test_js_typed_parameters(at):
    parameters = [["int32", 40], ["float64", 0.5], ["string", "x"], ["bool", True], ["null", None]]
    text = "SELECT $1::int + 2 AS i, $2::double AS f, $3::varchar AS s, $4::boolean AS b, $5::varchar AS n"
    rows = SpiceJs().ask(at, "typed", sql=text, parameters=parameters)
    assert rows == [{"i": 42, "f": 0.5, "s": "x", "b": True, "n": None}]


def test_js_chunks(at):
    assert SpiceJs().ask(at, "chunks", sql="SELECT value FROM generate_series(1, 50000)") == 50_000


@pytest.mark.parametrize("client", [SpiceJs(), SpiceJsHttp()], ids=repr)
def test_js_sql_json(at, client):
    answer = client.ask(at, "json", sql="SELECT id, name FROM people ORDER BY id")
    assert answer["row_count"] == 3
    assert [field["name"] for field in answer["schema"]["fields"]] == ["id", "name"]
    # Over Flight, the SDK returns 64-bit numbers as text.
    assert [{"id": int(row["id"]), "name": row["name"]} for row in answer["data"]] == PEOPLE


@pytest.mark.parametrize("what", ["healthy", "ready"])
def test_js_health(at, what):
    assert SpiceJsHttp().ask(at, what) is True


def test_js_falls_back_to_http_if_flight_fails(over_tls):
    """Flight in plain text to a TLS endpoint, with a correct HTTP URL: the answer arrives over HTTP."""
    at = At.of(over_tls)
    options = {**BothWays().options(at), "flightTlsEnabled": False}

    class Turned(BothWays):
        def options(self, _):
            return options

    assert Turned().ask(at, "rows", sql="SELECT id, name FROM people ORDER BY id") == PEOPLE


def test_js_reports_bad_sql_both_ways(at):
    with pytest.raises(Refused, match="SELEC"):
        BothWays().ask(at, "rows", sql="SELEC 1")


def test_rust_ready(served):
    at = At.of(served)
    assert SpiceRust().ask(at, "ready", served.url("").rstrip("/")).strip() == b"true"


RUST_PARAMETERS = {
    "integer": ("SELECT $1::bigint + 2 AS x", (40,), [{"x": 42}]),
    "float": ("SELECT $1::double AS x", (0.5,), [{"x": 0.5}]),
    "text": ("SELECT id FROM people WHERE name = $1", ("Grace",), [{"id": 2}]),
    "boolean": ("SELECT $1::boolean AS x", (True,), [{"x": True}]),
    "null": ("SELECT count(*) AS n FROM people WHERE name = $1", (None,), [{"n": 0}]),
}


@pytest.mark.parametrize("text, parameters, wanted", RUST_PARAMETERS.values(), ids=RUST_PARAMETERS.keys())
def test_rust_parameters(over_tls, text, parameters, wanted):
    assert SpiceRust().rows(At.of(over_tls), text, parameters) == wanted
