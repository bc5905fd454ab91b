"""Let's Encrypt as simulated by Pebble, and certbot as its client; pebble-challtestsrv resolves all names to this
machine."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from . import clients
from .certificates import Authority
from .scripted_server import refused_port
from .stores import Process
from .waiting import DEADLINE, eventually


class Pebble:
    """An ACME server with a certificate from this authority. It issues from a root that it creates at startup."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        folder.mkdir()
        self.folder = folder
        self.trust = folder / "acme-ca.pem"
        self.trust.write_text(authority.pem)
        pair = authority.issue()
        (folder / "tls.crt").write_text(pair.certificate)
        (folder / "tls.key").write_text(pair.key_text)
        self.challenges, dns, self._management, port = (refused_port() for _ in range(4))
        self.directory = f"https://localhost:{port}/dir"
        said = {
            "listenAddress": f"127.0.0.1:{port}",
            "managementListenAddress": f"127.0.0.1:{self._management}",
            "certificate": str(folder / "tls.crt"),
            "privateKey": str(folder / "tls.key"),
            "httpPort": self.challenges,
            "tlsPort": refused_port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
        }
        (folder / "pebble.json").write_text(json.dumps({"pebble": said}))
        pebble, names = clients.optional_tool("pebble"), clients.optional_tool("pebble-challtestsrv")
        off = [word for endpoint in ("http01", "https01", "tlsalpn01") for word in (f"-{endpoint}", "")]
        at = ["-dns01", f"127.0.0.1:{dns}", "-management", f"127.0.0.1:{refused_port()}", "-defaultIPv6", ""]
        env = {"PATH": os.environ["PATH"], "HOME": str(folder), "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
        self._processes = [Process([names, *off, *at], env, folder)]
        try:
            resolver = f"127.0.0.1:{dns}"
            self._processes.append(Process([pebble, "-config", "pebble.json", "-dnsserver", resolver], env, folder))
            eventually(lambda: clients.curl(self.directory, ca=str(self.trust)).ok(), "Pebble answers")
        except BaseException:
            self.stop()
            raise

    @property
    def root(self) -> str:
        """The issuing root, PEM."""
        return clients.curl(f"https://localhost:{self._management}/roots/0", ca=str(self.trust)).ok().text

    def certbot(self, *words: str, **env: str) -> str:
        """Runs `certbot WORDS` in this server's directory, and returns its output."""
        folders = [word for name in ("config", "work", "logs") for word in (f"--{name}-dir", str(self.folder / name))]
        done = subprocess.run(
            [clients.optional_tool("certbot"), *words, "--non-interactive", "--server", self.directory, *folders],
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "REQUESTS_CA_BUNDLE": str(self.trust), **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE * 2,
        )
        assert done.returncode == 0, f"certbot exited with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.stop()
