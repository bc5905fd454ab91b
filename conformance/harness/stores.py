"""Real secret stores for the suite: AWS Secrets Manager by moto, Vault by OpenBao, each in a separate process."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
import threading
from functools import cached_property
from pathlib import Path

from .scripted_server import refused_port
from .leak_scanner import LEDGER
from .waiting import DEADLINE, eventually

BIN = Path(sys.executable).parent


class Process:
    """The process of a server; its output is kept for error reports."""

    def __init__(self, argv: list[str], env: dict[str, str], cwd: Path) -> None:
        self._said: list[str] = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            with self._changed:
                self._said.append(line)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, pattern: str) -> re.Match:
        with self._changed:
            found = []

            def there():
                found[:] = [match for line in self._said if (match := re.search(pattern, line))]
                return found or self.process.poll() is not None

            self._changed.wait_for(there, DEADLINE)
            assert found, f"{self.process.args[0]} never printed {pattern}:\n{''.join(self._said)}"
            return found[0]

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Moto(Process):
    """AWS on this machine, as far as moto implements it: over plain HTTP, or over TLS with a pair."""

    def __init__(self, root: Path, pair=None, ca: str | None = None) -> None:
        root.mkdir(exist_ok=True)
        self.ca, tls = ca, []
        if pair:
            (root / "tls.crt").write_text(pair.certificate)
            (root / "tls.key").write_text(pair.key_text)
            tls = ["-s", "-c", str(root / "tls.crt"), "-k", str(root / "tls.key")]
        env = {"PATH": os.environ["PATH"], "HOME": str(root), "PYTHONUNBUFFERED": "1"}
        super().__init__([str(BIN / "moto_server"), "-H", "127.0.0.1", "-p", "0", *tls], env, root)
        self.url = self.wait_for(r"Running on (https?://\S+)")[1].replace("127.0.0.1", "localhost" if pair else "127.0.0.1")

    def client(self, service: str = "secretsmanager"):
        """boto3's client, with the keys of moto's root user."""
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.url,
            verify=self.ca,
            region_name=REGION,
            aws_access_key_id="root",
            aws_secret_access_key="root",
        )

    def create(self, name: str, value: str | bytes | dict) -> None:
        kind = {"SecretBinary": value} if isinstance(value, bytes) else {"SecretString": _text(value)}
        self.client().create_secret(Name=name, **kind)

    def put(self, name: str, value: str | bytes | dict) -> None:
        """Writes a new version of an existing secret."""
        kind = {"SecretBinary": value} if isinstance(value, bytes) else {"SecretString": _text(value)}
        self.client().put_secret_value(SecretId=name, **kind)

    def enforce_policies(self) -> None:
        """From now on, the signature and the policies of every request are checked."""
        import requests

        url = f"{self.url}/moto-api/reset-auth"
        requests.post(url, data=b"0", timeout=DEADLINE, verify=self.ca or True).raise_for_status()


REGION = "eu-west-1"


def aws_environment(**more: str) -> dict[str, str]:
    """The variables that the SDK reads; the secret key is marked."""
    return {
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "AKIDTEST",
        "AWS_SECRET_ACCESS_KEY": LEDGER.mark("an AWS secret key"),
        "AWS_EC2_METADATA_DISABLED": "true",
        **more,
    }


def _text(value: str | dict) -> str:
    return json.dumps(value) if isinstance(value, dict) else value


class Bao(Process):
    """OpenBao in TLS dev mode: a KV version 2 engine at `secret/`, everything in memory."""

    def __init__(self, root: Path) -> None:
        self.root_token = LEDGER.mark("a root token of Vault")
        tls = root / "tls"
        tls.mkdir(parents=True)
        self.port = refused_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.env = {"PATH": os.environ["PATH"], "HOME": str(root)}
        argv = [
            *(str(BIN / "bao"), "server", "-dev", "-dev-tls", f"-dev-tls-cert-dir={tls}", "-dev-no-store-token"),
            *(f"-dev-listen-address=127.0.0.1:{self.port}", f"-dev-root-token-id={self.root_token}"),
        ]
        super().__init__(argv, self.env, root)
        self.ca_file = str(tls / "vault-ca.pem")
        self.wait_for(r"OpenBao server started|Root Token")
        eventually(lambda: self.ask("GET", "sys/health")["initialized"], "OpenBao is up")

    @cached_property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca_file)

    def ask(self, method: str, path: str, body: dict | None = None, namespace: str = "", token: str = "") -> dict:
        """Calls the API, as root unless `token` is given; anything but success is an error."""
        import requests

        answer = requests.request(
            method,
            f"{self.url}/v1/{path}",
            json=body,
            headers={"X-Vault-Token": token or self.root_token, **({"X-Vault-Namespace": namespace} if namespace else {})},
            verify=self.ca_file,
            timeout=DEADLINE,
        )
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else {}

    def mount(self, name: str, version: int = 2, namespace: str = "") -> None:
        """Creates a key-value engine for the test."""
        body = {"type": "kv", "options": {"version": str(version)}}
        self.ask("POST", f"sys/mounts/{name}", body, namespace)

    def put(self, mount: str, secret: str, fields: dict, version: int = 2, namespace: str = "") -> None:
        if version == 2:
            eventually(  # a new engine of version 2 takes a moment to become ready
                lambda: self.ask("POST", f"{mount}/data/{secret}", {"data": fields}, namespace), f"{mount} takes a secret"
            )
        else:
            self.ask("POST", f"{mount}/{secret}", fields, namespace)

    def policy(self, name: str, rules: str, namespace: str = "") -> None:
        self.ask("PUT", f"sys/policies/acl/{name}", {"policy": rules}, namespace)

    def token(self, policy: str, ttl: str = "1h", namespace: str = "", **more) -> str:
        """A token with this policy; marked."""
        body = {"policies": [policy], "ttl": ttl, **more}
        made = self.ask("POST", "auth/token/create", body, namespace)["auth"]["client_token"]
        return LEDGER.add("a token of Vault", made)
