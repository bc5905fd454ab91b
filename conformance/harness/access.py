"""Keys and client certificates of every kind, and the pod settings that accept them."""

from __future__ import annotations

import datetime
import os
import signal
from functools import cached_property

from . import data
from .identities import NOBODY, Caller, argon2id, sha256
from .certificates import Authority, Pair
from .leak_scanner import LEDGER
from .pod import Pod

# Prevents lockouts in tests that are not about them.
PATIENT = {"limits": {"auth_failures": 100_000}}

RO = "spiffe://conformance/ro"
RW = "spiffe://conformance/rw"


class Access:
    """The keys and certificates of one pod. A key is identified by kind and role: `plain:ro`, `sha256:rw`,
    `argon2id:ro`.
    """

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self.keys = {
            f"{kind}:{role}": LEDGER.mark(f"the {kind} {role} key")
            for kind in ("plain", "sha256", "argon2id")
            for role in ("ro", "rw")
        }
        self.wrong = LEDGER.mark("a wrong key")
        self.clients = Authority("Conformance Clients")
        self.strangers = Authority("Strangers")

    # Callers

    @property
    def ro(self) -> Caller:
        return Caller(self.keys["plain:ro"])

    @property
    def rw(self) -> Caller:
        return Caller(self.keys["plain:rw"])

    def certificate(self, *names: str, by: Authority | None = None, **more) -> Pair:
        """A client certificate; `more` are arguments of `Authority.issue`."""
        return (by or self.clients).issue(names, client=True, **{"common_name": "a client", **more})

    @cached_property
    def pairs(self) -> dict[str, Pair]:
        """Certificates by the outcome that each should have."""
        past = {"starts": -datetime.timedelta(days=2), "ends": -datetime.timedelta(minutes=1)}
        return {
            "ro": self.certificate(RO),
            "rw": self.certificate(RW),
            "unmapped": self.certificate("spiffe://conformance/other"),
            "wrong-ca": self.certificate(RW, by=self.strangers),
            "expired": self.certificate(RW, **past),
            "revoked": self.certificate(RW),
        }

    @cached_property
    def callers(self) -> dict[str, Caller]:
        """All callers by name; `x+y` presents both a certificate and a key."""
        keys, pairs = self.keys, self.pairs
        return {
            "nobody": NOBODY,
            "wrong key": Caller(self.wrong),
            "ro key": Caller(keys["plain:ro"]),
            "rw key": Caller(keys["plain:rw"]),
            "ro key, x-api-key": Caller(keys["plain:ro"], header="x-api-key"),
            "rw key, x-api-key": Caller(keys["plain:rw"], header="x-api-key"),
            "ro sha256 key": Caller(keys["sha256:ro"]),
            "rw sha256 key": Caller(keys["sha256:rw"]),
            "ro argon2id key": Caller(keys["argon2id:ro"]),
            "rw argon2id key": Caller(keys["argon2id:rw"]),
            "ro certificate": Caller(pair=pairs["ro"]),
            "rw certificate": Caller(pair=pairs["rw"]),
            "unmapped certificate": Caller(pair=pairs["unmapped"]),
            "certificate of a wrong CA": Caller(pair=pairs["wrong-ca"]),
            "expired certificate": Caller(pair=pairs["expired"]),
            "revoked certificate": Caller(pair=pairs["revoked"]),
            "ro certificate + rw key": Caller(keys["plain:rw"], pairs["ro"]),
            "rw certificate + ro key": Caller(keys["plain:ro"], pairs["rw"]),
            "rw certificate + rw key": Caller(keys["plain:rw"], pairs["rw"]),
            "rw certificate + wrong key": Caller(self.wrong, pairs["rw"]),
            "unmapped certificate + rw key": Caller(keys["plain:rw"], pairs["unmapped"]),
            "revoked certificate + rw key": Caller(keys["plain:rw"], pairs["revoked"]),
        }

    # Settings of the pod

    @property
    def environment(self) -> dict[str, str]:
        """The plain keys, under the variables that `api_key` refers to."""
        return {"KEY_RO": self.keys["plain:ro"], "KEY_RW": self.keys["plain:rw"]}

    @property
    def api_key(self) -> dict:
        keys = self.keys
        return {
            "keys": [
                "${env:KEY_RO}:ro",
                "${env:KEY_RW}:rw",
                sha256(keys["sha256:ro"]) + ":ro",
                sha256(keys["sha256:rw"]) + ":rw",
                argon2id(keys["argon2id:ro"]) + ":ro",
                argon2id(keys["argon2id:rw"]) + ":rw",
            ]
        }

    @property
    def mtls(self) -> dict:
        return {"identities": [{"san_uri": RO, "role": "ro"}, {"san_uri": RW, "role": "rw"}]}

    def tls(self, mode: str = "request", *, crl: bool = False) -> dict:
        """Settings for the server's pair and for the accepted clients."""
        self.pod.write("clients-ca.pem", self.clients.pem)
        more = {}
        if crl:
            self.pod.write("clients.crl", self.clients.crl(self.pairs["revoked"]))
            more["client_crl_files"] = ["clients.crl"]
        return {**self.pod.write_pair(), "client_auth_mode": mode, "client_auth_ca_file": "clients-ca.pem", **more}


def asking(
    pod, mode: str = "required", *args, access=None, tls=None, crls=None, mtls=True, keys=False, env=None, **auth
):
    """Starts a server that requests client certificates. `tls` replaces the mode and the CA, `crls` are the contents
    of its revocation lists, `mtls` replaces the usual identities (`False` omits them), and the rest is
    `runtime.auth`.
    """
    access = access or Access(pod)
    settings = access.tls(mode) if tls is None else {**pod.write_pair(), **tls}
    if crls is not None:
        for number, crl in enumerate(crls):
            pod.write(f"{number}.crl", crl)
        settings["client_crl_files"] = [f"{number}.crl" for number in range(len(crls))]
    if mtls:
        auth["mtls"] = access.mtls if mtls is True else mtls
    if keys:
        auth["api_key"] = access.api_key
    pod.yaml(tls=settings, runtime={"auth": auth, **PATIENT} if auth else PATIENT, datasets=[data.MEMORY])
    server = pod.serve(*args, env={**access.environment, **(env or {})})
    server.access = access
    return server


def replace(pod, server, **files: str | bytes) -> None:
    """Replaces files by rename and sends SIGHUP."""
    for name, content in files.items():
        pod.write(f"{name}.new", content)
        os.replace(pod.folder / f"{name}.new", pod.folder / name)
    server.signal(signal.SIGHUP)
