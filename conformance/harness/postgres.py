"""A PostgreSQL server for the suite, with a separate CA: most users need scram over TLS, one a certificate, and one
uses plain text.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from . import clients
from .certificates import Authority
from .leak_scanner import LEDGER
from .waiting import DEADLINE, eventually

# The authentication of users; the first matching line applies (PostgreSQL, "The pg_hba.conf File").
_HBA = """\
local     all  all                     trust
hostssl   all  by_certificate  all     cert
hostssl   all  all             all     scram-sha-256
hostnossl all  in_the_clear    all     scram-sha-256
hostnossl all  all             all     reject
"""


def _program(name: str) -> str:
    """Finds a program of the server, which Debian keeps out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    path = str(found[0]) if found else shutil.which(name)
    if not path:
        why = os.environ.get("SPICED_PROGRAMS_MISSING", "cargo xtask clients installs it")
        pytest.skip(f"{name} is not installed: {why}")
    return path


class Postgres:
    """Runs until it is stopped. PostgreSQL refuses to run as root, so root runs it as Debian's user for it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="spiced-pg-"))
        self.ca = Authority("PostgreSQL's root")
        self.password = LEDGER.mark("a password of PostgreSQL")
        self._user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        self._data = self.folder / "data"
        if self._user:
            self._own(self.folder)
        self._run(_program("initdb"), "-D", self._data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")
        (self._data / "pg_hba.conf").write_text(_HBA)
        self.file("ca.pem", self.ca.pem)
        self.present(self.ca.issue(("localhost",)))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "ssl": "on",
            "ssl_cert_file": self.folder / "server.crt",
            "ssl_key_file": self.folder / "server.key",
            "ssl_ca_file": self.folder / "ca.pem",
            "fsync": "off",
            "log_statement": "all",
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._log = open(self.folder / "log", "wb")
        self._process = subprocess.Popen(
            [*self._user, _program("postgres"), "-D", str(self._data), *words], stdout=self._log, stderr=self._log, cwd="/"
        )
        eventually(lambda: self.sql("SELECT 1") == "1", "PostgreSQL answers")
        for user in ("app", "in_the_clear", "by_certificate"):
            self.sql(f"CREATE ROLE {user} LOGIN PASSWORD '{self.password}'; GRANT ALL ON SCHEMA public TO {user}")

    def _own(self, path: Path) -> None:
        who = pwd.getpwnam("postgres")
        os.chown(path, who.pw_uid, who.pw_gid)

    def file(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.write_text(content)
        path.chmod(0o600)
        if self._user:
            self._own(path)
        return path

    def present(self, pair) -> None:
        """Presents this certificate from the next `reload` on."""
        self.file("server.crt", pair.certificate)
        self.file("server.key", pair.key_text)

    def reload(self) -> None:
        self.sql("SELECT pg_reload_conf()")

    def _run(self, *words) -> None:
        done = subprocess.run([*self._user, *map(str, words)], capture_output=True, timeout=DEADLINE, cwd="/")
        assert done.returncode == 0, done.stderr.decode()

    def sql(self, text: str, database: str = "postgres", deadline: float = DEADLINE) -> str:
        """Runs SQL as the administrator, over the local socket."""
        words = [clients.tool("psql"), "-h", str(self.folder), "-p", str(self.port), "-U", "postgres", "-d", database]
        done = subprocess.run(
            [*words, "-v", "ON_ERROR_STOP=1", "-qAt", "-f", "-"], input=text.encode(), capture_output=True, timeout=deadline
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    @contextlib.contextmanager
    def session(self):
        """A session of the administrator: yields a function that runs statements in it, one after the other."""
        words = [clients.tool("psql"), "-h", str(self.folder), "-p", str(self.port), "-U", "postgres", "-qAt"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

            def run(text: str) -> None:
                process.stdin.write(f"{text}\n\\echo done\n")
                process.stdin.flush()
                while (line := process.stdout.readline()) != "done\n":
                    assert line, "psql has ended"

            yield run
            process.stdin.close()

    def params(self, **more: str) -> dict[str, str]:
        """The params of a data set: TLS with full verification."""
        params = {
            "pg_host": "localhost",
            "pg_port": str(self.port),
            "pg_db": "postgres",
            "pg_user": "app",
            "pg_pass": "${env:PG_PASSWORD}",
            "pg_sslmode": "verify-full",
            "pg_sslrootcert": str(self.folder / "ca.pem"),
        }
        return {name: value for name, value in {**params, **more}.items() if value}

    def serve(self, pod, source: str, access: str = "read", name: str = "t", **params: str):
        """A server with one of its tables or views as the only data set, which all callers may write."""
        pod.yaml(
            datasets=[{"from": f"postgres:{source}", "name": name, "access": access, "params": self.params(**params)}],
            runtime={"auth": {"allow_anonymous": "rw"}},
        )
        return pod.serve(env={"PG_PASSWORD": self.password})

    def heard(self) -> str:
        """The log: every statement received, and how it was refused."""
        return (self.folder / "log").read_text()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(DEADLINE)
        finally:
            self._process.kill()
            self._process.wait()
            self._log.close()
            shutil.rmtree(self.folder, ignore_errors=True)
