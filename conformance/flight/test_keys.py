"""Primary and foreign keys, as declared in PostgreSQL and by CREATE TABLE, through the four Flight SQL commands for
them."""

from __future__ import annotations

import pytest
from flightsql import flightsql_pb2
from google.protobuf import any_pb2
from pyarrow import flight

from harness import clients
from harness.pod import Pod
from harness.waiting import eventually

NONE, SET_NULL, CASCADE, RESTRICT = 3, 2, 0, 1

TABLES = """
    CREATE SCHEMA shop;
    CREATE TABLE shop.region (code text, year int, name text, PRIMARY KEY (year, code));
    CREATE TABLE shop.unseen (id bigint PRIMARY KEY);
    CREATE TABLE shop.orders (
        id bigint CONSTRAINT "Orders' key" PRIMARY KEY,
        parent bigint CONSTRAINT part_of REFERENCES shop.orders ON DELETE SET NULL,
        region_code text, region_year int, other bigint REFERENCES shop.unseen,
        CONSTRAINT in_region FOREIGN KEY (region_year, region_code) REFERENCES shop.region (year, code)
            ON UPDATE CASCADE ON DELETE RESTRICT
    );
    CREATE TABLE shop.items (order_id bigint CONSTRAINT of_order REFERENCES shop.orders, at date) PARTITION BY RANGE (at);
    CREATE TABLE shop.items_2026 PARTITION OF shop.items FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    CREATE VIEW shop.all_orders AS SELECT * FROM shop.orders;
    GRANT USAGE ON SCHEMA shop TO app;
    GRANT SELECT ON ALL TABLES IN SCHEMA shop TO app;
"""

# Column names in the answer, by their Flight SQL names.
SETS = {"areas": "region", "sales.orders": "orders", "items": "items", "seen": "all_orders"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory, postgres):
    postgres.sql(TABLES)
    pod = Pod(tmp_path_factory.mktemp("keys"))
    sets = [{"from": f"postgres:shop.{table}", "name": name, "params": postgres.params()} for name, table in SETS.items()]
    pod.yaml(tls=pod.write_pair(), datasets=sets)
    server = pod.serve(env={"PG_PASSWORD": postgres.password})
    eventually(lambda: clients.get(server, "/v1/ready").status == 200, "every table is loaded")
    yield server
    pod.close()


def asked(server, command) -> list[dict]:
    """The rows of a metadata command, whose schema must match the announced one."""
    wrapped = any_pb2.Any()
    wrapped.Pack(command)
    with clients.flight_client(server) as client:
        info = client.get_flight_info(flight.FlightDescriptor.for_command(wrapped.SerializeToString()), clients.call())
        table = client.do_get(info.endpoints[0].ticket, clients.call()).read_all()
    assert table.schema == info.schema
    return table.to_pylist()


def primary(server, table: str, **more) -> list[tuple]:
    rows = asked(server, flightsql_pb2.CommandGetPrimaryKeys(table=table, **more))
    return [(row["db_schema_name"], row["key_name"], row["key_sequence"], row["column_name"]) for row in rows]


def foreign(server, command) -> list[tuple]:
    rows = asked(server, command)
    return [
        (
            f"{row['fk_db_schema_name']}.{row['fk_table_name']}.{row['fk_column_name']}",
            f"{row['pk_db_schema_name']}.{row['pk_table_name']}.{row['pk_column_name']}",
            row["key_sequence"], row["fk_key_name"], row["pk_key_name"], row["update_rule"], row["delete_rule"],
        )
        for row in rows
    ]


def test_primary_keys(shop):
    assert primary(shop, "areas") == [("public", "region_pkey", 1, "year"), ("public", "region_pkey", 2, "code")]
    assert primary(shop, "orders") == [("sales", "Orders' key", 1, "id")]
    assert primary(shop, "orders", db_schema="sales", catalog="spice") == primary(shop, "orders")
    assert primary(shop, "orders", db_schema="public") == primary(shop, "orders", catalog="other") == []
    for none in ("items", "seen", "nowhere", "", "order%"):
        assert primary(shop, none) == [], none


PART = ("sales.orders.parent", "sales.orders.id", 1, "part_of", "Orders' key", NONE, SET_NULL)
AREA = [
    ("sales.orders.region_year", "public.areas.year", 1, "in_region", "region_pkey", CASCADE, RESTRICT),
    ("sales.orders.region_code", "public.areas.code", 2, "in_region", "region_pkey", CASCADE, RESTRICT),
]
ITEM = ("public.items.order_id", "sales.orders.id", 1, "of_order", "Orders' key", NONE, NONE)


def test_foreign_keys(shop):
    """A key is omitted if the other table is not a data set."""
    assert foreign(shop, flightsql_pb2.CommandGetImportedKeys(table="orders")) == [*AREA, PART]
    assert foreign(shop, flightsql_pb2.CommandGetImportedKeys(table="items")) == [ITEM]
    assert foreign(shop, flightsql_pb2.CommandGetExportedKeys(table="orders")) == [ITEM, PART]
    assert foreign(shop, flightsql_pb2.CommandGetExportedKeys(table="areas")) == AREA
    for none in ("areas", "seen", "nowhere"):
        assert foreign(shop, flightsql_pb2.CommandGetImportedKeys(table=none)) == []
    assert foreign(shop, flightsql_pb2.CommandGetExportedKeys(table="orders", db_schema="public")) == []


def test_cross_reference(shop):
    def between(pk: str, fk: str, **more):
        return foreign(shop, flightsql_pb2.CommandGetCrossReference(pk_table=pk, fk_table=fk, **more))

    assert between("areas", "orders") == AREA
    assert between("orders", "orders", fk_db_schema="sales") == [PART]
    assert between("orders", "areas") == between("orders", "orders", pk_db_schema="public") == []


def test_a_table_created_by_sql(shop):
    clients.sql(shop, "CREATE TABLE made (a INT, b INT, PRIMARY KEY (b, a))").ok()
    assert primary(shop, "made") == [("public", None, 1, "b"), ("public", None, 2, "a")]
