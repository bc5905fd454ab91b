"""A Kubernetes API that holds secrets, faithful as far as the store can observe: TLS by the test's authority, bearer
tokens, roles, `metav1.Status` responses, resource versions, and watches that begin, end, break and are too old.

A build of a real kube-apiserver takes minutes of Go, too long for every run.
"""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from .scripted_server import Asked, Front
from .leak_scanner import LEDGER

READER = {"get", "watch"}


def service_account_token() -> str:
    """A token as the API server creates it: a JWT, whose last part is marked."""
    claims = {
        "aud": ["https://kubernetes.default.svc"],
        "iss": "https://kubernetes.default.svc",
        "sub": "system:serviceaccount:default:spice",
        "iat": 1700000000,
        "nbf": 1700000000,
        "exp": 4102444800,
        "kubernetes.io": {"namespace": "default", "serviceaccount": {"name": "spice", "uid": "4be9"}},
    }

    def part(document: dict) -> str:
        return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")

    return f"{part({'alg': 'RS256', 'kid': 'k'})}.{part(claims)}.{LEDGER.mark('a token of a service account')}"


class Cluster:
    """One API server. Tokens map to the verbs that they may use on secrets, in every namespace."""

    def __init__(self, pair, ca_pem: str) -> None:
        self.ca_pem = ca_pem
        self.token = service_account_token()
        self.tokens: dict[str, set[str]] = {self.token: READER}
        self._secrets: dict[tuple[str, str], dict] = {}
        self._version = 1000
        self._events: list[tuple[int, str, tuple[str, str], dict]] = []
        self._changed = threading.Condition()
        self._epoch = 0  # watches of an earlier epoch end
        self._gone = False
        self.watches = 0
        self.front = Front(self.behave, pair)

    @property
    def url(self) -> str:
        return self.front.url

    def close(self) -> None:
        with self._changed:
            self.front.closing.set()
            self._changed.notify_all()
        self.front.close()

    # Contents

    def put(self, name: str, data: dict[str, str | bytes], namespace: str = "default") -> None:
        """Creates or replaces a secret."""
        coded = {
            key: base64.b64encode(value.encode() if isinstance(value, str) else value).decode()
            for key, value in data.items()
        }
        with self._changed:
            self._version += 1
            event = "MODIFIED" if (namespace, name) in self._secrets else "ADDED"
            secret = {
                "kind": "Secret",
                "apiVersion": "v1",
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "uid": "4be9-" + name,
                    "resourceVersion": str(self._version),
                    "managedFields": [{"manager": "kubectl-create", "operation": "Update", "fieldsV1": {"f:data": {}}}],
                },
                "data": coded,
                "type": "Opaque",
            }
            self._secrets[namespace, name] = secret
            self._events.append((self._version, event, (namespace, name), secret))
            self._changed.notify_all()

    def delete(self, name: str, namespace: str = "default") -> None:
        with self._changed:
            self._version += 1
            secret = self._secrets.pop((namespace, name))
            self._events.append((self._version, "DELETED", (namespace, name), secret))
            self._changed.notify_all()

    def drop_watches(self) -> None:
        """Breaks off every open watch, as when a load balancer is replaced."""
        with self._changed:
            self._epoch += 1
            self._changed.notify_all()

    def expire_watches(self) -> None:
        """Ends every open watch with 410 Gone, as after a compaction."""
        with self._changed:
            self._gone = True
            self._epoch += 1
            self._changed.notify_all()

    def rotate_token(self, file: Path) -> None:
        """Replaces the token as the kubelet does: the file has a new token, and the old one is no longer valid."""
        old, self.token = self.token, service_account_token()
        self.tokens[self.token] = self.tokens.pop(old)
        file.write_text(self.token)

    def wait_for_watch(self, count: int = 1) -> None:
        """Waits until this many watches have been opened in total."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.watches >= count, 30), f"only {self.watches} watches"

    # Access

    def kubeconfig(self, folder: Path, namespace: str = "default") -> str:
        """A kubeconfig with a token file next to it; returns its path."""
        (folder / "token").write_text(self.token)
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "c",
                    "cluster": {
                        "server": self.url,
                        "certificate-authority-data": base64.b64encode(self.ca_pem.encode()).decode(),
                    },
                }
            ],
            "users": [{"name": "u", "user": {"tokenFile": str(folder / "token")}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
            "current-context": "x",
        }
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(document))
        return str(path)

    def service_account(self, folder: Path, namespace: str = "default") -> dict[str, str]:
        """Creates the mounts of a pod; returns its variables."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "token").write_text(self.token)
        (folder / "ca.crt").write_text(self.ca_pem)
        (folder / "namespace").write_text(namespace)
        return {"KUBERNETES_SERVICE_HOST": "localhost", "KUBERNETES_SERVICE_PORT": str(self.front.port)}

    # Responses

    def behave(self, asked: Asked) -> None:
        url = urlsplit(asked.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        parts = url.path.strip("/").split("/")
        if asked.command == "POST" and url.path == "/apis/authentication.k8s.io/v1/tokenreviews":
            return self._review(asked)
        verbs = self.tokens.get(asked.headers.get("Authorization", "").removeprefix("Bearer "))
        if verbs is None:
            return _status(asked, 401, "Unauthorized", "Unauthorized")
        if parts[:3] != ["api", "v1", "namespaces"] or len(parts) not in (5, 6) or parts[4] != "secrets":
            return _status(asked, 404, "NotFound", "the server could not find the requested resource")
        namespace, name = parts[3], parts[5] if len(parts) == 6 else None
        selected = query.get("fieldSelector", "").removeprefix("metadata.name=") or None
        verb = "get" if name else "watch" if query.get("watch") in ("1", "true") else "list"
        if verb not in verbs:
            what = f'secrets "{name}"' if name else "secrets"
            message = (
                f'{what} is forbidden: User "system:serviceaccount:default:spice" cannot {verb} resource "secrets" in '
                f'API group "" in the namespace "{namespace}"'
            )
            return _status(asked, 403, "Forbidden", message)
        if verb == "get":
            with self._changed:
                secret = self._secrets.get((namespace, name))
            if secret is None:
                return _status(asked, 404, "NotFound", f'secrets "{name}" not found')
            return asked.answer(200, json.dumps(secret).encode())
        if verb == "watch":
            return self._watch(asked, (namespace, selected), query)
        with self._changed:
            items = [s for (ns, n), s in self._secrets.items() if ns == namespace and selected in (None, n)]
            listed = {"kind": "SecretList", "metadata": {"resourceVersion": str(self._version)}, "items": items}
        return asked.answer(200, json.dumps(listed).encode())

    def _watch(self, asked: Asked, which, query) -> None:
        with self._changed:
            epoch, self._gone = self._epoch, False
            self.watches += 1
            self._changed.notify_all()
            start = query.get("resourceVersion", "")
            if start in ("", "0"):
                seen = self._version
                first = [("ADDED", s) for key, s in self._secrets.items() if _matches(key, which)]
            else:
                seen, first = int(start), []
        asked.begin_chunks()
        for kind, secret in first:
            asked.chunk(_line(kind, secret))
        end = threading.Event()
        timer = threading.Timer(float(query.get("timeoutSeconds", "3600")), end.set)
        timer.daemon = True
        timer.start()
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._version > seen or self._epoch != epoch or self.front.closing.is_set() or end.is_set(), 1
                )
                events = [e for e in self._events if e[0] > seen]
                seen = max(seen, self._version)
                over, gone = self._epoch != epoch or self.front.closing.is_set(), self._gone
            for _, kind, key, secret in events:
                if _matches(key, which):
                    asked.chunk(_line(kind, secret))
            if over and gone:
                message = "too old resource version"
                asked.chunk(_line("ERROR", _body(410, "Expired", message)))
                asked.chunk(b"")
                return
            if over:
                asked.close_connection = True
                asked.connection.close()
                return
            if end.is_set():
                asked.chunk(b"")
                return

    def _review(self, asked: Asked) -> None:
        """TokenReview, which Vault's Kubernetes login calls."""
        spec = json.loads(asked.body)["spec"]
        good = spec["token"] == self.token
        status = {"authenticated": good, "audiences": spec.get("audiences", ["https://kubernetes.default.svc"])}
        if good:
            status["user"] = {
                "username": "system:serviceaccount:default:spice",
                "uid": "4be9",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"],
            }
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}
        asked.answer(201, json.dumps(body).encode())


def in_a_pod(folder: Path) -> list[str]:
    """The prefix of a command that mounts this directory as its service account. Skips if the user may not create a
    mount namespace.
    """
    script = (
        "mount -t tmpfs none /run && mkdir -p /run/secrets/kubernetes.io/serviceaccount && "
        'mount --bind "$0" /run/secrets/kubernetes.io/serviceaccount && exec "$@"'
    )
    wrap = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, str(folder)]
    folder.mkdir(parents=True, exist_ok=True)
    tried = subprocess.run([*wrap, "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"no mount namespace here, so no service account where a pod has it: {tried.stderr.strip()}")
    return wrap


def _matches(key, which) -> bool:
    return key[0] == which[0] and which[1] in (None, key[1])


def _line(kind: str, thing: dict) -> bytes:
    return json.dumps({"type": kind, "object": thing}).encode() + b"\n"


def _body(code: int, reason: str, message: str) -> dict:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


def _status(asked: Asked, code: int, reason: str, message: str) -> None:
    asked.answer(code, json.dumps(_body(code, reason, message)).encode())
