"""Each page of docs/secrets: its commands run as printed, and its pod is served."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from harness import clients, pages
from harness.cluster import Cluster
from harness.leak_scanner import LEDGER
from harness.stores import BIN, Bao, Moto, aws_environment
from harness.waiting import DEADLINE


def run(script: str, folder, **env: str) -> str:
    """Runs a page's commands in a shell, in the pod's directory, which contains tls.crt and tls.key."""
    path = f"{folder}/bin:{BIN}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={"PATH": path, "HOME": str(folder), **env},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def files(pod):
    """The two files that the pages start from."""
    pod.write("tls.crt", pod.pair.certificate)
    pod.write("tls.key", pod.pair.key_text)
    return pod.folder


def test_env(pod, files):
    [script] = pages.blocks("secrets/env.md", "sh")
    shown = run(script + '\nprintf "%s\\0%s" "$SPICE_TLS_CERT" "$SPICE_TLS_KEY"', files)
    certificate, key = shown.split("\0")
    [text] = pages.pods("secrets/env.md")
    pod.write("spicepod.yaml", text)
    clients.assert_serves(pod.serve(env={"SPICE_TLS_CERT": certificate, "SPICE_TLS_KEY": key}), pod.pair)


def test_file(pod, files):
    [script] = pages.blocks("secrets/file.md", "sh")
    run(script, files)
    [text] = pages.pods("secrets/file.md")
    pod.write("spicepod.yaml", text)
    clients.assert_serves(pod.serve(), pod.pair)


def test_kubernetes(pod):
    """`kubectl create secret tls` creates these two keys; another test checks that the Role suffices."""
    cluster = Cluster(pod.ca.issue(), pod.ca.pem)
    try:
        cluster.put("spice-tls-cert", {"tls.crt": pod.pair.certificate, "tls.key": pod.pair.key_text})
        [text] = pages.pods("secrets/kubernetes.md")
        pod.write("spicepod.yaml", text)
        clients.assert_serves(pod.serve(env={"KUBECONFIG": cluster.kubeconfig(pod.home)}), pod.pair)
    finally:
        cluster.close()
    objects = [d for b in pages.blocks("secrets/kubernetes.md", "yaml") for d in yaml.safe_load_all(b) if "apiVersion" in d]
    role, binding = (next(d for d in objects if d["kind"] == kind) for kind in ("Role", "RoleBinding"))
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"][0]["name"] == next(d for d in objects if d["kind"] == "ServiceAccount")["metadata"]["name"]


# Implements the `aws` commands of these pages with botocore: the AWS CLI requires another version of botocore.
AWS = """\
#!{python}
import os, sys, boto3
service, operation, *words = sys.argv[1:]
client = boto3.client(service, endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name="us-east-1")
given = {{}}
for option, value in zip(words[::2], words[1::2]):
    name = "".join(part.capitalize() for part in option.removeprefix("--").split("-"))
    given[name] = open(value.removeprefix("file://")).read() if value.startswith("file://") else value
print(getattr(client, operation.replace("-", "_"))(**given)["ARN"])
"""


@pytest.mark.parametrize("form", [0, 1], ids=["one-json-secret", "a-secret-each"])
def test_aws(pod, files, tmp_path, form):
    clients.tool("jq")
    moto = Moto(tmp_path / "moto")
    try:
        pod.write("bin/aws", AWS.format(python=sys.executable), mode=0o700)
        env = aws_environment(AWS_ENDPOINT_URL=moto.url)
        run(pages.blocks("secrets/aws.md", "sh")[form], files, **env)
        pod.write("spicepod.yaml", pages.pods("secrets/aws.md")[form])
        clients.assert_serves(pod.serve(env=env), pod.pair)
    finally:
        moto.stop()


def test_vault(pod, files, tmp_path):
    bao = Bao(tmp_path / "bao")
    try:
        pod.write("spice.hcl", pages.blocks("secrets/vault.md", "hcl")[0])
        [script] = pages.blocks("secrets/vault.md", "sh")
        env = {"BAO_ADDR": bao.url, "BAO_CACERT": bao.ca_file, "BAO_TOKEN": bao.root_token}
        # Without a terminal, `-field` prints no newline.
        role, secret = re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", run(script, files, **env))
        LEDGER.add("a secret_id of Vault", secret)
        [text] = pages.pods("secrets/vault.md")
        shutil.copy(bao.ca_file, pod.folder / "vault-ca.pem")
        pod.write("spicepod.yaml", text.replace("https://vault.example.com:8200", bao.url))
        clients.assert_serves(pod.serve(env={"VAULT_ROLE_ID": role, "VAULT_SECRET_ID": secret}), pod.pair)
    finally:
        bao.stop()


def test_keyring(pod, files):
    """The kernel's real keyring, in a separate session, so that no key remains."""
    clients.tool("keyctl")
    script = pages.blocks("secrets/keyring.md", "sh")[0].replace("@u", "@s")
    tried = subprocess.run(["keyctl", "session", "-", "keyctl", "show"], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"this sandbox has no kernel keyring: {tried.stderr.strip()}")
    pod.write("spicepod.yaml", pages.pods("secrets/keyring.md")[0])
    pod.write("keys.sh", f'cd "{files}"\n{script}\ncd - > /dev/null\nexec "$@"\n')
    wrap = ["keyctl", "session", "-", "bash", "-euo", "pipefail", str(pod.folder / "keys.sh")]
    clients.assert_serves(pod.serve(wrap=wrap), pod.pair)
    pod.write("spicepod.yaml", pages.pods("secrets/keyring.md")[0].replace("TLS_KEY", "NO_SUCH_KEY"))
    refused = subprocess.run(
        [*wrap, *pod.command([], pod.folder)], cwd=pod.cwd, env=pod.environment(), capture_output=True, text=True
    )
    assert refused.returncode == 78, refused.stderr
    assert "${keyring:NO_SUCH_KEY}: there is no `NO_SUCH_KEY`" in refused.stderr
    assert "keyring:spiced@NO_SUCH_KEY" in refused.stderr
