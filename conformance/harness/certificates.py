"""A certificate authority for one test: leaf certificates of every key kind, chains, and deformed PEM."""

from __future__ import annotations

import base64
import datetime
import ipaddress
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .leak_scanner import LEDGER

LOCAL = ("localhost", "127.0.0.1", "::1")
_SERVER = ExtendedKeyUsageOID.SERVER_AUTH

_KINDS = {
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa3072": lambda: rsa.generate_private_key(65537, 3072),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}

# The DER of the curve's name, which `openssl ecparam -genkey` writes before the key (RFC 5915 §4).
_EC_PARAMETERS = {"secp256r1": "BggqhkjOPQMBBw==", "secp384r1": "BgUrgQQAIg=="}


def make_key(kind: str = "p256"):
    """A private key, registered in the ledger."""
    key = _KINDS[kind]()
    LEDGER.add_key(key)
    return key


def key_pem(key, form: str = "pkcs8", passphrase: bytes | None = None) -> str:
    """The key as `pkcs8`, `pkcs1`, `sec1`, or `sec1-params` (with an EC PARAMETERS block before it)."""
    private = serialization.PrivateFormat
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    layout = private.PKCS8 if form == "pkcs8" else private.TraditionalOpenSSL
    pem = key.private_bytes(serialization.Encoding.PEM, layout, encryption).decode()
    if form == "sec1-params":
        name = _EC_PARAMETERS[key.curve.name]
        pem = f"-----BEGIN EC PARAMETERS-----\n{name}\n-----END EC PARAMETERS-----\n{pem}"
    return pem


def certificate_pem(*certificates: x509.Certificate) -> str:
    """The certificates, concatenated."""
    return "".join(c.public_bytes(serialization.Encoding.PEM).decode() for c in certificates)


@dataclass
class Pair:
    """A leaf, its key, and the intermediates between it and the root."""

    leaf: x509.Certificate
    key: object
    intermediates: list[x509.Certificate] = field(default_factory=list)

    @property
    def der(self) -> bytes:
        return self.leaf.public_bytes(serialization.Encoding.DER)

    @property
    def certificate(self) -> str:
        """The leaf and its intermediates, in order."""
        return certificate_pem(self.leaf, *self.intermediates)

    @property
    def key_text(self) -> str:
        return key_pem(self.key)

    @property
    def fingerprint(self) -> str:
        return self.leaf.fingerprint(hashes.SHA256()).hex()

    @property
    def common_name(self) -> str:
        return self.leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value


class Authority:
    """A root, or an intermediate below one."""

    def __init__(self, name: str = "Conformance Root", parent: Authority | None = None, **life) -> None:
        """`starts` and `ends` are relative to now, as in `issue`."""
        self.parent = parent
        self.key = make_key()
        issuer = parent.name if parent else None
        self.certificate = _sign(name, self.key, parent or self, issuer_name=issuer, ca=True, **life)

    @property
    def name(self) -> x509.Name:
        return self.certificate.subject

    @property
    def pem(self) -> str:
        return certificate_pem(self.certificate)

    def as_leaf(self) -> Pair:
        """The authority's own certificate as a server's: CA:TRUE, and no SAN."""
        return Pair(self.certificate, self.key)

    def issue(
        self,
        names=LOCAL,
        *,
        common_name: str = "localhost",
        kind: str = "p256",
        starts: datetime.timedelta = -datetime.timedelta(hours=1),
        ends: datetime.timedelta = datetime.timedelta(days=90),
        client: bool = False,
    ) -> Pair:
        """A leaf for a server or a client; `starts` and `ends` are relative to now. A name may be a URI."""
        key = make_key(kind)
        use = ExtendedKeyUsageOID.CLIENT_AUTH if client else _SERVER
        leaf = _sign(common_name, key, self, issuer_name=self.name, names=names, starts=starts, ends=ends, use=use)
        intermediates = []
        step = self
        while step.parent is not None:
            intermediates.append(step.certificate)
            step = step.parent
        return Pair(leaf, key, intermediates)

    def crl(
        self,
        *revoked: Pair,
        starts: datetime.timedelta = -datetime.timedelta(hours=1),
        ends: datetime.timedelta = datetime.timedelta(days=1),
        number: int = 1,
        form: str = "pem",
    ) -> bytes:
        """The revocation list of this authority, as `pem` or `der`; `starts` and `ends` are relative to now."""
        now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(now + starts)
            .next_update(now + ends)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .add_extension(x509.CRLNumber(number), critical=False)
        )
        for pair in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(pair.leaf.serial_number).revocation_date(now + starts)
            builder = builder.add_revoked_certificate(entry.build())
        encoding = serialization.Encoding.PEM if form == "pem" else serialization.Encoding.DER
        return builder.sign(self.key, _digest(self.key)).public_bytes(encoding)


def self_signed(names=LOCAL, *, common_name: str = "localhost", kind: str = "p256") -> Pair:
    """A self-signed certificate with SANs and without CA:TRUE."""
    key = make_key(kind)
    name = _name(common_name)
    certificate = _builder(name, name, key, names, datetime.timedelta(hours=-1), datetime.timedelta(days=90), False)
    return Pair(certificate.sign(key, _digest(key)), key)


def _sign(common_name, key, by, *, issuer_name=None, names=(), ca=False, starts=None, ends=None, use=_SERVER):
    subject = _name(common_name)
    starts = starts if starts is not None else datetime.timedelta(hours=-2)
    ends = ends if ends is not None else datetime.timedelta(days=365)
    signer = by.key
    builder = _builder(subject, issuer_name or subject, key, names, starts, ends, ca, signer, use)
    return builder.sign(signer, _digest(signer))


def _name(common_name: str) -> x509.Name:
    """A subject; ` + ` parts several common names."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common_name.split(" + ")])


def _digest(key):
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def _builder(subject, issuer, key, names, starts, ends, ca, signer=None, use=_SERVER):
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + starts)
        .not_valid_after(now + ends)
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key((signer or key).public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=ca,
                crl_sign=ca,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(n) for n in names]), critical=False)
    return builder


def _general_name(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


# The ways in which shells, editors and secret stores deform PEM.
DEFORMED = {
    "literal-newlines": lambda pem: pem.replace("\n", "\\n"),
    "newlines-to-blanks": lambda pem: pem.replace("\n", " ").strip(),
    "crlf": lambda pem: pem.replace("\n", "\r\n"),
    "bom": lambda pem: "\ufeff" + pem,
    "text-before-begin": lambda pem: "Bag Attributes\n    friendlyName: spice\nsubject=CN = localhost\n\n" + pem,
    "base64-once-more": lambda pem: base64.b64encode(pem.encode()).decode(),
    "base64-once-more-wrapped": lambda pem: base64.encodebytes(pem.encode()).decode(),
}
