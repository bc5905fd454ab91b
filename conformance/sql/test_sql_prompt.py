"""`spiced sql`: one query, scripts, formats, and the prompt on a terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess

import pytest

from harness import data, prompt
from harness.prompt import Prompt, endpoint, run, trusting
from harness.server import binary
from harness.waiting import eventually

PEOPLE = "SELECT id, name FROM people ORDER BY id"
FOREVER = "SELECT count(*) FROM generate_series(1, 100000000000)"


@pytest.fixture
def home(tmp_path):
    return tmp_path


@pytest.fixture
def terminal(home, in_clear):
    """A prompt connected to the server without TLS."""
    talk = Prompt(home, "--endpoint", endpoint(in_clear))
    yield talk
    talk.close()


@pytest.fixture
def notes(pod):
    """A server with a writable table."""
    pod.yaml(datasets=[data.MEMORY])
    return pod.serve()


# One query


def test_a_query_is_a_table_and_nothing_else(served, home):
    ran = run(home, *trusting(served), PEOPLE)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        "+----+--------+\n"
        "| id | name   |\n"
        "+----+--------+\n"
        "| 1  | Ada    |\n"
        "| 2  | Grace  |\n"
        "| 3  | Edsger |\n"
        "+----+--------+\n"
    )


FORMS = {
    "csv": 'x,y\n1,"a,""b"\n2,\n',
    "json": '[{"x":1,"y":"a,\\"b"},{"x":2,"y":null}]\n',
    "ndjson": '{"x":1,"y":"a,\\"b"}\n{"x":2,"y":null}\n',
    "table": "+---+------+\n| x | y    |\n+---+------+\n| 1 | a,\"b |\n| 2 |      |\n+---+------+\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_formats(served, home, form):
    query = "SELECT * FROM (VALUES (1, 'a,\"b'), (2, NULL)) AS t(x, y) ORDER BY x"
    assert run(home, *trusting(served), "--format", form, query).ok() == FORMS[form]


@pytest.mark.parametrize("form, expected", [("csv", "x\n"), ("json", "[]\n"), ("ndjson", ""), ("table", "+---+\n| x |\n+---+\n+---+\n")])
def test_no_rows(served, home, form, expected):
    assert run(home, *trusting(served), "--format", form, "SELECT 1 AS x WHERE false").ok() == expected


def test_wide_letters_stay_in_their_columns(in_clear, home):
    lines = run(home, *trusting(in_clear), "SELECT * FROM (VALUES ('日本'), ('ab')) AS t(x)").ok().splitlines()
    assert lines[3:5] == ["| 日本 |", "| ab   |"]


def test_values_cannot_control_the_terminal(in_clear, home):
    out = run(home, *trusting(in_clear), "SELECT chr(27) || '[2J' AS x").ok()
    assert "\x1b" not in out and "\\u{1b}[2J" in out
    failed = run(home, *trusting(in_clear), "SELECT \"\x1b[2J\"")
    assert failed.code == 1 and "\x1b" not in failed.err


def test_several_statements_stop_at_the_first_error(in_clear, home):
    ran = run(home, *trusting(in_clear), "--format", "csv", "SELECT 1 AS x; SELECT 'a;b' AS y; SELEC 2; SELECT 3 AS z;")
    assert (ran.code, ran.out) == (1, "x\n1\ny\na;b\n")
    assert ran.err == "error: expected: an SQL statement, found: SELEC at Line: 1, Column: 1\n"


def test_a_failure_after_the_first_rows_is_a_failure(in_clear, home):
    ran = run(home, *trusting(in_clear), "--format", "ndjson", "SELECT 1 / (3000 - value) AS x FROM generate_series(1, 100000)")
    assert ran.code == 1 and "ivide by zero" in ran.err


def test_changes_are_counted(notes, home):
    ran = run(home, *trusting(notes), "INSERT INTO notes VALUES (1, 'a'), (2, 'b')")
    assert (ran.code, ran.out) == (0, "")
    assert re.fullmatch(r"2 rows changed \(\d+\.\d ms\)\n", ran.err)
    assert run(home, *trusting(notes), "--format", "csv", "SELECT count(*) AS n FROM notes").ok() == "n\n2\n"


def test_definitions_print_nothing(notes, home):
    ran = run(home, *trusting(notes), "CREATE VIEW v AS SELECT 1 AS x; DROP VIEW v")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_commands_work_without_a_prompt(over_tls, home):
    options = [*trusting(over_tls), "--format", "csv"]
    told = ("otel,logs", "otel,metrics", "otel,traces", "public,people", "runtime,queries", "runtime,tls")
    tables = [f"spice,{name},TABLE" for name in told]
    assert run(home, *options, r"\d").ok().splitlines()[1:] == tables
    assert run(home, *options, r"\d people").ok() == "column,type,nullable\nid,Int64,yes\nname,Utf8View,yes\n".replace(
        "Utf8View", run(home, *options, "SELECT arrow_typeof(name) AS t FROM people LIMIT 1").ok().split()[1]
    )
    assert run(home, *options, r"\d public.peo*").ok().startswith("column,type,nullable\nid,")
    assert run(home, *options, r"\dn").ok().splitlines()[1:] == ["spice,otel", "spice,public", "spice,runtime"]
    assert run(home, *options, r"\l").ok().splitlines()[1:] == ["spice"]
    missing = run(home, *options, r"\d peo_le")
    assert (missing.code, missing.err) == (1, "error: there is no table `peo_le`\nhint: \\d lists the tables\n")


def test_conninfo(over_tls, home):
    lines = run(home, *trusting(over_tls), r"\conninfo").ok().splitlines()
    end = over_tls.pair.leaf.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert lines == [
        f"endpoint     grpc+tls://localhost:{over_tls.port('flight')}",
        lines[1],
        "TLS          TLS 1.3, TLS13_AES_128_GCM_SHA256, X25519MLKEM768",
        "certificate  CN=localhost for localhost, 127.0.0.1, ::1",
        f"             issued by CN=Conformance Root, ends {end}",
    ]
    assert re.fullmatch(r"server       spiced \d+\.\d+\.\d+", lines[1])


def test_conninfo_without_tls(in_clear, home):
    out = run(home, *trusting(in_clear), r"\conninfo").ok()
    assert "TLS          none: what is sent can be read on the way" in out


# Scripts


def test_standard_input(served, home):
    script = b"\xef\xbb\xbf-- two statements\nSELECT 1 AS x;\n\\format json\nSELECT\n  2 AS y"
    ran = run(home, *trusting(served), "--format", "csv", stdin=script)
    assert (ran.code, ran.out, ran.err) == (0, 'x\n1\n[{"y":2}]\n', "")


def test_nothing_to_do_is_no_error(in_clear, home):
    ran = run(home, *trusting(in_clear), stdin=b" -- nothing\n;;\n")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_standard_input_is_run_as_it_comes(in_clear, home):
    process = subprocess.Popen(
        [binary(), "sql", *trusting(in_clear), "--format", "csv"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=home,
        env=prompt.environment(home),
    )
    for number in (1, 2):
        process.stdin.write(f"SELECT {number} AS x;\n".encode())
        process.stdin.flush()
        assert [process.stdout.readline() for _ in range(2)] == [b"x\n", b"%d\n" % number]
    process.stdin.close()
    assert process.wait(prompt.DEADLINE) == 0


def test_ctrl_c_ends_a_script_that_waits(in_clear, home):
    process = subprocess.Popen(
        [binary(), "sql", *trusting(in_clear)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=home,
        env=prompt.environment(home),
    )
    process.stdin.write(b"SELECT 1;\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"+----------+\n"
    process.send_signal(signal.SIGINT)
    # Its standard input stays open until it exits.
    assert process.wait(prompt.DEADLINE) == 1
    assert process.communicate()[1] == b"error: cancelled\n"


def test_files(in_clear, home):
    (home / "inner.sql").write_text("SELECT 'inner' AS x;\n")
    (home / "outer.sql").write_text("SELECT 'outer' AS x;\n\\i inner.sql\nSELECT 'again' AS x\n")
    options = [*trusting(in_clear), "--format", "ndjson"]
    assert run(home, *options, "--file", "outer.sql").ok() == '{"x":"outer"}\n{"x":"inner"}\n{"x":"again"}\n'
    assert run(home, *options, "-f", "-", stdin=b"SELECT 1 AS x").ok() == '{"x":1}\n'
    (home / "loop.sql").write_text("\\i loop.sql\n")
    assert "files include files more than 16 deep" in run(home, *options, "-f", "loop.sql").err


SCRIPTS = {
    "error": ("SELECT 1;\n\nSELEC 2;\n", "error: F:3: expected: an SQL statement, found: SELEC at Line: 1, Column: 1\n"),
    "quote": ("SELECT 1;\nSELECT 'a;\n", "error: a text in '…' that begins in line 2 has no end\n"),
    "utf8": (b"SELECT 1;\nSELECT '\xff';\n", "error: F:2: it is not UTF-8\n"),
    "command": ("\\nope\n", "error: F:1: there is no command \\nope\nhint: \\? lists them\n"),
    "missing": (None, "error: cannot read F: No such file or directory (os error 2)\n"),
}


@pytest.mark.parametrize("case", SCRIPTS)
def test_scripts_say_where_they_fail(in_clear, home, case):
    script, message = SCRIPTS[case]
    if script is not None:
        (home / "F").write_bytes(script if isinstance(script, bytes) else script.encode())
    ran = run(home, *trusting(in_clear), "--file", "F")
    assert (ran.code, ran.err) == (1, message)


def test_usage(home):
    for args, code in [(["--format", "xml", "x"], 64), (["--endpoint", "ftp://x", "x"], 64), (["-f", "x", "y"], 64), (["--help"], 0)]:
        assert run(home, *args).code == code, args


# Large output


def test_a_closed_pipe_ends_quietly(in_clear, home):
    command = f"'{binary()}' sql --endpoint {endpoint(in_clear)} 'SELECT * FROM generate_series(1, 100000000)' | head -n 4"
    done = subprocess.run(
        ["bash", "-c", command + '; echo "${PIPESTATUS[0]}"'],
        capture_output=True,
        cwd=home,
        env=prompt.environment(home),
        timeout=prompt.DEADLINE,
    )
    assert done.stderr == b"" and done.stdout.splitlines()[3:] == [b"| 1     |", b"0"]
    eventually(lambda: in_clear.cpu_share() < 0.2, "the query ended on the server")


@pytest.mark.parametrize("form", ["table", "csv", "json", "ndjson"])
def test_memory_does_not_grow_with_the_answer(in_clear, home, form):
    def highest(rows: int) -> int:
        query = f"SELECT value, repeat('x', 100) AS x FROM generate_series(1, {rows})"
        with open(os.devnull, "wb") as nowhere:
            process = subprocess.Popen(
                [binary(), "sql", *trusting(in_clear), "--format", form, query],
                stdin=subprocess.DEVNULL,
                stdout=nowhere,
                cwd=home,
                env=prompt.environment(home),
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return usage.ru_maxrss * 1024

    small, large = highest(10_000), highest(300_000)
    assert large < small + 24 * 1024 * 1024, f"{small >> 20} MiB became {large >> 20} MiB"


# The prompt


def test_greeting_and_ways_to_leave(over_tls, home):
    for keys in ("\x04", "\\q\r", "exit\r", "QUIT;\r"):
        talk = Prompt(home, *trusting(over_tls))
        assert talk.greeting.startswith("spiced ") and "(TLS 1.3)" in talk.greeting
        assert talk.leave(keys) == 0


def test_a_statement_may_have_several_lines(terminal):
    said = terminal.ask("SELECT 'a;", "b' AS x,", "  2 -- ; no end", "  AS y;")
    assert "| a;\\nb | 2 |" in said and re.search(r"\n1 row \(\d+\.\d ms\)\n", said)


def test_an_error_is_not_the_end(terminal):
    assert "error: expected: an SQL statement" in terminal.ask("SELEC 1;")
    assert "error: there is no command \\nope" in terminal.ask("\\nope")
    assert "| 1 " in terminal.ask("SELECT 1;")


def test_ctrl_c_clears_the_line(terminal):
    terminal.type("SELECT 'never")
    terminal.type("\x03")
    terminal.until_ready()
    said = terminal.ask("SELECT 7 AS seven;")
    assert "| 7     |" in said and "never" not in said.split("SELECT 7")[1]


def test_ctrl_c_cancels_the_query(terminal, in_clear):
    terminal.type(FOREVER + ";\r")
    eventually(lambda: in_clear.cpu_share() > 0.5, "the query runs on the server")
    terminal.type("\x03")
    assert "cancelled" in terminal.until_ready()
    eventually(lambda: in_clear.cpu_share() < 0.2, "the query ended on the server")
    assert "| 1 " in terminal.ask("SELECT 1;")


def test_ctrl_c_cancels_an_answer_that_comes(terminal, in_clear):
    terminal.ask("\\maxrows 0")
    terminal.type("SELECT * FROM generate_series(1, 1000000000);\r")
    terminal.wait_for("| 1000 ")
    terminal.type("\x03")
    assert "cancelled" in terminal.until_ready()
    eventually(lambda: in_clear.cpu_share() < 0.2, "the query ended on the server")


def test_ctrl_c_cancels_a_single_query(in_clear, home):
    process = subprocess.Popen(
        [binary(), "sql", *trusting(in_clear), FOREVER],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=home,
        env=prompt.environment(home),
    )
    eventually(lambda: in_clear.cpu_share() > 0.5, "the query runs on the server")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=prompt.DEADLINE)
    assert (process.returncode, out, err) == (1, b"", b"error: cancelled\n")
    eventually(lambda: in_clear.cpu_share() < 0.2, "the query ended on the server")


def test_a_table_is_cut_and_says_so(terminal):
    said = terminal.ask("SELECT * FROM generate_series(1, 100000);")
    assert "| 1000  |" in said and "| 1001" not in said and "the first 1000 rows; \\maxrows 0 shows all" in said
    terminal.ask("\\maxrows 2")
    assert "the first 2 rows" in terminal.ask("SELECT * FROM generate_series(1, 3);")
    assert "\n2 rows" in terminal.ask("SELECT * FROM generate_series(1, 2);")
    assert "\n2\n" in terminal.ask("\\maxrows")


def test_settings(terminal):
    terminal.ask("\\x")
    assert "-[ 1 ]-" in (said := terminal.ask("SELECT 1 AS a, 'b' AS bc;")) and "\na  | 1\nbc | b\n" in said
    terminal.ask("\\x off")
    terminal.ask("\\timing off")
    assert "\n1 row\n" in terminal.ask("SELECT 1;")
    terminal.ask("\\o json")
    assert '[{"x":1}]\n' in terminal.ask("SELECT 1 AS x;")
    assert "\njson\n" in terminal.ask("\\format")
    assert "\\conninfo" in terminal.ask("\\?")


def test_completion(terminal, home):
    # Completion loads the tables after the prompt appears: press Tab until they are offered.
    eventually(lambda: "| column" in terminal.ask("\\d peop\t"), "a table is completed")
    assert "| Grace" in terminal.ask("sel\t name fr\t peo\t ord\t by nam\t;")
    assert "| 3 " in terminal.ask("SELECT id FROM people p WHERE p.nam\t = 'Edsger';")
    assert "TLS          none" in terminal.ask("\\conn\t")
    (home / "nine.sql").write_text("SELECT 9 AS nine;")
    assert "| 9    |" in terminal.ask("\\i nin\t")


def test_history(in_clear, home):
    talk = Prompt(home, "--endpoint", endpoint(in_clear))
    talk.ask("SELECT", "41 + 1 AS x;")
    talk.ask(" SELECT 'a secret' AS x;")
    assert talk.leave() == 0
    file = home / ".local/state/spiced/sql_history"
    assert "secret" not in file.read_text()
    assert [stat.S_IMODE(p.stat().st_mode) for p in (file, file.parent)] == [0o600, 0o700]
    # Another prompt continues the history, with all lines of the statement.
    again = Prompt(home, "--endpoint", endpoint(in_clear))
    assert "| 42 |" in again.ask("\x1b[A")
    assert again.leave() == 0


def test_history_in_another_file_or_none(in_clear, home):
    talk = Prompt(home, "--endpoint", endpoint(in_clear), env={"XDG_STATE_HOME": str(home / "state")})
    talk.ask("SELECT 1;")
    assert talk.leave() == 0 and (home / "state/spiced/sql_history").is_file()
    (home / "file").write_text("")
    talk = Prompt(home, "--endpoint", endpoint(in_clear), env={"XDG_STATE_HOME": str(home / "file")})
    assert "nothing is remembered" in talk.greeting
    assert "| 1 " in talk.ask("SELECT 1;") and talk.leave() == 0


def test_a_server_that_comes_back(pod, home):
    server = pod.serve()
    port = server.port("flight")
    talk = Prompt(home, "--endpoint", f"localhost:{port}")
    server.close()
    said = talk.ask("SELECT 1;")
    assert "connection refused" in said or "is lost" in said
    pod.serve("--flight", f"localhost:{port}", endpoints=("http", "grpc"))
    assert "| 1 " in talk.ask("SELECT 1;")
    assert talk.leave() == 0


def test_answers_go_elsewhere_and_the_prompt_stays(in_clear, home):
    command = f"'{binary()}' sql --endpoint {endpoint(in_clear)} --format csv > out.csv"
    talk = Prompt.__new__(Prompt)
    talk.child = prompt.pexpect.spawn(
        "bash", ["-c", command], cwd=str(home), env=prompt.environment(home, {"TERM": "xterm", "NO_COLOR": "1"}),
        encoding="utf-8", timeout=prompt.DEADLINE,
    )
    talk.until_ready()
    assert "1 row" in talk.ask("SELECT 5 AS x;")
    assert talk.leave() == 0
    assert (home / "out.csv").read_text() == "x\n5\n"


def test_every_row_of_a_large_answer(served, home):
    out = run(home, *trusting(served), "--format", "ndjson", "SELECT value FROM generate_series(1, 200000)").ok()
    assert [json.loads(line)["value"] for line in out.splitlines()] == list(range(1, 200_001))
