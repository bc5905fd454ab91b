"""Tests manifests without a cluster: kubectl and helm render them, their schemas validate them, and bubblewrap replaces
the kubelet with its volumes, user, read-only root, environment and probes."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from . import clients
from .drivers.driver import program
from .pod import Pod
from .server import Server, binary
from .waiting import DEADLINE

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "kubernetes"
CHART = DEPLOY / "helm/spiced"


# Manifests


def tool(name: str) -> str:
    """helm or kubectl, as `cargo xtask clients` installs it."""
    return str(Path(program("SPICED_CLIENT_KUBERNETES"), "layer", name, name))


def run(*words, code: int = 0, send: str = "", **env: str) -> subprocess.CompletedProcess:
    """Runs a tool to its end, without a cluster and without the caller's home directory."""
    kept = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBECONFIG": "/dev/null", **env}
    done = subprocess.run([str(w) for w in words], input=send, capture_output=True, text=True, timeout=DEADLINE, env=kept)
    assert done.returncode == code, f"{shlex.join(map(str, words))} ended with {done.returncode}: {done.stderr}{done.stdout}"
    return done


def objects(text: str) -> list[dict]:
    return [document for document in yaml.safe_load_all(text) if document]


def kustomized(folder: Path, *components: str, **more) -> list[dict]:
    """Renders deploy/kubernetes with these components, through a kustomization in a directory; `more` is its
    further content.
    """
    if not components and not more:
        return objects(run(tool("kubectl"), "kustomize", BASE).stdout)
    folder.mkdir(exist_ok=True)
    base = os.path.relpath(BASE, folder.resolve())
    said = {"resources": [base], "components": [f"{base}/components/{name}" for name in components], **more}
    (folder / "kustomization.yaml").write_text(yaml.dump(said))
    return objects(run(tool("kubectl"), "kustomize", folder).stdout)


def templated(*words, release: str = "spiced", namespace: str = "default") -> list[dict]:
    """Renders the chart, with these arguments of `helm template`."""
    return objects(run(tool("helm"), "template", release, CHART, "--namespace", namespace, *words).stdout)


def complaints(manifests: list[dict]) -> list[str]:
    """The violations of the schemas of Kubernetes, cert-manager and the Prometheus operator."""
    script = ROOT / "conformance/clients/kubernetes/validate.mjs"
    folder = program("SPICED_CLIENT_KUBERNETES")
    return run(clients.optional_tool("node"), script, send=json.dumps(manifests), SPICED_CLIENT_KUBERNETES=folder).stdout.splitlines()


def only(manifests: list[dict], kind: str, name: str | None = None) -> dict:
    """The single object of this kind (and name)."""
    found = [o for o in manifests if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} objects of {kind} {name or ''}"
    return found[0]


def image() -> dict[str, str]:
    """The properties of the running program that the container file defines."""
    text = (DEPLOY / "container/Containerfile").read_text()
    final = text[text.rindex("\nFROM ") :].replace("\\\n", " ")
    return {
        "user": re.search(r"^USER (\d+):", final, re.MULTILINE).group(1),
        "env": re.search(r"^ENV (.*)$", final, re.MULTILINE).group(1),
        "entry": re.search(r'^ENTRYPOINT \["(.*)"\]', final, re.MULTILINE).group(1),
        "words": re.search(r"^CMD \[(.*)\]", final, re.MULTILINE).group(1),
    }


# The kubelet

# The port of an address on all interfaces.
_PORT = re.compile(r"(?:(?<=0\.0\.0\.0)|(?<=\[::\])):\d+\b")


