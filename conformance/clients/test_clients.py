"""Every client performs the same operations over TLS and in plain text: the table of docs/clients.md."""

from __future__ import annotations

import pytest

from harness.certificates import Authority
from harness.drivers import DRIVERS, At, Driver, Refused, Untrusted
from harness.drivers.programs import FlightSqlClient
from harness.drivers.python import FlightSqlDbapi
from harness.cert_kinds import KINDS

ASKED = "SELECT id, name FROM people ORDER BY id"
PEOPLE = [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Grace"}, {"id": 3, "name": "Edsger"}]


def each(column: str, *, unless: str | None = None):
    """Every client that supports this; each fills its cell of the column."""
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
    """A root certificate that no server here uses."""
    path = tmp_path_factory.mktemp("stranger") / "ca.pem"
    path.write_text(Authority("Stranger").pem)
    return str(path)


@each("over TLS")
def test_query_over_tls(over_tls, driver):
    assert driver.rows(At.of(over_tls), ASKED) == PEOPLE


@each("plain text")
def test_query_in_the_clear(in_clear, driver):
    assert driver.rows(At.of(in_clear), ASKED) == PEOPLE


@each("parameters", unless="parameters")
def test_parameters(served, driver):
    text = "SELECT name FROM people WHERE id >= $1 AND name <> $2 ORDER BY id"
    assert driver.rows(At.of(served), text, (2, "Grace")) == [{"name": "Edsger"}]


@each("reports bad SQL")
def test_bad_sql(served, driver):
    at = At.of(served)
    for text, told in (("SELEC 1", "SELEC"), ("SELECT * FROM no_such_table", "no_such_table")):
        with pytest.raises(Refused, match=told):
            driver.rows(at, text)
    assert driver.rows(at, "SELECT 42 AS x") == [{"x": 42}], "the server still answers"


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


@each("reports that the endpoint speaks TLS")
def test_plain_text_to_a_tls_endpoint(over_tls, driver):
    """The server's own message reaches the user."""
    with pytest.raises(Untrusted, match="speaks TLS and got plain"):
        driver.rows(At(over_tls, None), ASKED)


@each("fails on a plain endpoint")
def test_tls_to_a_plain_endpoint(in_clear, over_tls, driver):
    with pytest.raises(Untrusted):
        driver.rows(At(in_clear, over_tls.ca), ASKED)


# Certificates: which client accepts which


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


# Features and limits of single clients


def test_metadata_by_flight_sql_client(served):
    client, at = FlightSqlClient(), At.of(served)
    assert client.table(at, "catalogs") == [{"catalog_name": "spice"}]
    assert client.table(at, "db-schemas", "spice") == [
        {"catalog_name": "spice", "db_schema_name": name} for name in ("otel", "public", "runtime")
    ]
    (table,) = client.table(at, "tables", "spice", "--table-filter", "peo%")
    assert (table["table_name"], table["table_type"]) == ("people", "TABLE")
    assert {"table_type": "TABLE"} in client.table(at, "table-types")


def test_compression_by_flight_sql_client(served):
    """The server does not use the compression that it offers, and refuses a compressed message with an explanation."""
    client, at = FlightSqlClient(), At.of(served)
    assert client.table(at, "--accept-compression", "gzip,zstd", "statement-query", "SELECT 1 AS x") == [{"x": 1}]
    with pytest.raises(Refused, match="gzip"):
        client.table(at, "--send-compression", "gzip", "statement-query", "SELECT 1 AS x")


def test_metadata_by_flightsql_dbapi(served):
    with FlightSqlDbapi().connected(At.of(served)) as connection:
        assert connection.flightsql_get_table_names() == ["logs", "metrics", "traces", "people", "queries", "tls"]
        assert connection.flightsql_get_schema_names() == ["otel", "public", "runtime"]
        assert [column["name"] for column in connection.flightsql_get_columns("people")] == ["id", "name"]
        assert connection.flightsql_get_primary_keys("people") == []


def test_sqlalchemy_over_flightsql_dbapi(in_clear):
    """Without the feature, its dialect writes NULL in place of a parameter."""
    import flightsql.sqlalchemy  # noqa: F401 (registers the dialect)
    import sqlalchemy

    address = f"localhost:{in_clear.port('flight')}?insecure=true&feature-sqlalchemy-prepared-statements=on"
    engine = sqlalchemy.create_engine(f"datafusion+flightsql://{address}")
    people = sqlalchemy.Table("people", sqlalchemy.MetaData(), autoload_with=engine)
    with engine.connect() as connection:
        rows = connection.execute(sqlalchemy.select(people.c.id).where(people.c.name == "Grace")).fetchall()
    engine.dispose()
    assert rows == [(2,)]


def test_parameter_whose_type_needs_a_cast(over_tls):
    """flight_sql_client converts its text to the type that the server announces; without one it cannot bind at all."""
    assert FlightSqlClient().rows(At.of(over_tls), "SELECT $1::bigint + 2 AS x", (40,)) == [{"x": 42}]


def test_value_sent_as_a_union(over_tls):
    """flightsql-dbapi sends every value as a member of a union, and cannot read a union."""
    assert FlightSqlDbapi().rows(At.of(over_tls), "SELECT ? AS x, ? AS y", (1, "one")) == [{"x": 1, "y": "one"}]
