"""The HTTP endpoint: bodies, responses, parameters, errors; over HTTP/1.1 and HTTP/2, with and without TLS."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re

import pyarrow as pa
import pyarrow.ipc
import pytest

from harness import clients, data

ARROW = "application/vnd.apache.arrow.stream"
SPICE = "application/vnd.spiceai.sql.v1+json"
NDJSON = "application/x-ndjson"

TRANSPORTS = {
    "tls-h1": ("over_tls", "--http1.1", "HTTP/1.1"),
    "tls-h2": ("over_tls", "--http2", "HTTP/2"),
    "clear-h1": ("in_clear", "--http1.1", "HTTP/1.1"),
    "clear-h2": ("in_clear", "--http2-prior-knowledge", "HTTP/2"),
}


@pytest.fixture(params=TRANSPORTS.values(), ids=TRANSPORTS.keys())
def transport(request):
    """A shared server, the curl flag that selects the protocol, and the protocol's name."""
    server, flag, version = request.param
    return request.getfixturevalue(server), flag, version


# Transports


def test_sql_over(transport):
    server, flag, version = transport
    answer = clients.sql(server, "SELECT id, name FROM people ORDER BY id", flag).ok()
    assert answer.version == version
    assert answer.json() == data.PEOPLE.to_pylist()


def test_health_over(transport):
    server, flag, version = transport
    for path, said in (("/health", "ok"), ("/v1/ready", "ready")):
        answer = clients.get(server, path, flag).ok()
        assert (answer.version, answer.text.strip()) == (version, said)


def test_head_of_health(transport):
    server, flag, _ = transport
    answer = clients.get(server, "/health", flag, "--head")
    assert (answer.exit, answer.status) == (0, 200), answer


def _reusable(flag: str) -> None:
    if flag == "--http2-prior-knowledge":
        pytest.skip("curl 7.88 fails on the second request of a prior-knowledge connection, whatever the server")


def test_many_requests_on_one_connection(transport):
    server, flag, _ = transport
    _reusable(flag)
    url = server.url("/health")
    answer = clients.curl(url, flag, *[url] * 20, "-w", "%{num_connects} ", ca=server.ca).ok()
    assert sum(int(n) for n in re.findall(r"(\d+) ", answer.text)) == 1, answer.text


def test_many_concurrent_requests(transport):
    server, flag, _ = transport
    _reusable(flag)
    url = server.url("/v1/sql")
    answer = clients.curl(url, flag, *[url] * 30, "--parallel", "-d", "SELECT 42 AS x", ca=server.ca).ok()
    assert answer.text.count('"x":42') == 31, answer.text


# The body

BODIES = {
    "curl-d": (["-d", "SELECT 1 AS x"], None),
    "text": (["-H", "Content-Type: text/plain"], b"SELECT 1 AS x"),
    "no-type": (["-H", "Content-Type:"], b"SELECT 1 AS x"),
    "odd-type": (["-H", "Content-Type: application/xml"], b"SELECT 1 AS x"),
    "octets": (["-H", "Content-Type: application/octet-stream"], b"SELECT 1 AS x"),
    "several-lines": (["-H", "Content-Type: application/sql"], b"-- a comment\nSELECT\n  1 AS x\n;\n"),
    "json": (["-H", "Content-Type: application/json"], b'{"sql": "SELECT 1 AS x"}'),
    "json-charset": (["-H", "Content-Type: application/json; charset=utf-8"], b'{"sql": "SELECT 1 AS x"}'),
    "json-upper-case": (["-H", "Content-Type: Application/JSON"], b'{"sql": "SELECT 1 AS x", "parameters": []}'),
    "json-null-parameters": (["-H", "Content-Type: application/json"], b'{"sql": "SELECT 1 AS x", "parameters": null}'),
    "chunked": (["-H", "Transfer-Encoding: chunked", "--http1.1"], b"SELECT 1 AS x"),
}


@pytest.mark.parametrize("args, body", BODIES.values(), ids=BODIES.keys())
def test_body(served, args, body):
    more = ["--data-binary", "@-"] if body is not None else []
    assert clients.get(served, "/v1/sql", *args, *more, body=body).ok().json() == [{"x": 1}]


