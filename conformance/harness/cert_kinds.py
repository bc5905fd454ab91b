"""A server for each kind of certificate that clients treat differently."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .certificates import Authority, Pair, self_signed
from .pod import Pod
from .server import Server


def _issued(kind: str):
    return lambda pod: (pod.ca.issue(kind=kind), pod.ca_file)


def _with_intermediate(pod: Pod):
    return Authority("Conformance Intermediate", pod.ca).issue(), pod.ca_file


def _self_signed(pod: Pod):
    pair = self_signed()
    return pair, str(pod.write("own.pem", pair.certificate))


def _as_the_reference_makes_it(pod: Pod):
    """No subject alternative name, and CA:TRUE."""
    pair = Authority("localhost").as_leaf()
    return pair, str(pod.write("own.pem", pair.certificate))


def _another_name(pod: Pod):
    return pod.ca.issue(names=("spice.internal",), common_name="spice.internal"), pod.ca_file


# The certificate that is served, and the CA file for its clients.
KINDS: dict[str, Callable[[Pod], tuple[Pair, str]]] = {
    "RSA 2048": _issued("rsa2048"),
    "RSA 3072": _issued("rsa3072"),
    "P-256": _issued("p256"),
    "P-384": _issued("p384"),
    "Ed25519": _issued("ed25519"),
    "intermediate": _with_intermediate,
    "self-signed": _self_signed,
    "no SAN": _as_the_reference_makes_it,
}
_ALL = {**KINDS, "another name": _another_name}


class Certified:
    """One server per kind, started on first use."""

    def __init__(self, new_folder: Callable[[], Path]) -> None:
        self._new_folder = new_folder
        self._pods: dict[str, Pod] = {}

    def __call__(self, kind: str) -> Server:
        if kind not in self._pods:
            pod = self._pods[kind] = Pod(self._new_folder())
            pair, trusted = _ALL[kind](pod)
            pod.yaml(tls=pod.write_pair(pair))
            pod.serve().ca = trusted
        return self._pods[kind].servers[0]

    def close(self) -> None:
        for pod in self._pods.values():
            pod.close()