def innermost(pid: int) -> int:
    """The process at the end of a chain of wrappers."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return innermost(int(children[0])) if children else pid


class Contained(Server):
    """A server whose process runs under wrappers: signals go to the program itself, as with a container engine."""

    def signal(self, number: signal.Signals) -> None:
        os.kill(innermost(self.process.pid), number)


class Container:
    """The container of a Deployment. `secrets` are the cluster's, by name; those among the manifests are added.

    The ports differ from those in the manifest, so that tests can run in parallel.
    """

    _versions = itertools.count(1)

    def __init__(self, pod: Pod, manifests: list[dict], secrets: dict[str, dict[str, str]]) -> None:
        self._pod = pod
        self.spec = only(manifests, "Deployment")["spec"]["template"]["spec"]
        (self.container,) = self.spec["containers"]
        self._secrets = {
            o["metadata"]["name"]: {key: base64.b64decode(value).decode() for key, value in o["data"].items()}
            for o in manifests
            if o["kind"] == "Secret"
        } | secrets
        self._maps = {o["metadata"]["name"]: o["data"] for o in manifests if o["kind"] == "ConfigMap"}
        self.env: dict[str, str] = {}
        self.mounts: dict[str, Path] = {}
        self._root = pod.home / f"container-{next(self._versions)}"
        for mount in self.container["volumeMounts"]:
            (volume,) = (v for v in self.spec["volumes"] if v["name"] == mount["name"])
            folder = self._root / volume["name"]
            folder.mkdir(parents=True)
            self.mounts[mount["mountPath"]] = folder
            self._fill(volume, folder)

    # Volumes

    def _fill(self, volume: dict, folder: Path) -> None:
        if secret := volume.get("secret"):
            data = self._secrets[secret["secretName"]]
            paths = {item["key"]: item["path"] for item in secret.get("items", ())} or {key: key for key in data}
            self._write(folder, {path: data[key] for key, path in paths.items()}, secret.get("defaultMode", 0o644))
        elif config := volume.get("configMap"):
            data = {key: _PORT.sub(":0", text) for key, text in self._maps[config["name"]].items()}
            self._write(folder, data, config.get("defaultMode", 0o644))
        else:
            assert "emptyDir" in volume, volume
            self._give(folder, 0o777)

    def _write(self, folder: Path, data: dict[str, str], mode: int) -> None:
        """Writes as the kubelet's atomic writer does: a directory per version, a renamed `..data`, and links through
        it.
        """
        version = f"..{next(self._versions)}"
        (folder / version).mkdir()
        self._give(folder / version, 0o755)
        for name, text in data.items():
            (folder / version / name).write_text(text)
            self._give(folder / version / name, mode | 0o440 if "fsGroup" in self.spec["securityContext"] else mode)
            if not (folder / name).is_symlink():
                os.symlink(f"..data/{name}", folder / name)
        os.symlink(version, folder / "..data_tmp")
        os.replace(folder / "..data_tmp", folder / "..data")

    def _give(self, path: Path, mode: int) -> None:
        path.chmod(mode)
        if os.getuid() == 0:
            os.chown(path, 0, self.spec["securityContext"].get("fsGroup", 0))

    def update(self, secret: str, data: dict[str, str]) -> None:
        """Changes a secret, and the volumes that hold it."""
        self._secrets[secret] = data
        for mount in self.container["volumeMounts"]:
            (volume,) = (v for v in self.spec["volumes"] if v["name"] == mount["name"])
            if volume.get("secret", {}).get("secretName") == secret:
                self._fill(volume, self.mounts[mount["mountPath"]])

    # The process

    def _jail(self) -> list[str]:
        security = self.spec["securityContext"]
        user, group = str(security["runAsUser"]), str(security["runAsGroup"])
        words = [clients.tool("bwrap"), "--ro-bind", "/usr", "/usr", "--tmpfs", "/usr/local", "--dev", "/dev", "--proc", "/proc"]
        for link in ("bin", "lib", "lib64"):
            words += ["--symlink", f"usr/{link}", f"/{link}"]
        parents = {str(parent) for path in self.mounts for parent in Path(path).parents} | {"/etc", "/usr/local/bin"}
        for folder in sorted(parents - {"/"}):
            words += ["--perms", "0755", "--dir", folder]
        words += ["--ro-bind", "/etc/hosts", "/etc/hosts", "--ro-bind", binary(), image()["entry"]]
        for path, folder in self.mounts.items():
            mount = next((m for m in self.container["volumeMounts"] if m["mountPath"] == path), {"readOnly": True})
            words += ["--ro-bind" if mount.get("readOnly") else "--bind", str(folder), path]
        words += ["--remount-ro", "/", "--remount-ro", "/usr/local", "--die-with-parent"]
        if os.getuid() == 0:
            groups = str(security.get("fsGroup", group))
            drop = ["setpriv", "--reuid", user, "--regid", group, "--groups", groups, "--no-new-privs", "--bounding-set=-all"]
            words += ["--", *drop, "--inh-caps=-all"]
        else:  # without permission to change owners, all files belong to the program's user
            words += ["--unshare-user", "--uid", user, "--gid", group, "--"]
        tried = subprocess.run([*words, "sh", "-c", "touch /x /etc/x /usr/local/x 2>&1; id -u"], capture_output=True, text=True)
        if tried.returncode != 0:
            pytest.skip(f"no container here: {tried.stderr.strip()}")
        assert tried.stdout.count("cannot touch") == 3 and tried.stdout.endswith(f"{user}\n"), tried
        return words

    def environment(self) -> dict[str, str]:
        env = dict(pair.split("=", 1) for pair in image()["env"].split())
        for said in self.container.get("env", ()):
            if "value" in said:
                env[said["name"]] = said["value"]
            else:
                source = said["valueFrom"]["secretKeyRef"]
                env[said["name"]] = self._secrets[source["name"]][source["key"]]
        env = {name: _PORT.sub(":0", value) for name, value in env.items()}
        return {"PATH": os.environ["PATH"], **env, **self.env}

    def serve(self, wait: bool = True, delay: bool = False) -> Contained:
        """Without `delay` it stops immediately, so that tests end."""
        words = [*self._jail(), image()["entry"], *self.container["args"]]
        env = self.environment() | ({} if delay else {"SPICED_RUNTIME__SHUTDOWN_DELAY": "0s"})
        server = Contained(words, cwd=self._pod.cwd, env=env, ca=self._pod.ca_file)
        self._pod.servers.append(server)
        return server.wait_until_serving() if wait else server

    def run(self, *words: str, code: int = 0) -> str:
        """Runs another command of the program in the same container."""
        words = [*self._jail(), image()["entry"], *words]
        done = subprocess.run(words, env=self.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE)
        assert done.returncode == code, f"ended with {done.returncode}: {done.stderr}{done.stdout}"
        return done.stdout

    # Probes

    def probe(self, server: Server, kind: str) -> int:
        """The status of a probe as defined in the manifest; the kubelet accepts 200 to 399 as success, and any
        certificate.
        """
        get = self.container[f"{kind}Probe"]["httpGet"]
        scheme = get.get("scheme", "HTTP").lower()
        url = f"{scheme}://127.0.0.1:{server.port(get['port'])}{get['path']}"
        return clients.curl(url, *(["-k"] if scheme == "https" else [])).status

    def grpc_probe(self, server: Server, port: str = "probe") -> str:
        """`grpc: { port: … }`: the kubelet probes in plain text."""
        with grpc.insecure_channel(f"127.0.0.1:{server.port(port)}", [("grpc.enable_http_proxy", 0)]) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
