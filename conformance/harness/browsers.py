"""Chromium and Firefox, without a window: which servers each of them connects to.

Both are driven over their own remote protocols (DevTools over a pipe, Marionette over TCP). A page on a server that
they accept fetches all the others. A fetch fails for the same certificates as a navigation, without the pause before
an error page.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path

from . import clients
from .waiting import DEADLINE

_FETCH_ALL = "Promise.allSettled(urls.map(url => fetch(url, {mode: 'no-cors'}))).then(all => all.map(one => one.status === 'fulfilled'))"

# A trusted issuer of servers, and a trusted server itself: a self-signed certificate is both.
_TRUST = "CP,,"


def _certificate_database(folder: Path, roots: list[Path]) -> None:
    """Creates the database in which both browsers look up certificates that their user trusts."""
    folder.mkdir(parents=True)

    def certutil(*words) -> None:
        words = [clients.optional_tool("certutil"), "-d", f"sql:{folder}", *map(str, words)]
        subprocess.run(words, check=True, capture_output=True, timeout=DEADLINE)

    certutil("-N", "--empty-password")
    for number, root in enumerate(roots):
        certutil("-A", "-t", _TRUST, "-n", f"root-{number}", "-i", root)


def _start(words: list[str], home: Path, **more) -> subprocess.Popen:
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(words, env={**os.environ, "HOME": str(home)}, **quiet, **more)


class Chromium:
    def __init__(self, home: Path, roots: list[Path]) -> None:
        program = clients.optional_tool("chromium")
        _certificate_database(home / ".pki" / "nssdb", roots)
        read, self._out = os.pipe()
        self._in, write = os.pipe()
        words = [
            *[program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
            *["--disable-component-update", "--disable-http2", "--no-proxy-server", "--remote-debugging-pipe"],
            *["--host-resolver-rules=MAP * 127.0.0.1", f"--user-data-dir={home / 'profile'}", "about:blank"],
        ]
        # The protocol uses the descriptors 3 and 4.
        shell = ["bash", "-c", f'exec 3<&{read} 4>&{write}; exec "$@"', "-", *words]
        self._process = _start(shell, home, pass_fds=(read, write))
        os.close(read)
        os.close(write)
        self._pending = b""
        self._calls = 0

    def _call(self, method: str, session: str | None = None, **parameters) -> dict:
        self._calls += 1
        message = {"id": self._calls, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._pending:
                more = os.read(self._in, 65536)
                assert more, "Chromium has ended"
                self._pending += more
            text, self._pending = self._pending.split(b"\0", 1)
            answer = json.loads(text)
            if answer.get("id") == self._calls:
                assert "error" not in answer, answer
                return answer["result"]

    def accepts(self, first: str, urls: list[str]) -> list[bool]:
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        shown = self._call("Page.navigate", session, url=first)
        assert "errorText" not in shown, shown
        expression = f"(urls => {_FETCH_ALL})({json.dumps(urls)})"
        answer = self._call("Runtime.evaluate", session, expression=expression, awaitPromise=True, returnByValue=True)
        return answer["result"]["value"]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)


class Firefox:
    _PREFERENCES = {
        "app.update.enabled": False,
        "datareporting.policy.dataSubmissionEnabled": False,
        "marionette.port": 0,
        "network.captive-portal-service.enabled": False,
        "network.connectivity-service.enabled": False,
        "network.dns.forceResolve": "127.0.0.1",
        "network.http.http2.enabled": False,
        "network.http.http3.enable": False,
        "network.proxy.type": 0,
        "security.OCSP.enabled": 0,
    }

    def __init__(self, home: Path, roots: list[Path]) -> None:
        program = clients.optional_tool("firefox-esr")
        profile = home / "profile"
        _certificate_database(profile, roots)
        lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in self._PREFERENCES.items())
        (profile / "user.js").write_text("".join(lines))
        words = [program, "--headless", "--marionette", "--no-remote", "--profile", str(profile)]
        self._process = _start(words, home)
        port, deadline = profile / "MarionetteActivePort", time.monotonic() + DEADLINE
        while not (port.exists() and port.read_text().strip()):
            assert self._process.poll() is None and time.monotonic() < deadline, "Firefox does not start"
            time.sleep(0.02)
        self._socket = socket.create_connection(("127.0.0.1", int(port.read_text())), DEADLINE)
        self._file = self._socket.makefile("rb")
        self._calls = 0
        self._read()
        self._call("WebDriver:NewSession", capabilities={"alwaysMatch": {"acceptInsecureCerts": False}})

    def _read(self) -> list:
        length = b""
        while (digit := self._file.read(1)) != b":":
            assert digit, "Firefox has ended"
            length += digit
        return json.loads(self._file.read(int(length)))

    def _call(self, name: str, **parameters) -> dict:
        self._calls += 1
        message = json.dumps([0, self._calls, name, parameters]).encode()
        self._socket.sendall(b"%d:%s" % (len(message), message))
        _, _, error, value = self._read()
        assert not error, error
        return value

    def accepts(self, first: str, urls: list[str]) -> list[bool]:
        self._call("WebDriver:Navigate", url=first)
        script = f"const [urls, done] = arguments; {_FETCH_ALL}.then(done)"
        return self._call("WebDriver:ExecuteAsyncScript", script=script, args=[urls])["value"]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._socket.close()
