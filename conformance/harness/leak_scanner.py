"""The ledger of secrets, which must never appear in anything that `spiced` prints or sends.

Every private key that the suite creates is registered here, as is every marked value. When a server ends, its
complete output is checked against the ledger.
"""

from __future__ import annotations

import base64
import re
import uuid

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa


class Ledger:
    """The secrets, each with a description."""

    def __init__(self) -> None:
        self._needles: dict[str, str] = {}

    def mark(self, what: str) -> str:
        """A fresh value that must not appear anywhere."""
        value = f"mark{uuid.uuid4().hex}"
        self._needles[value] = what
        return value

    def add(self, what: str, value: str) -> str:
        """Registers a value that was created elsewhere and must not appear."""
        self._needles[value] = what
        return value

    def add_key(self, key: object) -> None:
        """The private part of a key: in base64 as each PEM form would show it, and in hex."""
        private = _private_bytes(key)
        self._needles[private[:16].hex()] = "a private key in hex"
        for der in _encodings(key):
            at = der.index(private)
            start = -(-at // 3) * 4  # the first base64 character that holds nothing else
            self._needles[base64.b64encode(der).decode()[start : start + 24]] = "a private key in base64"

    def found_in(self, text: str | bytes) -> list[str]:
        """The descriptions of the secrets that the text contains, regardless of line breaks."""
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        flat = re.sub(r"\\n|\\r|\s", "", text)
        return sorted({what for needle, what in self._needles.items() if needle in flat})

    def assert_clean(self, text: str | bytes, where: str) -> None:
        """Fails if the text contains a secret; does not repeat the secret itself."""
        found = self.found_in(text)
        assert not found, f"{where} shows {', '.join(found)}"


LEDGER = Ledger()


def _private_bytes(key: object) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        number = key.private_numbers().d
        return number.to_bytes((number.bit_length() + 7) // 8, "big")
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.private_numbers().private_value.to_bytes((key.curve.key_size + 7) // 8, "big")
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    return key.private_bytes_raw()


def _encodings(key) -> list[bytes]:
    formats = [serialization.PrivateFormat.PKCS8]
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        formats.append(serialization.PrivateFormat.TraditionalOpenSSL)
    return [key.private_bytes(serialization.Encoding.DER, f, serialization.NoEncryption()) for f in formats]
