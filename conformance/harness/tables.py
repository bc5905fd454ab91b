"""The tables of docs/clients.md: their rows and columns, in display order."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from .drivers import DRIVERS
from .proxies import PROXIES


@dataclass(frozen=True)
class Table:
    rows: list[str]
    columns: list[str]
    # Cells that are impossible with any server: (row, column) and the reason.
    lacks: dict[tuple[str, str], str] = field(default_factory=dict)


# Outcomes of the reference's examples other than "as printed".
NEAREST, NOT_BUILT = "the nearest form ([errata](errata.md))", "not built yet: refused"


def reference(example: str, *, answer: str = "as printed", **more):
    """Marks a test that runs an example of the reference."""
    return pytest.mark.feature("reference", example, "outcome", answer=answer, **more)


_CLIENTS = [driver.name for driver in DRIVERS]

TABLES = {
    "clients": Table(
        _CLIENTS,
        [
            "over TLS",
            "plain text",
            "parameters",
            "reports bad SQL",
            "large answer",
            "refuses a wrong CA",
            "refuses a wrong name",
            "reports that the endpoint speaks TLS",
            "fails on a plain endpoint",
        ],
        {(driver.name, column): why for driver in DRIVERS for column, why in driver.lacks.items()},
    ),
    "certificates": Table(
        [*_CLIENTS, "grpcio"],
        ["RSA 2048", "RSA 3072", "P-256", "P-384", "Ed25519", "intermediate", "self-signed", "no SAN"],
    ),
    "grpc": Table(
        ["grpcio", "grpc-go"],
        [
            "health over TLS",
            "health in plain text",
            "reflection",
            "refuses a wrong CA",
            "refuses a wrong name",
            "reports that the endpoint speaks TLS",
        ],
    ),
    "h2load": Table(["h2load"], ["h2 over TLS", "h1 over TLS", "h2 in plain text", "h1 in plain text"]),
    "proxies": Table(
        [proxy.name for proxy in PROXIES],
        [
            "HTTP",
            "large HTTP answer",
            "gRPC health",
            "Flight",
            "large Flight answer",
            "refuses a wrong CA",
            "refuses a wrong name",
            "checks client certificates",
        ],
    ),
    "reference": Table(
        [
            "Method 1: certificate files",
            "Method 2: inline certificates",
            "Method 3: paths from secrets",
            "Method 3: content from secrets",
            "Method 4: flags with files",
            "Method 4: flags with text",
            "Configuration priority",
            "Key kinds: RSA, ECDSA, Ed25519",
            "Certificate types: self-signed, CA-signed, chains",
            "Self-signed certificate",
            "Let's Encrypt: certbot",
            "Let's Encrypt: the pod",
            "HTTP: curl without TLS",
            "HTTP: curl with TLS",
            "HTTP: curl -k",
            "Flight SQL: pyarrow without TLS",
            "Flight SQL: pyarrow with TLS",
            "Flight SQL: pyarrow, self-signed",
            "gRPC: Go",
            "Kubernetes: kubectl, Deployment",
            "Kubernetes: the pod",
            "Environment variables",
            "AWS Secrets Manager",
            "Complete configuration",
            "Secure private keys: chmod",
            "Secure private keys: chown",
            "Expiration: openssl x509",
            "TLS for all environments: development",
            "TLS for all environments: production",
            "Combined with authentication",
            "Client certificates: nginx",
            "Trust store: Linux",
            "Trust store: macOS",
            "Key formats: openssl rsa",
            "Chain: cat server and intermediate",
            "Checking: curl -v",
            "Checking: openssl s_client",
            "Checking: openssl x509",
        ],
        ["outcome"],
        {
            ("Let's Encrypt: certbot", "outcome"): "not run: it needs a public domain and the Internet",
            ("Kubernetes: kubectl, Deployment", "outcome"): "not run: it needs a cluster, and the Deployment as printed has "
            "neither selector nor labels ([errata](errata.md))",
            ("Secure private keys: chown", "outcome"): "not run: it needs a user named spice",
            ("Trust store: macOS", "outcome"): "not run: the suite runs on Linux",
        },
    ),
}
