"""Every client does the same things over TLS and in the clear: the table of docs/clients.md."""

from __future__ import annotations

import pytest

from harness.certificates import Authority
from harness.drivers import DRIVERS, At, Driver, Refused, Untrusted
from harness.kinds import KINDS

ASKED = "SELECT id, name FROM people ORDER BY id"
PEOPLE = [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Grace"}, {"id": 3, "name": "Edsger"}]


def each(column: str, *, unless: str | None = None):
    """Every client that can do this, each filling its cell of the column."""
    return pytest.mark.parametrize(
        "driver",
        [
            pytest.param(driver, id=driver.name, marks=pytest.mark.feature("clients", driver.name, column))
            for driver in DRIVERS
            if unless not in driver.lacks
        ],
    )


@pytest.fixture(scope="session")
def stranger(tmp_path_factory):
    """A root certificate that nobody here serves under."""
    path = tmp_path_factory.mktemp("stranger") / "ca.pem"
    path.write_text(Authority("Stranger").pem)
    return str(path)


@each("over TLS")
def test_query_over_tls(over_tls, driver):
    assert driver.rows(At.of(over_tls), ASKED) == PEOPLE


@each("in the clear")
def test_query_in_the_clear(in_clear, driver):
    assert driver.rows(At.of(in_clear), ASKED) == PEOPLE


@each("parameters", unless="parameters")
def test_parameters(served, driver):
    text = "SELECT name FROM people WHERE id >= $1 AND name <> $2 ORDER BY id"
    assert driver.rows(At.of(served), text, (2, "Grace")) == [{"name": "Edsger"}]


@each("bad SQL told")
def test_bad_sql(served, driver):
    at = At.of(served)
    for text, told in (("SELEC 1", "SELEC"), ("SELECT * FROM no_such_table", "no_such_table")):
        with pytest.raises(Refused, match=told):
            driver.rows(at, text)
    assert driver.rows(at, "SELECT 42 AS x") == [{"x": 42}], "the server is as good as before"


@each("large answer")
def test_large_answer(served, driver):
    rows = driver.large_rows
    text = f"SELECT value, repeat('x', 1000) AS filler FROM generate_series(1, {rows})"
    assert driver.count(At.of(served), text) == rows


@each("refuses a wrong CA")
def test_wrong_authority(over_tls, stranger, driver):
    with pytest.raises(Untrusted, match="(?i)certificate|unknown ?issuer"):
        driver.rows(At(over_tls, stranger), ASKED)


@each("refuses a wrong name")
def test_wrong_name(certified, driver):
    with pytest.raises(Untrusted, match="(?i)name|not valid for|spice.internal"):
        driver.rows(At.of(certified("another name")), "SELECT 1 AS x")


@each("is told that the door speaks TLS")
def test_plain_text_to_a_tls_door(over_tls, driver):
    """The server's own sentence reaches the user."""
    with pytest.raises(Untrusted, match="speaks TLS and got plain"):
        driver.rows(At(over_tls, None), ASKED)


@each("fails on a plain door")
def test_tls_to_a_plain_door(in_clear, over_tls, driver):
    with pytest.raises(Untrusted):
        driver.rows(At(in_clear, over_tls.ca), ASKED)


# Certificates: which client takes which.


def _certificate_cells():
    for driver in DRIVERS:
        for kind in KINDS:
            why = driver.refuses.get(kind)
            more = {"answer": "refuses", "why": why} if why else {}
            mark = pytest.mark.feature("certificates", driver.name, kind, **more)
            yield pytest.param(driver, kind, id=f"{driver.name}-{kind}", marks=mark)


@pytest.mark.parametrize("driver, kind", list(_certificate_cells()))
def test_certificate(certified, driver: Driver, kind: str):
    at = At.of(certified(kind))
    if kind in driver.refuses:
        with pytest.raises(Untrusted):
            driver.rows(at, "SELECT 42 AS x")
    else:
        assert driver.rows(at, "SELECT 42 AS x") == [{"x": 42}]
