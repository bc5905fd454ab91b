"""The harness itself: its checks can fail. Needs no server."""

from __future__ import annotations

import pytest

from harness import clients, features, http2, wire
from harness.certificates import DEFORMED, Authority, key_pem, make_key
from harness.features import Cell, Features, read_table
from harness.leak_scanner import LEDGER, Ledger
from harness.pod import Refusal
from harness.proxy_protocol import Forwarder, header
from harness.tables import Table
from harness.waiting import eventually

KEYS = [
    ("rsa2048", "pkcs8"),
    ("rsa2048", "pkcs1"),
    ("p256", "pkcs8"),
    ("p256", "sec1"),
    ("p384", "sec1-params"),
    ("ed25519", "pkcs8"),
]


@pytest.mark.parametrize("kind, form", KEYS, ids=lambda value: value)
def test_ledger_finds_a_key_however_it_is_written(kind, form):
    key = make_key(kind)
    text = key_pem(key, form)
    assert LEDGER.found_in(text)
    for name, deform in DEFORMED.items():
        if not name.startswith("base64"):
            assert LEDGER.found_in(f'{{"value": "{deform(text)}"}}'), name


def test_ledger_finds_marks_and_nothing_else():
    ledger = Ledger()
    mark = ledger.mark("a password")
    assert ledger.found_in(f"x={mark}") == ["a password"]
    ledger.assert_clean("a certificate for localhost", "a text")
    with pytest.raises(AssertionError) as caught:
        ledger.assert_clean(mark.encode(), "a text")
    assert mark not in str(caught.value), "the error repeats the secret"


def test_public_parts_are_no_secret(pod):
    assert not LEDGER.found_in(pod.pair.certificate + pod.ca.pem)


GOOD = "error: cannot read x\n  caused by: no such file\nhint: give another path\n"
REPORTS = {
    "other-exit": (1, GOOD),
    "no-error-line": (78, "cannot read x\nhint: y\n"),
    "no-hint": (78, "error: cannot read x\n"),
    "cause-twice": (78, "error: x\n  no such file\n  no such file\nhint: y\n"),
    "two-errors": (78, "error: x\nerror: y\nhint: z\n"),
    "panic": (78, "error: x\nthread 'main' panicked at\nhint: z\n"),
    "port-opened": (78, '{"level":"INFO","fields":{"message":"listening"}}\n' + GOOD),
}


@pytest.mark.parametrize("code, text", REPORTS.values(), ids=REPORTS.keys())
def test_refusal_that_is_not_right_is_noticed(code, text):
    Refusal(78, "", GOOD).check(78)
    with pytest.raises(AssertionError):
        Refusal(code, "", text).check(78)


def test_missing_tools_are_reported():
    for name in ("curl", "openssl", "bash", "setsid"):
        clients.tool(name)
    with pytest.raises(AssertionError, match="apt-get install"):
        clients.tool("no-such-tool")


def test_eventually_gives_up():
    with pytest.raises(AssertionError, match="never: the impossible"):
        eventually(lambda: False, "the impossible", deadline=0.1)


def test_frames_are_read_as_written():
    ours, theirs = clients.socket.socketpair()
    with ours, theirs:
        ours.sendall(
            http2.frame(http2.SETTINGS) + http2.frame(http2.GOAWAY, bytes(4) + (13).to_bytes(4, "big") + b"why")
        )
        frames = http2.read_frames(theirs, until=http2.GOAWAY)
    assert [frame.kind for frame in frames] == [http2.SETTINGS, http2.GOAWAY]
    assert frames[-1].goaway == (13, "why")


def test_messages_are_read_as_written():
    """Compared with Google's own encoder."""
    from flightsql import flightsql_pb2

    ours = wire.message(f1="SELECT 1", f2=b"\x00" * 300)
    theirs = flightsql_pb2.CommandStatementQuery(query="SELECT 1", transaction_id=b"\x00" * 300)
    assert ours == theirs.SerializeToString()
    assert (wire.read(ours, 1), wire.read(ours, 2)) == (b"SELECT 1", bytes(300))
    assert wire.read(wire.message(f1=1, f2=300, f3=True), 2) == 300
    assert wire.tables() == wire.message(
        f1="type.googleapis.com/arrow.flight.protocol.sql.CommandGetTables",
        f2=flightsql_pb2.CommandGetTables(include_schema=True).SerializeToString(),
    )


