"""Chains of every kind that clients refuse or disagree about, each with the doctor's findings and the clients that
refuse it.

The refusals were observed with the clients themselves; `test_tls_verdicts.py` repeats those of the clients that are
installed here.
"""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage
from cryptography.x509.oid import NameOID

from . import clients
from .certificates import _general_name, certificate_pem, key_pem, make_key
from .leak_scanner import LEDGER

DAY = datetime.timedelta(days=1)
LIBSSL = "curl openssl python"
ALL = "curl openssl python go java grpcio browsers rustls"
_UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")


def but(*clients: str) -> str:
    return " ".join(client for client in ALL.split() if client not in clients)


@dataclass
class Issued:
    certificate: x509.Certificate
    key: object


@dataclass
class Chain:
    """The chain that a server presents, its key, and the root that its clients trust."""

    certificates: list[Issued]
    root: Issued
    key: object | None = None
    pem: str | None = None

    def lay(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        text = self.pem or certificate_pem(*(one.certificate for one in self.certificates))
        (folder / "tls.crt").write_text(text)
        key = self.key or self.certificates[0].key
        (folder / "tls.key").write_text(key if isinstance(key, str) else key_pem(key))
        (folder / "tls.key").chmod(0o600)
        root = self.root
        (folder / "root.pem").write_text(root if isinstance(root, str) else certificate_pem(root.certificate))


@dataclass
class Kind:
    """`code` is the doctor's finding (`None` if clients do not object), `refused` lists the clients that refuse the
    chain.
    """

    make: Callable[[], Chain]
    code: str | None = None
    refused: str = ""
    ask: str = "localhost"
    ca: bool = False  # the root is at fault, so the check needs --ca


def usages(*on: str) -> x509.KeyUsage:
    names = "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
    return x509.KeyUsage(**{name: name in on for name in f"{names} encipher_only decipher_only".split()})


def issue(
    name: str | None,
    by: Issued | None = None,
    *,
    kind: str = "p256",
    key=None,
    ca: bool = False,
    constraints: bool = True,
    path_length: int | None = None,
    usage="default",
    extended="default",
    names=("localhost", "127.0.0.1"),
    critical_names: bool = False,
    subtrees: x509.NameConstraints | None = None,
    more=(),
    authority="good",
    subject_key: bool = True,
    starts=-DAY,
    ends=60 * DAY,
    digest=None,
) -> Issued:
    """A valid certificate, except for the properties that the arguments change."""
    key = key or make_key(kind)
    subject = x509.Name([] if name is None else [x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = by.key if by else key
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    builder = x509.CertificateBuilder(
        by.certificate.subject if by else subject,
        subject,
        key.public_key(),
        x509.random_serial_number(),
        now + starts,
        now + ends,
    )
    if usage == "default":
        usage = usages("digital_signature", *(("key_cert_sign", "crl_sign") if ca else ()))
    if extended == "default":
        extended = None if ca else [Usage.SERVER_AUTH]
    if authority == "good":
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()) if by else None
    extensions = [
        (x509.BasicConstraints(ca, path_length) if constraints else None, True),
        (usage, True),
        (x509.ExtendedKeyUsage(extended) if extended else None, False),
        (
            x509.SubjectAlternativeName([n if isinstance(n, x509.GeneralName) else _general_name(n) for n in names])
            if names and not ca
            else None,
            critical_names,
        ),
        (subtrees, True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()) if subject_key else None, False),
        (authority, False),
        *more,
    ]
    for extension, critical in extensions:
        if extension is not None:
            builder = builder.add_extension(extension, critical)
    if digest is None and "ed25519" not in type(signer).__module__:
        digest = hashes.SHA256()
    return Issued(builder.sign(signer, digest), key)


_made: dict[str, Issued] = {}


def root() -> Issued:
    if "root" not in _made:
        _made["root"] = issue("Verdict Root", ca=True, starts=-400 * DAY, ends=3650 * DAY)
    return _made["root"]


def between() -> Issued:
    if "between" not in _made:
        _made["between"] = issue("Verdict Issuing CA", root(), ca=True, ends=800 * DAY)
    return _made["between"]


def leaf(**said) -> Callable[[], Chain]:
    """A leaf issued by the intermediate."""
    name = said.pop("name", "db")
    return lambda: Chain([issue(name, between(), **said), between()], root())


def below(name: str = "Fault", **said) -> Callable[[], Chain]:
    """A valid leaf of a faulty intermediate."""

    def make() -> Chain:
        issuer = issue(name, root(), **{"ca": True, "names": (), "extended": None, **said})
        return Chain([issue("db", issuer), issuer], root())

    return make


def of_root(**said) -> Callable[[], Chain]:
    """A valid chain below a faulty root."""

    def make() -> Chain:
        top = issue("Fault Root", ca=True, **said)
        issuer = issue("Below it", top, ca=True)
        return Chain([issue("db", issuer), issuer], top)

    return make


def _deep() -> Chain:
    first = issue("Path", root(), ca=True, path_length=0)
    second = issue("Below Path", first, ca=True)
    return Chain([issue("db", second), second, first], root())


def _self_signed(ca: bool) -> Chain:
    key = make_key()
    usage = usages("digital_signature", "key_cert_sign") if ca else usages("digital_signature")
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    more = [(names, False)] if ca else []
    one = issue("localhost", key=key, ca=ca, usage=usage, more=more)
    return Chain([one], one)


def _ca_as_leaf() -> Chain:
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    return Chain([issue("db", between(), ca=True, more=[(names, False)]), between()], root())


def _rsa(bits: int):
    key = load_pem_private_key(clients.openssl("genrsa", str(bits)), None)
    LEDGER.add_key(key)
    return key


def _subtrees(permitted=None, excluded=None) -> x509.NameConstraints:
    def bases(names):
        return [n if isinstance(n, x509.GeneralName) else x509.DNSName(n) for n in names] if names else None

    return x509.NameConstraints(bases(permitted), bases(excluded))


def _network(text: str) -> x509.IPAddress:
    import ipaddress

    return x509.IPAddress(ipaddress.ip_network(text))


def _by_openssl(digest: str, extensions: bool = True) -> Callable[[], Chain]:
    """Signed by openssl, because cryptography no longer supports the digest."""

    def make() -> Chain:
        import tempfile

        top, key = issue("Old Root", kind="rsa2048", ca=True), make_key("rsa2048")
        request = x509.CertificateSigningRequestBuilder().subject_name(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        )
        with tempfile.TemporaryDirectory() as folder:
            at = Path(folder)
            (at / "in").write_bytes(request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
            (at / "ca").write_text(certificate_pem(top.certificate))
            (at / "ca-key").write_text(key_pem(top.key))
            (at / "ext").write_text(
                "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n"
            )
            words = [clients.tool("openssl"), "x509", "-req", f"-{digest}", "-days", "60", "-CA", "ca", "-CAkey", "ca-key"]
            words += ["-CAcreateserial", "-in", "in", "-out", "out", *(["-extfile", "ext"] if extensions else [])]
            done = subprocess.run(words, cwd=at, capture_output=True)
            assert done.returncode == 0, done.stderr
            return Chain([], top, key=key, pem=(at / "out").read_text())

    return make


_WRONG_KEY = x509.AuthorityKeyIdentifier(b"\x01" * 20, None, None)
_WRONG_SERIAL = x509.AuthorityKeyIdentifier(
    None, [x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Verdict Root")]))], 12345
)
_HERE = x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "db")]))
_ELSEWHERE = x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "elsewhere")]))
_ADDRESS_AS_DNS = x509.DNSName("127.0.0.1")