BAD_BODIES = {
    "json-cut-short": ("application/json", b'{"sql": "SELECT 1'),
    "json-without-sql": ("application/json", b'{"query": "SELECT 1"}'),
    "json-sql-a-number": ("application/json", b'{"sql": 1}'),
    "json-array": ("application/json", b'["SELECT 1"]'),
    "json-parameters-text": ("application/json", b'{"sql": "SELECT $1", "parameters": "x"}'),
    "not-utf-8": ("text/plain", b"SELECT '\xff\xfe' AS x"),
    "empty": ("text/plain", b""),
    "blank": ("text/plain", b"  \n "),
}


@pytest.mark.parametrize("kind, body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_bad_body(served, kind, body):
    answer = clients.get(served, "/v1/sql", "-H", f"Content-Type: {kind}", "--data-binary", "@-", body=body)
    assert_problem(answer, 400)


def test_compressed_body_is_read_or_refused(served):
    answer = clients.get(
        served, "/v1/sql", "-H", "Content-Encoding: gzip", "--data-binary", "@-", body=gzip.compress(b"SELECT 1 AS x")
    )
    assert answer.status == 415 or (answer.status == 200 and answer.json() == [{"x": 1}]), answer


# The answers: one awkward result in all six formats

AWKWARD = """SELECT column1 AS id, column2 AS "text", column3 AS flag, column4 AS ratio FROM (VALUES
  (1, 'plain', true, 0.5), (2, 'com,ma "quoted"', false, -2.25),
  (3, 'two' || chr(10) || 'lines', NULL, 1e10), (4, NULL, true, NULL), (5, 'Zoë 😀', false, 0.0)) ORDER BY id"""
WANTED = [
    {"id": 1, "text": "plain", "flag": True, "ratio": 0.5},
    {"id": 2, "text": 'com,ma "quoted"', "flag": False, "ratio": -2.25},
    {"id": 3, "text": "two\nlines", "flag": None, "ratio": 1e10},
    {"id": 4, "text": None, "flag": True, "ratio": None},
    {"id": 5, "text": "Zoë 😀", "flag": False, "ratio": 0.0},
]


def _filled(row: dict) -> dict:
    """JSON may omit a NULL."""
    return {key: row.get(key) for key in WANTED[0]}


@pytest.mark.parametrize("accept", [None, "application/json", "*/*", "application/*"], ids=str)
def test_answer_json_is_one_line(served, accept):
    answer = clients.sql(served, AWKWARD, accept=accept).ok()
    assert answer.media_type == "application/json"
    assert "\n" not in answer.text.rstrip("\n"), "the SDKs treat several lines as NDJSON"
    assert [_filled(row) for row in answer.json()] == WANTED


def test_answer_ndjson(served):
    answer = clients.sql(served, AWKWARD, accept=NDJSON).ok()
    assert answer.media_type == NDJSON
    assert [_filled(json.loads(line)) for line in answer.text.splitlines()] == WANTED


def test_answer_csv(served):
    answer = clients.sql(served, AWKWARD, accept="text/csv").ok()
    assert answer.media_type == "text/csv"
    head, *lines = csv.reader(io.StringIO(answer.body.decode(), newline=""))
    assert head == ["id", "text", "flag", "ratio"]
    assert [(int(a), b, c, float(d) if d else None) for a, b, c, d in lines] == [
        (row["id"], row["text"] or "", {True: "true", False: "false", None: ""}[row["flag"]], row["ratio"])
        for row in WANTED
    ]


def test_answer_arrow(served):
    answer = clients.sql(served, AWKWARD, accept=ARROW).ok()
    assert answer.media_type == ARROW
    assert pa.ipc.open_stream(answer.body).read_all().to_pylist() == WANTED


def test_answer_text_table(served):
    answer = clients.sql(served, "SELECT id, name FROM people ORDER BY id", accept="text/plain").ok()
    assert answer.media_type == "text/plain"
    lines = answer.text.splitlines()
    assert any(re.search(r"\bid\b.*\bname\b", line) for line in lines), answer.text
    for row in data.PEOPLE.to_pylist():
        assert any(re.search(rf"\b{row['id']}\b.*\b{row['name']}\b", line) for line in lines), answer.text


def test_answer_spice_json(served):
    answer = clients.sql(served, AWKWARD, accept=SPICE).ok()
    assert answer.media_type == SPICE
    body = answer.json()
    assert body["row_count"] == 5
    assert [field["name"] for field in body["schema"]["fields"]] == ["id", "text", "flag", "ratio"]
    assert [_filled(row) for row in body["data"]] == WANTED


def test_answers_without_rows(served):
    text = "SELECT id, name FROM people WHERE id < 0"
    assert clients.sql(served, text).ok().json() == []
    assert clients.sql(served, text, accept=NDJSON).ok().body.strip() == b""
    assert clients.sql(served, text, accept="text/csv").ok().text.strip() == "id,name"
    table = pa.ipc.open_stream(clients.sql(served, text, accept=ARROW).ok().body).read_all()
    assert table.num_rows == 0 and table.column_names == ["id", "name"]
    spice = clients.sql(served, text, accept=SPICE).ok().json()
    assert (spice["row_count"], spice["data"]) == (0, [])
    assert [field["name"] for field in spice["schema"]["fields"]] == ["id", "name"]
    assert "name" in clients.sql(served, text, accept="text/plain").ok().text


CHOICES = {
    "text/csv;q=0.5, application/x-ndjson": NDJSON,
    "application/x-ndjson;q=0.1, text/csv;q=0.9": "text/csv",
    "image/png, text/csv": "text/csv",
    "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": "application/json",
    "TEXT/CSV": "text/csv",
    f"{ARROW}, application/json;q=0.5": ARROW,
}


@pytest.mark.parametrize("accept, chosen", CHOICES.items(), ids=CHOICES.keys())
def test_accept_is_negotiated(served, accept, chosen):
    assert clients.sql(served, "SELECT 1 AS x", accept=accept).ok().media_type == chosen


def test_accept_without_a_match(served):
    assert clients.sql(served, "SELECT 1 AS x", accept="image/png").status == 406


TYPES = {
    "bigint": ("9007199254740993", 9007199254740993),
    "text": ("'x'", "x"),
    "date": ("DATE '2024-02-29'", "2024-02-29"),
    "timestamp": ("TIMESTAMP '2024-02-29T12:34:56'", re.compile("^2024-02-29[T ]12:34:56")),
    "list": ("make_array(1, 2, 3)", [1, 2, 3]),
    "struct": ("named_struct('a', 1, 'b', 'x')", {"a": 1, "b": "x"}),
    "null": ("NULL", None),
}


@pytest.mark.parametrize("expression, wanted", TYPES.values(), ids=TYPES.keys())
def test_json_of_a_type(served, expression, wanted):
    (row,) = clients.rows(served, f"SELECT {expression} AS x")
    if isinstance(wanted, re.Pattern):
        assert wanted.match(row["x"]), row
    else:
        assert row.get("x") == wanted


@pytest.mark.parametrize("accept", ["application/json", NDJSON, "text/csv", "text/plain", SPICE, ARROW])
def test_decimal_and_binary_are_answered_in_every_form(served, accept):
    clients.sql(
        served, "SELECT CAST(12.50 AS DECIMAL(10,2)) AS d, X'00ff' AS b, INTERVAL '1 day' AS i", accept=accept
    ).ok()


# Parameters

PARAMETERS = {
    "positional": ("SELECT name FROM people WHERE id = $1", [2], [{"name": "Grace"}]),
    "two-positional": ("SELECT name FROM people WHERE id > $1 AND name < $2", [1, "F"], [{"name": "Edsger"}]),
    "used-twice": ("SELECT id FROM people WHERE id = $1 OR id = $1 + 1 ORDER BY id", [1], [{"id": 1}, {"id": 2}]),
    "named": (
        "SELECT name FROM people WHERE id = $id AND name = $name",
        {"id": 3, "name": "Edsger"},
        [{"name": "Edsger"}],
    ),
    "cast": ("SELECT $1::bigint + $2::bigint AS x", [40, 2], [{"x": 42}]),
    "bare": ("SELECT $1 AS x, $2 AS y", [1, "two"], [{"x": 1, "y": "two"}]),
    "text-is-text": ("SELECT name FROM people WHERE name = $1", ["' OR 1=1 --"], []),
    "null": ("SELECT count(*) AS n FROM people WHERE $1::varchar IS NULL", [None], [{"n": 3}]),
    "float-and-bool": ("SELECT $1::double AS x, $2::boolean AS y", [1.5, True], [{"x": 1.5, "y": True}]),
    "big": ("SELECT $1::bigint AS x", [9007199254740993], [{"x": 9007199254740993}]),
}


@pytest.mark.parametrize("text, parameters, wanted", PARAMETERS.values(), ids=PARAMETERS.keys())
def test_parameters(served, text, parameters, wanted):
    assert _with_parameters(served, text, parameters).ok().json() == wanted


BAD_PARAMETERS = {
    "missing": ("SELECT $1::bigint AS x", []),
    "missing-second": ("SELECT $1::bigint + $2::bigint AS x", [1]),
    "missing-name": ("SELECT $id::bigint AS x", {"other": 1}),
    "none-at-all": ("SELECT id FROM people WHERE id = $1", None),
    "wrong-type": ("SELECT id FROM people WHERE id = $1::bigint", ["not a number"]),
}


@pytest.mark.parametrize("text, parameters", BAD_PARAMETERS.values(), ids=BAD_PARAMETERS.keys())
def test_bad_parameters(served, text, parameters):
    assert_problem(_with_parameters(served, text, parameters), 400)


def _with_parameters(server, text, parameters) -> clients.Answer:
    body = {"sql": text} if parameters is None else {"sql": text, "parameters": parameters}
    return clients.get(
        server, "/v1/sql", "-H", "Content-Type: application/json", "--data-binary", "@-", body=json.dumps(body).encode()
    )


# Errors


def assert_problem(answer: clients.Answer, status: int) -> dict:
    """RFC 9457."""
    assert answer.exit == 0 and answer.status == status, answer
    assert answer.media_type == "application/problem+json", answer
    problem = answer.json()
    assert problem.get("status", status) == status and problem.get("title"), problem
    assert "panicked" not in answer.text
    return problem


BAD_SQL = {
    "syntax": "SELEC 1",
    "unknown-table": "SELECT * FROM no_such_table",
    "unknown-column": "SELECT no_such_column FROM people",
    "unknown-function": "SELECT no_such_function(1)",
    "type": "SELECT 'x' + DATE '2024-01-01'",
    "unclosed": "SELECT 'abc",
    "cast": "SELECT CAST('abc' AS BIGINT) AS x",
    "divide": "SELECT id / (id - id) AS x FROM people",
    "deep": "SELECT " + "(" * 5000 + "1" + ")" * 5000,
    "deep-not": "SELECT " + "NOT " * 20_000 + "true",
    "deep-plus": "SELECT " + "1 + " * 50_000 + "1 AS",
}


@pytest.mark.parametrize("text", BAD_SQL.values(), ids=BAD_SQL.keys())
def test_bad_sql(served, text):
    problem = assert_problem(clients.sql(served, text, "-H", "Content-Type: text/plain"), 400)
    assert problem.get("detail"), problem
    clients.get(served, "/health").ok()


def test_long_expression_is_answered_or_refused(served):
    """A plan of several thousand levels must not crash the process."""
    for terms in (500, 5_000, 50_000):
        answer = clients.sql(served, "SELECT " + " + ".join(["1"] * terms) + " AS x", deadline=60)
        assert answer.status == 400 or (answer.status == 200 and answer.json() == [{"x": terms}]), answer
    clients.get(served, "/health").ok()


@pytest.mark.parametrize("accept", ["text/plain", "text/csv"])
def test_error_as_one_line_of_text(served, accept):
    answer = clients.sql(served, "SELECT * FROM no_such_table", accept=accept)
    assert (answer.status, answer.media_type) == (400, "text/plain"), answer
    assert "no_such_table" in answer.text and "\n" not in answer.text.strip(), answer.text


@pytest.mark.parametrize("accept", ["application/json", "*/*", SPICE, NDJSON])
def test_error_as_problem_json(served, accept):
    assert (
        "no_such_table"
        in assert_problem(clients.sql(served, "SELECT * FROM no_such_table", accept=accept), 400)["detail"]
    )


@pytest.mark.parametrize(
    "path", ["/", "/nope", "/v1", "/v1/sql/x", "/v1/../etc/passwd", "/metrics", "/%2e%2e/etc/passwd"]
)
def test_unknown_path(served, path):
    answer = clients.get(served, path, "--path-as-is")
    assert answer.status == 404, answer


METHODS = [
    ("GET", "/v1/sql", "POST"),
    ("PUT", "/v1/sql", "POST"),
    ("DELETE", "/health", "GET"),
    ("POST", "/v1/ready", "GET"),
]


@pytest.mark.parametrize("method, path, allowed", METHODS)
def test_method_not_allowed(served, method, path, allowed):
    answer = clients.get(served, path, "-X", method)
    assert answer.status == 405, answer
    assert allowed in answer.headers.get("allow", ""), "RFC 9110 §15.5.6 requires Allow"


@pytest.mark.parametrize("framing", [[], ["-H", "Transfer-Encoding: chunked"]], ids=["length", "chunked"])
@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
def test_body_above_16_mib(over_tls, framing, protocol):
    if framing and protocol == "--http2":
        framing = ["-H", "Content-Length:"]  # HTTP/2 frames need no length
    answer = clients.get(
        over_tls, "/v1/sql", protocol, *framing, "--data-binary", "@-", body=b"SELECT 1 -- " + b"x" * (17 << 20)
    )
    assert answer.status == 413, answer.trouble
    clients.get(over_tls, "/health").ok()


def test_body_below_16_mib(over_tls):
    """A statement is limited to 1 MiB; only parameters can be this large."""
    for size, status in ((1_000_000, 200), (15 << 20, 400)):
        answer = clients.sql(over_tls, "SELECT 1 AS x -- " + "x" * size)
        assert answer.status == status, answer
    assert "may have 1048576" in answer.text
    body = json.dumps({"sql": "SELECT length($1) AS x", "parameters": ["x" * (15 << 20)]}).encode()
    kind = ("-H", "Content-Type: application/json", "--data-binary", "@-")
    assert clients.get(over_tls, "/v1/sql", *kind, body=body).ok().json() == [{"x": 15 << 20}]


def test_more_parameters_than_any_statement_has(over_tls):
    body = json.dumps({"sql": "SELECT 1", "parameters": [0] * 65_536}).encode()
    kind = ("-H", "Content-Type: application/json", "--data-binary", "@-")
    refused = clients.get(over_tls, "/v1/sql", *kind, body=body)
    assert refused.status == 400 and "at most 65535 parameters" in refused.text, refused


def test_failure_in_mid_stream_is_no_complete_answer(transport):
    """A client must be able to detect that rows are missing."""
    server, flag, _ = transport
    text = "SELECT 10 / (value - 900000) AS x FROM generate_series(1, 1000000)"
    for accept in (NDJSON, "text/csv", ARROW):
        answer = clients.sql(server, text, flag, accept=accept)
        assert answer.exit != 0 or answer.status >= 400, f"{accept}: a broken result looks complete"


# Settings of one caller do not affect the next


def test_set_does_not_leak(pod):
    server = pod.serve()
    text = "SELECT VALUE FROM generate_series(1, 3)"
    assert len(clients.rows(server, text)) == 3
    for value in ("false", "true", "false"):
        clients.sql(server, f"SET datafusion.sql_parser.enable_ident_normalization = {value}")
    for _ in range(8):
        assert len(clients.rows(server, text)) == 3, "another caller's SET changed this one"


def test_prepare_does_not_leak(pod):
    server = pod.serve()
    clients.sql(server, "PREPARE mine AS SELECT 1 AS x")
    assert clients.sql(server, "EXECUTE mine").status == 400


def test_view_or_table_of_a_caller_is_refused_or_its_own(pod):
    """`CREATE VIEW` in one session must not appear in the next, unless it is refused outright."""
    server = pod.serve()
    for statement in ("CREATE TEMPORARY VIEW mine AS SELECT 1 AS x", "CREATE TEMPORARY TABLE mine2 AS SELECT 1 AS x"):
        clients.sql(server, statement)
    for name in ("mine", "mine2"):
        assert clients.sql(server, f"SELECT * FROM {name}").status == 400