def test_revocation_list_is_accepted_by_openssl(tmp_path):
    authority = Authority("Lists")
    pair = authority.issue(("spiffe://a/b",), client=True)
    (tmp_path / "ca.pem").write_text(authority.pem)
    for form in ("pem", "der"):
        (tmp_path / "a.crl").write_bytes(authority.crl(pair, form=form))
        words = ("crl", "-in", "a.crl", "-inform", form, "-CAfile", "ca.pem", "-noout", "-text")
        text = clients.openssl(*words, cwd=tmp_path).decode()
        assert f"{pair.leaf.serial_number:X}".zfill(2) in text.replace(":", "") and "CRL Number" in text


def test_proxy_header_is_as_the_standard_has_it():
    """§2.2 of proxy-protocol.txt: twelve bytes, version and command, family, length, addresses, ports."""
    assert header("192.0.2.1", 258).hex() == "0d0a0d0a000d0a515549540a" + "2111000c" + "c0000201" + "7f000001" + "010201bb"
    assert header("2001:db8::1")[:16].hex() == "0d0a0d0a000d0a515549540a" + "21210024"
    assert header(None).hex() == "0d0a0d0a000d0a515549540a" + "20000000"


def test_forwarder_begins_with_a_header():
    with clients.socket.create_server(("127.0.0.1", 0)) as server:
        forwarder = Forwarder(server.getsockname()[1], "192.0.2.1")
        with clients.socket.create_connection(("127.0.0.1", forwarder.port)) as ours:
            ours.sendall(b"hello")
            theirs, _ = server.accept()
            with theirs:
                assert http2.read_exactly(theirs, 28 + 5) == header("192.0.2.1") + b"hello"
                theirs.sendall(b"back")
                assert http2.read_exactly(ours, 4) == b"back"
        forwarder.close()


# The tables of docs/clients.md


TABLE = Table(["one", "two"], ["can", "may"], {("two", "may"): "nobody may"})


def _drawn(old: dict, **cells: list[tuple[str, str, str]]) -> tuple[str, int]:
    run = Features("check")
    for place, taken in cells.items():
        row, column = place.split("_")
        run.cells["t", row, column] = Cell()
        for outcome in taken:
            run.cells["t", row, column].take(*outcome)
    return run.drawn("t", TABLE, old), run.kept


def test_table_is_drawn_and_read_back():
    drawn, kept = _drawn(
        {},
        one_can=[("passed", "yes", ""), ("passed", "yes", "")],
        one_may=[("passed", "refuses", "it is shy")],
        two_can=[("passed", "yes", ""), ("passed", "no", "it is broken")],
    )
    assert drawn.splitlines() == [
        "| | can | may |",
        "| --- | --- | --- |",
        "| one | yes | refuses [1] |",
        "| two | no [2] | – [3] |",
        "",
        "1. it is shy",
        "2. it is broken",
        "3. nobody may",
    ]
    assert kept == 0
    assert read_table(drawn)["one", "may"] == ("refuses", ["it is shy"])


def test_cell_whose_tests_were_skipped_stays_as_it_was():
    old = {("one", "can"): ("yes", []), ("one", "may"): ("refuses", ["it is shy"]), ("two", "can"): ("yes", [])}
    skipped = [("passed", "yes", ""), ("skipped", "", "")]
    drawn, kept = _drawn(old, one_can=[("passed", "no", "new")], one_may=skipped, two_can=skipped)
    assert "| one | no [1] | refuses [2] |" in drawn and "| two | yes | – [3] |" in drawn
    assert kept == 2


def test_unknown_cell_is_an_error():
    with pytest.raises(AssertionError, match="no cell"):
        features.cell("clients", "curl", "dances")


def test_cell_that_no_test_fills_is_noticed():
    run = Features("check")
    run.page(features.PAGE.read_text())
    assert "no test fills 'curl', 'parameters' of 'clients'" in run.trouble
