"""Clients that are programs: curl, arrow-flight's own client, the Spice SDKs, Go."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc

from .. import clients
from .driver import At, Driver, Refused, Untrusted, program, run

_OWN = Path(__file__).parents[2] / "clients"
_WEBPKI = {
    "no SAN": "webpki takes no certificate without a subject alternative name, nor a CA as a server's",
}


class Curl(Driver):
    name = "curl"
    endpoint = "http"

    def rows(self, at: At, sql: str, parameters: tuple = ()) -> list[dict]:
        if parameters:
            body = json.dumps({"sql": sql, "parameters": parameters})
            args = ["-H", "Content-Type: application/json", "-d", body]
        else:
            args = ["-d", sql]
        answer = clients.curl(self._url(at), *args, *self._key(at), ca=at.ca)
        if answer.exit:
            raise Untrusted(f"curl: ({answer.exit}) {answer.trouble}")
        if answer.status != 200:
            raise (Untrusted if "TLS" in answer.text else Refused)(answer.text)
        return answer.json()

    def count(self, at: At, sql: str) -> int:
        args = ["-H", "Accept: text/csv", "-d", sql, "--fail", *self._key(at)]
        command = clients.curl_command(self._url(at), *args, ca=at.ca)
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            lines = sum(part.count(b"\n") for part in iter(lambda: process.stdout.read(1 << 20), b""))
        assert process.returncode == 0, f"curl ended with {process.returncode}"
        return lines - 1  # the header

    def _url(self, at: At) -> str:
        return f"http{'s' if at.ca else ''}://{at.address('http')}/v1/sql"

    def _key(self, at: At) -> list[str]:
        return ["-H", f"X-API-Key: {at.key}"] if at.key else []


class FlightSqlClient(Driver):
    """Prints a table for people, from which the rows are read back."""

    name = "flight_sql_client"
    refuses = _WEBPKI
    large_rows = 20_000  # it draws the whole table

    def rows(self, at: At, sql: str, parameters: tuple = ()) -> list[dict]:
        bound = [word for i, value in enumerate(parameters, 1) for word in ("-p", f"${i}={value}")]
        words = ["prepared-statement-query", sql, *bound] if parameters else ["statement-query", sql]
        return self.table(at, *words)

    def table(self, at: At, *words: str) -> list[dict]:
        """Runs any of its commands; returns the table that it prints."""
        lines = self._ask(at, *words).decode().splitlines()
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
        head, *rows = cells
        return [dict(zip(head, map(_number, row))) for row in rows]

    def count(self, at: At, sql: str) -> int:
        return self._ask(at, "statement-query", sql).count(b"\n|") - 1  # the header

    def _ask(self, at: At, *words: str) -> bytes:
        more = [*(["--tls"] if at.ca else []), *(["--token", at.key] if at.key else [])]
        command = [program("SPICED_CLIENT_FLIGHT_SQL"), *more, "--host", at.host, "--port", str(at.port("flight"))]
        done = run([*command, *words], env={"SSL_CERT_FILE": at.ca or "/nowhere"})
        if done.returncode:
            said = done.stderr.decode()
            raise (Untrusted if "setup client" in said or "unavailable" in said else Refused)(said)
        return done.stdout


class SpiceRust(Driver):
    name = "spiceai (Rust SDK)"
    refuses = _WEBPKI

    def rows(self, at: At, sql: str, parameters: tuple = ()) -> list[dict]:
        more = [json.dumps(parameters)] if parameters else []
        return [json.loads(line) for line in self.ask(at, "rows", sql, *more).splitlines()]

    def count(self, at: At, sql: str) -> int:
        return int(self.ask(at, "count", sql))

    def ask(self, at: At, *words: str) -> bytes:
        url = f"http{'s' if at.ca else ''}://{at.address('flight')}"
        env = {"SPICED_CLIENT_KEY": at.key} if at.key else {}
        done = run([program("SPICED_CLIENT_SPICEAI"), url, at.ca or "-", *words], env=env)
        if done.returncode:
            said = done.stderr.decode()
            raise (Untrusted if "unavailable" in said else Refused)(said)
        return done.stdout


class SpiceJs(Driver):
    name = "@spiceai/spice (Flight)"
    large_rows = 20_000

    def options(self, at: At) -> dict:
        trust = {"flightTlsEnabled": True, "tlsRootCertFile": at.ca} if at.ca else {"flightTlsEnabled": False}
        return {"flightUrl": at.address("flight"), "flightOnly": True, **trust}

    def rows(self, at: At, sql: str, parameters: tuple = ()) -> list[dict]:
        return self.ask(at, "rows", sql=sql, **({"parameters": parameters} if parameters else {}))

    def count(self, at: At, sql: str) -> int:
        return self.ask(at, "count", sql=sql)

    def ask(self, at: At, what: str, **request):
        folder = program("SPICED_CLIENT_SPICEJS")
        shown = {"apiKey": at.key} if at.key else {}
        asked = json.dumps({"options": {**self.options(at), **shown}, "ask": what, **request})
        env = {"SPICED_CLIENT_SPICEJS": folder, "NODE_ENV": "production"}
        if at.ca:
            env["NODE_EXTRA_CA_CERTS"] = at.ca
        done = run([clients.optional_tool("node"), str(_OWN / "spicejs/main.mjs"), asked], env=env)
        assert done.stdout, f"node ended with {done.returncode}: {done.stderr.decode()}"
        answer = json.loads(done.stdout)
        if done.returncode == 0:
            return answer["answer"]
        raise self.trouble(answer)

    def trouble(self, answer: dict) -> Exception:
        return (Untrusted if answer.get("code") == 14 else Refused)(answer["error"])  # UNAVAILABLE


class SpiceJsHttp(SpiceJs):
    name = "@spiceai/spice (HTTP)"
    endpoint = "http"

    def options(self, at: At) -> dict:
        return {"httpUrl": f"http{'s' if at.ca else ''}://{at.address('http')}", "httpOnly": True}

    def trouble(self, answer: dict) -> Exception:
        told = answer["error"].startswith("HTTP query failed with status") and "TLS" not in answer["error"]
        return (Refused if told else Untrusted)(answer["error"])


class Go(Driver):
    """Flight by raw messages; the client writes the answer as an IPC stream, which pyarrow reads."""

    name = "grpc-go"
    lacks = {"parameters": "raw messages only; ADBC is grpc-go too"}
    refuses = {"no SAN": "Go takes no certificate without a subject alternative name"}

    def rows(self, at: At, sql: str, parameters: tuple = ()) -> list[dict]:
        return self._table(at, sql).to_pylist()

    def count(self, at: At, sql: str) -> int:
        return self._table(at, sql).num_rows

    def _table(self, at: At, sql: str) -> pa.Table:
        return pa.ipc.open_stream(self.ask(at, "flight", "flight", sql)).read_all()

    def ask(self, at: At, endpoint: str, *words: str) -> bytes:
        more = [*(["-ca", at.ca] if at.ca else []), *(["-key", at.key] if at.key else [])]
        done = run([program("SPICED_CLIENT_GO"), *more, at.address(endpoint), *words])
        if done.returncode:
            said = done.stderr.decode()
            raise (Untrusted if "code = Unavailable" in said else Refused)(said)
        return done.stdout


def _number(text: str):
    try:
        return int(text)
    except ValueError:
        return text
