"""Paths of files that are not regular: FIFOs without a writer, sockets, symbolic links in a cycle. Each is an error
within seconds that names the file, at startup and from the doctor.
"""

from __future__ import annotations

import json
import os
import socket
import time

import pytest

from harness.commands import run

# The program waits 5 s for the writer of a FIFO; the rest is a margin for a slow machine.
WITHIN = 15


def _checked(pod, *words) -> str:
    """Returns the doctor's output, which must arrive within the time allowed for a FIFO."""
    began = time.monotonic()
    done = run(pod, "tls", "check", "--json", *words, pod.folder, code=None)
    assert time.monotonic() - began < WITHIN, "it waited for a writer"
    assert done.returncode in (1, 78), done.returncode
    return " ".join(f"{one['message']} {one['fix']}" for one in json.loads(done.stdout)["findings"])


def test_fifos_of_stores(pod):
    """`.env` and a file of the `file:` store are read concurrently, and each is reported as a separate error."""
    (pod.folder / "secrets").mkdir(parents=True)
    fifos = [pod.folder / ".env", pod.folder / "secrets/key"]
    for fifo in fifos:
        os.mkfifo(fifo)
    (pod.folder / "spicepod.yaml").write_text(
        "version: v1\nkind: Spicepod\nname: t\nsecrets: [{name: s, from: 'file:secrets'}]\n"
        "runtime: {tls: {certificate: '${env:CERT}', key: '${s:key}'}}\n"
    )
    said = _checked(pod)
    assert said.count("it is a FIFO, and nobody wrote into it") == 2, said
    assert all(str(fifo) in said for fifo in fifos), said


@pytest.mark.parametrize("setting", ["client_auth_ca_file", "client_crl_files"])
def test_fifos_of_client_certificates(pod, setting):
    pod.write("ca.pem", pod.ca.pem)
    files = {"client_auth_ca_file": "ca.pem"} | {setting: ["fifo"] if setting.endswith("files") else "fifo"}
    os.mkfifo(pod.folder / "fifo")
    pod.yaml(tls={**pod.write_pair(), "client_auth_mode": "request", **files})
    assert "it is a FIFO, and nobody wrote into it" in _checked(pod)


def test_a_fifo_with_a_writer_is_read(pod):
    """As with `<(…)` in a shell: `.env` is read once and provides every key."""
    pod.yaml(tls={"certificate": "${env:CERT}", "key": "${env:KEY}"})
    os.mkfifo(pod.folder / ".env")
    server = pod.serve(wait=False)
    with (pod.folder / ".env").open("w") as writer:
        writer.write(f'CERT="{pod.pair.certificate}"\nKEY="{pod.pair.key_text}"\n')
    server.wait_until_serving()


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda path: _socket(path), "it is a socket"),
        (lambda path: _circle(path), "its links form a cycle"),
        (lambda path: path.write_bytes(bytes(1 << 21)), "bytes are the most that is read"),
        (lambda path: path.mkdir(), "it is a directory"),
    ],
    ids=["socket", "circle", "size", "directory"],
)
def test_irregular_files(pod, make, said):
    """The same reader is used for the certificate, `.env` and a file of a store."""
    pod.yaml(tls=pod.write_pair())
    (pod.folder / "tls.crt").unlink()
    make(pod.folder / "tls.crt")
    assert said in _checked(pod)
    make(pod.folder / ".env")
    (pod.folder / "spicepod.yaml").write_text(
        "version: v1\nkind: Spicepod\nname: t\nruntime: {tls: {certificate: '${env:CERT}', key: '${env:KEY}'}}\n"
    )
    found = _checked(pod)
    assert said in found and found.count(said) == 1, f"one cause, reported once: {found}"


def _socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        here = os.open(path.parent, os.O_RDONLY)
        try:
            # The path of a socket has at most 108 bytes.
            made.bind(f"/proc/self/fd/{here}/{path.name}")
        finally:
            os.close(here)


def _circle(path):
    other = path.with_name(f"{path.name}.other")
    path.symlink_to(other)
    other.symlink_to(path)