KINDS: dict[str, Kind] = {
    "good": Kind(leaf()),
    "a root for clients alone": Kind(
        of_root(extended=[Usage.CLIENT_AUTH]), "TLS-ISSUER-USAGE", f"{LIBSSL} go browsers", ca=True
    ),
    "a root for anything": Kind(
        of_root(extended=[Usage.ANY_EXTENDED_KEY_USAGE]), "TLS-ISSUER-USAGE", f"{LIBSSL} browsers", ca=True
    ),
    "constraints of a kind that no name has": Kind(
        below(subtrees=_subtrees([x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))])), "TLS-NAME-CONSTRAINTS", "go"
    ),
    "an intermediate that requires a policy": Kind(
        below(more=[(x509.PolicyConstraints(0, None), True)]), "TLS-CRITICAL-EXTENSION", "go java grpcio browsers rustls"
    ),
    "an intermediate that inhibits any policy": Kind(
        below(more=[(x509.InhibitAnyPolicy(0), True)]), "TLS-CRITICAL-EXTENSION", "go rustls"
    ),
    "a critical issuerAltName": Kind(
        leaf(more=[(x509.IssuerAlternativeName([x509.DNSName("ca.test")]), True)]), "TLS-CRITICAL-EXTENSION", ALL
    ),
    "issued by the root itself": Kind(lambda: Chain([issue("db", root())], root())),
    "self-signed": Kind(lambda: _self_signed(False)),
    "self-signed, a CA": Kind(lambda: _self_signed(True), "TLS-LEAF-IS-CA", "browsers rustls"),
    "a CA's certificate": Kind(_ca_as_leaf, "TLS-LEAF-IS-CA", "browsers rustls"),
    # The chain
    "no intermediate": Kind(lambda: Chain([issue("db", between())], root()), "TLS-INTERMEDIATE-MISSING", ALL),
    "intermediate of the same name": Kind(
        lambda: Chain([issue("db", between()), issue("Verdict Issuing CA", root(), ca=True)], root()),
        "TLS-CHAIN-SIGNATURE",
        ALL,
    ),
    "another intermediate": Kind(
        lambda: Chain([issue("db", between()), issue("Another", root(), ca=True)], root()),
        "TLS-INTERMEDIATE-MISSING",
        ALL,
    ),
    "issuer is no CA": Kind(below(ca=False, usage=None), "TLS-ISSUER-NOT-CA", ALL),
    "issuer without basicConstraints": Kind(below(constraints=False, usage=None), "TLS-ISSUER-NOT-CA", ALL),
    "issuer may not sign": Kind(below(usage=usages("digital_signature")), "TLS-ISSUER-KEY-USAGE", ALL),
    "path length": Kind(_deep, "TLS-PATH-LENGTH", ALL),
    "path length of the root": Kind(of_root(path_length=0), "TLS-PATH-LENGTH", f"{LIBSSL} go browsers", ca=True),
    "issuer for clients": Kind(below(extended=[Usage.CLIENT_AUTH]), "TLS-ISSUER-USAGE", but("java")),
    "issuer for servers": Kind(below(extended=[Usage.SERVER_AUTH])),
    "issuer for anything": Kind(
        below(extended=[Usage.ANY_EXTENDED_KEY_USAGE]), "TLS-ISSUER-USAGE", but("java", "go")
    ),
    "issuer with an unknown critical extension": Kind(below(more=[(_UNKNOWN, True)]), "TLS-CRITICAL-EXTENSION", ALL),
    "names that are not permitted": Kind(below(subtrees=_subtrees(["corp.internal"])), "TLS-NAME-CONSTRAINTS", ALL),
    "names that are excluded": Kind(below(subtrees=_subtrees(None, ["localhost"])), "TLS-NAME-CONSTRAINTS", ALL),
    "names that are permitted": Kind(below(subtrees=_subtrees(["localhost"], ["evil.example"]))),
    "addresses that are not permitted": Kind(
        below(subtrees=_subtrees([_network("10.0.0.0/8")])), "TLS-NAME-CONSTRAINTS", ALL
    ),
    "addresses that are permitted": Kind(
        below(subtrees=_subtrees([_network("127.0.0.0/8")])), "TLS-NAME-CONSTRAINTS", "grpcio"
    ),
    "a subject that is not permitted": Kind(below(subtrees=_subtrees([_ELSEWHERE])), "TLS-NAME-CONSTRAINTS", ALL),
    "a subject that is permitted": Kind(below(subtrees=_subtrees([_HERE])), "TLS-NAME-CONSTRAINTS", "go rustls"),
    "names that the root does not permit": Kind(
        of_root(subtrees=_subtrees(["corp.internal"])), "TLS-NAME-CONSTRAINTS", but("java"), ca=True
    ),
    "another issuer's key id": Kind(leaf(authority=_WRONG_KEY), "TLS-ISSUER-KEY-ID", f"{LIBSSL} grpcio"),
    "another issuer's serial number": Kind(leaf(authority=_WRONG_SERIAL), "TLS-ISSUER-KEY-ID", f"{LIBSSL} grpcio"),
    "no issuer's key id": Kind(leaf(authority=None)),
    "issuer names another root's key": Kind(
        below(authority=_WRONG_KEY), "TLS-ISSUER-KEY-ID", f"{LIBSSL} grpcio java", ca=True
    ),
    "intermediate has ended": Kind(below(starts=-9 * DAY, ends=-DAY), "TLS-INTERMEDIATE-EXPIRED", ALL),
    "intermediate has not begun": Kind(below(starts=2 * DAY, ends=9 * DAY), "TLS-INTERMEDIATE-NOT-YET-VALID", ALL),
    "root has ended": Kind(of_root(starts=-99 * DAY, ends=-DAY), "TLS-ROOT-EXPIRED", but("java", "rustls"), ca=True),
    "intermediate with RSA 1024": Kind(
        lambda: below(key=_rsa(1024))(), "TLS-WEAK-KEY", f"{LIBSSL} browsers rustls"
    ),
    "intermediate with P-521": Kind(below(kind="p521")),
    "intermediate with Ed25519": Kind(below(kind="ed25519"), "TLS-UNUSUAL-KEY", "browsers"),
    "twice the same": Kind(lambda: Chain([(one := issue("db", between())), one, between()], root())),
    "with its root": Kind(lambda: Chain([issue("db", between()), between(), root()], root())),
    # The leaf
    "for clients": Kind(leaf(extended=[Usage.CLIENT_AUTH]), "TLS-NO-SERVER-AUTH", ALL),
    "for mail": Kind(leaf(extended=[Usage.EMAIL_PROTECTION, Usage.CLIENT_AUTH]), "TLS-NO-SERVER-AUTH", ALL),
    "for anything": Kind(leaf(extended=[Usage.ANY_EXTENDED_KEY_USAGE]), "TLS-NO-SERVER-AUTH", but("go", "java")),
    "for nothing in particular": Kind(leaf(extended=None)),
    "for servers and clients": Kind(leaf(extended=[Usage.SERVER_AUTH, Usage.CLIENT_AUTH])),
    "key usage without digitalSignature": Kind(
        leaf(usage=usages("key_encipherment", "key_agreement")), "TLS-KEY-USAGE", "java grpcio browsers"
    ),
    "RSA for encipherment alone": Kind(
        leaf(usage=usages("key_encipherment"), kind="rsa2048"), "TLS-KEY-USAGE", "java grpcio browsers"
    ),
    "key usage of a CA": Kind(
        leaf(usage=usages("key_cert_sign")), "TLS-KEY-USAGE", f"{LIBSSL} java grpcio browsers"
    ),
    "no key usage": Kind(leaf(usage=None)),
    "P-384": Kind(leaf(kind="p384")),
    "P-521": Kind(leaf(kind="p521"), "TLS-UNUSUAL-KEY", "grpcio browsers"),
    "Ed25519": Kind(leaf(kind="ed25519"), "TLS-UNUSUAL-KEY", "grpcio browsers"),
    "RSA": Kind(leaf(kind="rsa2048")),
    "SHA-224": Kind(leaf(digest=hashes.SHA224()), "TLS-WEAK-SIGNATURE", "go browsers rustls"),
    "SHA-512": Kind(leaf(digest=hashes.SHA512())),
    "SHA-1": Kind(_by_openssl("sha1"), "TLS-WEAK-SIGNATURE", but("java", "grpcio")),
    "MD5": Kind(_by_openssl("md5"), "TLS-WEAK-SIGNATURE", ALL),
    "X.509 v1": Kind(_by_openssl("sha256", extensions=False), "TLS-X509-V1", "go browsers rustls"),
    "ended": Kind(leaf(starts=-9 * DAY, ends=-DAY), "TLS-EXPIRED", ALL),
    "not begun": Kind(leaf(starts=2 * DAY, ends=9 * DAY), "TLS-NOT-YET-VALID", ALL),
    "no subject": Kind(leaf(name=None), "TLS-EMPTY-SUBJECT", "java browsers"),
    "no subject, critical names": Kind(leaf(name=None, critical_names=True)),
    # Names
    "no alternative names": Kind(leaf(name="localhost", names=()), "TLS-NO-SAN", "go browsers rustls"),
    "no alternative names, another common name": Kind(leaf(names=()), "TLS-NAME-NOT-COVERED", ALL),
    "an address as common name": Kind(
        leaf(name="127.0.0.1", names=()), "TLS-NO-SAN", but("curl", "grpcio"), ask="127.0.0.1"
    ),
    "an address as DNS name": Kind(
        leaf(names=(_ADDRESS_AS_DNS, "localhost")), "TLS-IP-AS-DNS", but("grpcio"), ask="127.0.0.1"
    ),
    "an address": Kind(leaf(), ask="127.0.0.1"),
    "another address": Kind(leaf(names=("10.0.0.1", "localhost")), "TLS-NAME-NOT-COVERED", ALL, ask="127.0.0.1"),
    "addresses alone, and a common name": Kind(
        leaf(name="localhost", names=("127.0.0.1",)), "TLS-NAME-NOT-COVERED", "curl go browsers rustls"
    ),
    "an underscore": Kind(
        leaf(names=("my_db.example.com",)), "TLS-NAME-UNDERSCORE", "java", ask="my_db.example.com"
    ),
    "a wildcard": Kind(leaf(names=("*.example.com",)), ask="a.example.com"),
    "a wildcard for its parent": Kind(leaf(names=("*.example.com",)), "TLS-NAME-NOT-COVERED", ALL, ask="example.com"),
    "a wildcard for two labels": Kind(
        leaf(names=("*.example.com",)), "TLS-NAME-NOT-COVERED", ALL, ask="a.b.example.com"
    ),
    "a wildcard below one label": Kind(
        leaf(names=("*.localhost",)), "TLS-WILDCARD", f"{LIBSSL} browsers rustls", ask="a.localhost"
    ),
    "a wildcard in a label": Kind(
        leaf(names=("d*.example.com",)), "TLS-WILDCARD", but("openssl", "java"), ask="db.example.com"
    ),
    "a wildcard in the middle": Kind(
        leaf(names=("a.*.example.com",)), "TLS-WILDCARD", but("java"), ask="a.b.example.com"
    ),
    "a wildcard for an underscore": Kind(
        leaf(names=("*.example.com",)), "TLS-NAME-UNDERSCORE", "openssl python java", ask="my_db.example.com"
    ),
    "a wildcard as common name": Kind(
        leaf(name="*.example.com", names=()), "TLS-NO-SAN", "go browsers rustls", ask="a.example.com"
    ),
    "capital letters": Kind(leaf(names=("LocalHost",))),
    "a dot at the end": Kind(
        leaf(names=(x509.DNSName("localhost."),)), "TLS-NAME-NOT-COVERED", but("curl", "grpcio")
    ),
    "a URL as name": Kind(leaf(names=(x509.DNSName("https://localhost"),)), "TLS-NAME-INVALID", ALL),
    "another name": Kind(leaf(name="localhost", names=("db.example.com",)), "TLS-NAME-NOT-COVERED", ALL),
}
