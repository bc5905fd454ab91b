"""A corpus of broken or unusual certificates and keys, each with the code that the doctor reports for it."""

from __future__ import annotations

import base64
import datetime
import gzip
import io
import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, pkcs12

from . import chains, clients
from .certificates import DEFORMED, LOCAL, Authority, Pair, certificate_pem, key_pem, make_key, self_signed
from .leak_scanner import LEDGER
from .pod import Pod

DAY = datetime.timedelta(days=1)
# The password of containers that require one; the commands of a fix prompt for it.
PASSWORD = "changeit"
LEGACY = ["-provider", "legacy", "-provider", "default"]


class Folder:
    """A directory in place of a file."""


@dataclass(frozen=True)
class Link:
    """A link to a target that does not exist."""

    target: str = "nowhere"


Content = str | bytes | Folder | Link | None
Files = dict[str, Content]


def lay(pod: Pod, files: Files) -> None:
    """Writes each file into the pod's directory, replacing whatever exists; `None` removes it."""
    for name, content in files.items():
        path = pod.folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif not isinstance(content, str | bytes):
            path.unlink(missing_ok=True)
        if isinstance(content, Folder):
            path.mkdir()
        elif isinstance(content, Link):
            os.symlink(content.target, path)
        elif content is not None:
            pod.write(f"{name}.new", content)
            os.replace(pod.folder / f"{name}.new", path)


# The settings of a good server, which is then given the broken material


@dataclass
class SetUp:
    tls: dict
    good: Callable[[Pod], Files]

    def yaml(self, pod: Pod) -> None:
        """Grants the API key access to `/v1/status`."""
        tls = {"certificate_file": "tls.crt", "key_file": "tls.key", **self.tls}
        identities = {"mtls": {"identities": [{"subject_cn": "etl", "role": "ro"}]}} if "client_auth_mode" in tls else {}
        pod.api_key = LEDGER.mark("an API key")
        pod.yaml(tls=tls, runtime={"auth": {"api_key": {"keys": ["${env:API_KEY}:rw"]}, **identities}})


def _pair(pod: Pod) -> Files:
    pair = pod.ca.issue(common_name="good")
    return {"tls.crt": pair.certificate, "tls.key": pair.key_text}


def _encrypted(pod: Pod) -> Files:
    pair = pod.ca.issue(common_name="good")
    return {"tls.crt": pair.certificate, "tls.key": key_pem(pair.key, passphrase=passphrase(pod).encode())}


def _clients(pod: Pod) -> Files:
    return {**_pair(pod), "ca.pem": pod.ca.pem, "clients.crl": pod.ca.crl()}


def passphrase(pod: Pod) -> str:
    """The pod's passphrase, which the environment holds as TLS_KEY_PASSPHRASE."""
    if not hasattr(pod, "passphrase"):
        pod.passphrase = LEDGER.mark("a passphrase")
    return pod.passphrase


_ASKING = {"client_auth_mode": "request", "client_auth_ca_file": "ca.pem", "client_crl_files": ["clients.crl"]}
SET_UPS = {
    "plain": SetUp({}, _pair),
    "encrypted": SetUp({"key_passphrase": "${env:TLS_KEY_PASSPHRASE}"}, _encrypted),
    "clients": SetUp(_ASKING, _clients),
}


# The pieces


@dataclass(frozen=True)
class Broken:
    """`make` returns the files that differ from those of a good set-up. `serves`: the server starts with the material
    nevertheless.
    """

    code: str
    make: Callable[[Pod], Files]
    set_up: str = "plain"
    serves: bool = False


def in_home(pod: Pod, *command: str, **files: str | bytes) -> Path:
    """Runs openssl or keytool on these files, in a directory next to the pod's."""
    folder = pod.home / "making"
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    if command:
        done = subprocess.run(command, cwd=folder, capture_output=True, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.decode()}{done.stdout.decode()}"
    return folder


def with_openssl(pod: Pod, key: str, *command: str) -> str:
    """The output of an openssl command for a key, which it reads from `in` and writes to `out`."""
    folder = in_home(pod, clients.tool("openssl"), *command, "-in", "in", "-out", "out", **{"in": key})
    return (folder / "out").read_text()


def _p12(pod: Pod, pair: Pair | None = None) -> bytes:
    pair = pair or pod.pair
    how = serialization.BestAvailableEncryption(PASSWORD.encode())
    return pkcs12.serialize_key_and_certificates(b"spice", pair.key, pair.leaf, [pod.ca.certificate], how)


def _old_p12(pod: Pod) -> bytes:
    """With RC2, as Windows and OpenSSL 1.1 wrote it."""
    words = ["pkcs12", "-export", "-legacy", "-in", "crt", "-inkey", "key", "-out", "old.p12", "-passout", f"pass:{PASSWORD}"]
    folder = in_home(pod, clients.tool("openssl"), *words, crt=pod.pair.certificate, key=pod.pair.key_text)
    return (folder / "old.p12").read_bytes()


def jks(pod: Pod, pair: Pair | None = None) -> bytes:
    """A keystore in Java's own format."""
    keytool = clients.optional_tool("keytool")
    folder = in_home(pod, **{"pair.p12": _p12(pod, pair)})
    (folder / "keystore.jks").unlink(missing_ok=True)
    store = ["-deststoretype", "JKS", "-destkeystore", "keystore.jks", "-deststorepass", PASSWORD]
    source = ["-srckeystore", "pair.p12", "-srcstoretype", "PKCS12", "-srcstorepass", PASSWORD]
    in_home(pod, keytool, "-importkeystore", "-noprompt", *source, *store)
    return (folder / "keystore.jks").read_bytes()


def der(key, form=serialization.PrivateFormat.PKCS8) -> bytes:
    return key.private_bytes(serialization.Encoding.DER, form, serialization.NoEncryption())


def _damaged(pem: str) -> str:
    """Replaces part of a line in the middle with noise."""
    lines = pem.splitlines(keepends=True)
    lines[2] = "!" * 8 + lines[2][8:]
    return "".join(lines)


def _request(pair: Pair) -> str:
    request = x509.CertificateSigningRequestBuilder().subject_name(pair.leaf.subject).sign(pair.key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def _public(pair: Pair) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return pair.leaf.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def _p7b(pod: Pod) -> str:
    folder = in_home(
        pod,
        clients.tool("openssl"),
        *("crl2pkcs7", "-nocrl", "-certfile", "in", "-out", "out"),
        **{"in": pod.pair.certificate},
    )
    return (folder / "out").read_text()


def _trusted(pod: Pod) -> str:
    return with_openssl(pod, pod.pair.certificate, "x509", "-trustout")


def wrapped(label: str, data: bytes) -> str:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(data).decode()}-----END {label}-----\n"


def _matching(pod: Pod, key) -> Files:
    """A certificate for a key that should not be used, and the key."""
    pair = pod.pair
    builder = x509.CertificateBuilder().subject_name(pair.leaf.subject).issuer_name(pod.ca.name)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(pair.leaf.not_valid_before_utc).not_valid_after(pair.leaf.not_valid_after_utc)
    for extension in pair.leaf.extensions:
        if not isinstance(extension.value, x509.SubjectKeyIdentifier):
            builder = builder.add_extension(extension.value, extension.critical)
    certificate = builder.sign(pod.ca.key, hashes.SHA256())
    return {"tls.crt": certificate_pem(certificate), "tls.key": key_pem(key)}


def _secp256k1():
    key = ec.generate_private_key(ec.SECP256K1())
    LEDGER.add_key(key)
    return key


def _rsa1024(pod: Pod):
    key = load_pem_private_key(clients.openssl("genrsa", "1024"), None)
    LEDGER.add_key(key)
    return key


def _key_of(pair: Pair) -> Files:
    return {"tls.crt": pair.certificate, "tls.key": pair.key_text}


def _cert(make: Callable[[Pod], Content]) -> Callable[[Pod], Files]:
    """A broken certificate with a good key."""
    return lambda pod: {"tls.crt": make(pod), "tls.key": pod.pair.key_text}


def _key(make: Callable[[Pod], Content]) -> Callable[[Pod], Files]:
    """A broken key with a good certificate."""
    return lambda pod: {"tls.crt": pod.pair.certificate, "tls.key": make(pod)}


def _rsa(pod: Pod) -> Pair:
    if not hasattr(pod, "rsa"):
        pod.rsa = pod.ca.issue(kind="rsa2048")
    return pod.rsa


def _rsa_key(make: Callable[[Pod, Pair], Content]) -> Callable[[Pod], Files]:
    return lambda pod: {"tls.crt": _rsa(pod).certificate, "tls.key": make(pod, _rsa(pod))}


def _encrypted_by(*command: str):
    """The key encrypted by an openssl command, under the pod's passphrase."""
    return lambda pod: with_openssl(pod, pod.pair.key_text, *command, "-passout", f"pass:{passphrase(pod)}")


def _proc_type(cipher: str, word: str | None = None):
    """An EC key in OpenSSL's old encrypted format (`Proc-Type: 4,ENCRYPTED`)."""

    def make(pod: Pod) -> str:
        words = ["ec", f"-{cipher}", "-passout", f"pass:{word or passphrase(pod)}"]
        return with_openssl(pod, pod.pair.key_text, *words, *(LEGACY if cipher == "des" else []))

    return make


def _pkcs1_legacy(pod: Pod, pair: Pair) -> str:
    words = ["rsa", "-traditional", "-aes256", "-passout", f"pass:{passphrase(pod)}"]
    return with_openssl(pod, pair.key_text, *words)


def openssh(pod: Pod, key, encrypted: bool = False) -> str:
    """The key as ssh-keygen writes it; if `encrypted`, with the pod's passphrase."""
    form = serialization.PrivateFormat.OpenSSH
    plain = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
    if not encrypted:
        return plain
    folder = in_home(pod, **{"id": plain})
    (folder / "id").chmod(0o600)
    in_home(pod, clients.tool("ssh-keygen"), "-q", "-p", "-a", "2", "-P", "", "-N", passphrase(pod), "-f", "id")
    return (folder / "id").read_text()


def _ssh_public(pod: Pod) -> str:
    form = serialization.PublicFormat.OpenSSH
    return pod.pair.leaf.public_key().public_bytes(serialization.Encoding.OpenSSH, form).decode() + " me@here\n"


def _secret(pod: Pod, json_form: bool) -> str:
    """The output of `kubectl get secret -o yaml` or `-o json`."""
    coded = {
        "tls.crt": base64.b64encode(pod.pair.certificate.encode()).decode(),
        "tls.key": base64.b64encode(pod.pair.key_text.encode()).decode(),
    }
    if json_form:
        head = {"apiVersion": "v1", "data": coded, "kind": "Secret", "metadata": {"name": "db-tls"}}
        return json.dumps(head, indent=4) + "\n"
    data = "".join(f"  {name}: {value}\n" for name, value in coded.items())
    return f"apiVersion: v1\ndata:\n{data}kind: Secret\nmetadata:\n  name: db-tls\n  namespace: data\ntype: kubernetes.io/tls\n"


def _secrets(pod: Pod) -> str:
    """What `kubectl get secrets -o json` prints of several, in one line."""
    other = {"apiVersion": "v1", "data": {"password": "eA=="}, "kind": "Secret", "metadata": {"name": "a"}}
    return json.dumps({"apiVersion": "v1", "items": [other, json.loads(_secret(pod, True))], "kind": "List"})


def _acme(pod: Pod, pair: Pair | None = None) -> str:
    """Traefik's store of certificates."""
    pair = pair or pod.pair
    one = {
        "domain": {"main": "localhost"},
        "certificate": base64.b64encode(pair.certificate.encode()).decode(),
        "key": base64.b64encode(pair.key_text.encode()).decode(),
        "Store": "default",
    }
    return json.dumps({"letsencrypt": {"Account": {"Email": "a@b.test"}, "Certificates": [one]}}, indent=2)


def _xxd(data: bytes) -> str:
    """As `xxd` prints it."""
    lines = []
    for at in range(0, len(data), 16):
        part = data[at : at + 16]
        words = " ".join(part[word : word + 2].hex() for word in range(0, len(part), 2))
        lines.append(f"{at:08x}: {words:39}  {''.join(chr(b) if 31 < b < 127 else '.' for b in part)}\n")
    return "".join(lines)


def _hexdump(data: bytes) -> str:
    """As `hexdump -C` prints it."""
    lines = []
    for at in range(0, len(data), 16):
        part = data[at : at + 16]
        words = f"{' '.join(f'{b:02x}' for b in part[:8])}  {' '.join(f'{b:02x}' for b in part[8:])}"
        lines.append(f"{at:08x}  {words:48}  |{''.join(chr(b) if 31 < b < 127 else '.' for b in part)}|\n")
    return "".join(lines) + f"{len(data):08x}\n"


def _each_line(text: str, before: Callable[[int], str]) -> str:
    return "".join(before(at) + line for at, line in enumerate(text.splitlines(keepends=True), 1))


def _without_a_line(pem: str) -> str:
    lines = pem.splitlines(keepends=True)
    return "".join(lines[:3] + lines[4:])


def _conflict(pod: Pod) -> str:
    return f"<<<<<<< HEAD\n{pod.pair.certificate}=======\n{pod.ca.issue().certificate}>>>>>>> renewal\n"


def _zip(pod: Pod) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("tls.crt", pod.pair.certificate)
    return out.getvalue()


def _text_output(pod: Pod) -> str:
    folder = in_home(pod, **{"in": pod.pair.certificate})
    words = [clients.tool("openssl"), "x509", "-in", "in", "-text", "-noout"]
    return subprocess.run(words, cwd=folder, capture_output=True, check=True).stdout.decode()


def _p7b_der(pod: Pod) -> bytes:
    words = ["crl2pkcs7", "-nocrl", "-certfile", "in", "-outform", "der", "-out", "out"]
    folder = in_home(pod, clients.tool("openssl"), *words, **{"in": pod.pair.certificate})
    return (folder / "out").read_bytes()


def _other_passphrase(pod: Pod) -> str:
    return key_pem(pod.pair.key, passphrase=LEDGER.mark("another passphrase").encode())


def _clients_file(name: str, make: Callable[[Pod], Content]) -> Callable[[Pod], Files]:
    return lambda pod: {name: make(pod)}


PUTTY = "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nComment: mine\nPublic-Lines: 2\n"
SOPS = '{"data": "ENC[AES256_GCM,data:mV0=,iv:x=,tag:y==,type:str]", "sops": {"version": "3.8.1"}}'
GIT_LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 241\n"
HTML = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Sign in</body></html>\n"
TEXT = "this is where the certificate goes\n"
SEC1 = serialization.PrivateFormat.TraditionalOpenSSL
EC_PARAMETERS = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"

BROKEN: dict[str, Broken] = {
    # The certificate
    "certificate: not there": Broken("TLS-UNREADABLE", _cert(lambda pod: None)),
    "certificate: a folder": Broken("TLS-UNREADABLE", _cert(lambda pod: Folder())),
    "certificate: a dangling link": Broken("TLS-UNREADABLE", _cert(lambda pod: Link())),
    "certificate: empty": Broken("TLS-EMPTY", _cert(lambda pod: "")),
    "certificate: blanks": Broken("TLS-EMPTY", _cert(lambda pod: " \n\n\t\n")),
    "certificate: text": Broken("TLS-NOT-PEM", _cert(lambda pod: TEXT)),
    "certificate: bytes": Broken("TLS-NOT-PEM", _cert(lambda pod: bytes(range(255, 0, -1)) * 3)),
    "certificate: DER": Broken("TLS-DER", _cert(lambda pod: pod.pair.der)),
    "certificate: PKCS#12": Broken("TLS-PKCS12", lambda pod: {"tls.crt": _p12(pod), "tls.key": pod.pair.key_text}),
    "certificate: Java keystore": Broken("TLS-JKS", _cert(jks)),
    "certificate: a path": Broken("TLS-PATH-AS-PEM", _cert(lambda pod: "/etc/tls/tls.crt\n")),
    "certificate: a web page": Broken("TLS-HTML", _cert(lambda pod: HTML)),
    "certificate: cut in the middle": Broken("TLS-PEM-CUT", _cert(lambda pod: pod.pair.certificate[:300])),
    "certificate: cut in the second": Broken(
        "TLS-PEM-CUT", _cert(lambda pod: pod.pair.certificate + pod.ca.pem[: len(pod.ca.pem) // 2])
    ),
    "certificate: cut in its end line": Broken("TLS-PEM-CUT", _cert(lambda pod: pod.pair.certificate[:-12])),
    "certificate: noise in the base64": Broken("TLS-PEM-DAMAGED", _cert(lambda pod: _damaged(pod.pair.certificate))),
    "certificate: the key instead": Broken(
        "TLS-SWAPPED", lambda pod: {"tls.crt": pod.pair.key_text, "tls.key": pod.pair.certificate}
    ),
    "certificate: a request": Broken("TLS-NO-CERTIFICATE", _cert(lambda pod: _request(pod.pair))),
    "certificate: a public key": Broken("TLS-NO-CERTIFICATE", _cert(lambda pod: _public(pod.pair))),
    "certificate: a revocation list": Broken("TLS-NO-CERTIFICATE", _cert(lambda pod: pod.ca.crl())),
    "certificate: PKCS#7": Broken("TLS-PKCS7", _cert(_p7b)),
    "certificate: PKCS#7, DER": Broken("TLS-PKCS7", _cert(_p7b_der)),
    "certificate: Kubernetes Secret": Broken("TLS-KUBERNETES-SECRET", _cert(lambda pod: _secret(pod, json_form=False))),
    "certificate: Kubernetes Secret, JSON": Broken(
        "TLS-KUBERNETES-SECRET", _cert(lambda pod: _secret(pod, json_form=True))
    ),
    "certificate: Kubernetes Secrets, JSON": Broken("TLS-KUBERNETES-SECRET", _cert(_secrets)),
    "certificate: hexadecimal": Broken("TLS-DER", _cert(lambda pod: pod.pair.der.hex(":", 2) + "\n")),
    "certificate: xxd": Broken("TLS-DER", _cert(lambda pod: _xxd(pod.pair.der))),
    "certificate: xxd of PEM": Broken("TLS-DER", _cert(lambda pod: _xxd(pod.pair.certificate.encode()))),
    "certificate: hexdump": Broken("TLS-DER", _cert(lambda pod: _hexdump(pod.pair.der))),
    "certificate: acme.json": Broken("TLS-NOT-PEM", _cert(_acme)),
    "certificate: quoted in a mail": Broken(
        "TLS-PEM-DAMAGED", _cert(lambda pod: _each_line(pod.pair.certificate, lambda at: "> "))
    ),
    "certificate: a diff": Broken("TLS-PEM-DAMAGED", _cert(lambda pod: _each_line(pod.pair.certificate, lambda at: "+"))),
    "certificate: numbered lines": Broken(
        "TLS-PEM-DAMAGED", _cert(lambda pod: _each_line(pod.pair.certificate, lambda at: f"{at:4}  "))
    ),
    "certificate: lines of grep -n": Broken(
        "TLS-PEM-DAMAGED", _cert(lambda pod: _each_line(pod.pair.certificate, lambda at: f"{at}:"))
    ),
    "certificate: comments of a program": Broken(
        "TLS-PEM-DAMAGED", _cert(lambda pod: _each_line(pod.pair.certificate, lambda at: "  // "))
    ),
    "certificate: strings of a program": Broken(
        "TLS-PEM-DAMAGED",
        _cert(lambda pod: "".join(f'"{line}\\n" +\n' for line in pod.pair.certificate.splitlines())),
    ),
    "certificate: a C array": Broken(
        "TLS-DER",
        _cert(lambda pod: f"unsigned char crt[] = {{\n  {', '.join(f'0x{b:02x}' for b in pod.pair.der)}\n}};\nint n = 500;\n"),
    ),
    "certificate: HTML entities": Broken(
        "TLS-PEM-DAMAGED", _cert(lambda pod: pod.pair.certificate.replace("+", "&#43;").replace("/", "&#47;"))
    ),
    "certificate: a line lost": Broken("TLS-PEM-DAMAGED", _cert(lambda pod: _without_a_line(pod.pair.certificate))),
    "certificate: git's conflict markers": Broken("TLS-PEM-DAMAGED", _cert(_conflict)),
    "certificate: an SSH public key": Broken("TLS-SSH-PUBLIC-KEY", _cert(_ssh_public)),
    "certificate: zip": Broken("TLS-ARCHIVE", _cert(_zip)),
    "certificate: gzip": Broken("TLS-ARCHIVE", _cert(lambda pod: gzip.compress(pod.pair.certificate.encode()))),
    "certificate: openssl's text": Broken("TLS-TEXT-OUTPUT", _cert(_text_output)),
    "certificate: bytes in PEM": Broken(
        "TLS-CERTIFICATE-UNUSABLE", _cert(lambda pod: wrapped("CERTIFICATE", b"\x30\x03\x02\x01\x05"))
    ),
    "certificate: a key in a certificate's lines": Broken(
        "TLS-CERTIFICATE-UNUSABLE", _cert(lambda pod: wrapped("CERTIFICATE", _request(pod.pair).encode()))
    ),
    # The key
    "key: not there": Broken("TLS-UNREADABLE", _key(lambda pod: None)),
    "key: a folder": Broken("TLS-UNREADABLE", _key(lambda pod: Folder())),
    "key: a dangling link": Broken("TLS-UNREADABLE", _key(lambda pod: Link())),
    "key: empty": Broken("TLS-EMPTY", _key(lambda pod: "")),
    "key: text": Broken("TLS-NOT-PEM", _key(lambda pod: TEXT)),
    "key: DER, PKCS#8": Broken("TLS-DER", _key(lambda pod: der(pod.pair.key))),
    "key: DER, SEC1": Broken("TLS-DER", _key(lambda pod: der(pod.pair.key, SEC1))),
    "key: DER, PKCS#1": Broken("TLS-DER", _rsa_key(lambda pod, pair: der(pair.key, SEC1))),
    "key: PKCS#12": Broken("TLS-PKCS12", _key(_p12)),
    "key: PKCS#12, old": Broken("TLS-PKCS12", _key(_old_p12)),
    "key: Java keystore": Broken("TLS-JKS", _key(jks)),
    "key: a path": Broken("TLS-PATH-AS-PEM", _key(lambda pod: "/etc/tls/tls.key")),
    "key: a web page": Broken("TLS-HTML", _key(lambda pod: HTML)),
    "key: hexadecimal": Broken("TLS-DER", _key(lambda pod: der(pod.pair.key).hex())),
    "key: xxd": Broken("TLS-DER", _key(lambda pod: _xxd(pod.pair.key_text.encode()))),
    "key: acme.json": Broken("TLS-NOT-PEM", _key(_acme)),
    "key: a line lost": Broken("TLS-PEM-DAMAGED", _rsa_key(lambda pod, pair: _without_a_line(pair.key_text))),
    "key: cut in the middle": Broken("TLS-PEM-CUT", _key(lambda pod: pod.pair.key_text[:90])),
    "key: noise in the base64": Broken("TLS-PEM-DAMAGED", _rsa_key(lambda pod, pair: _damaged(pair.key_text))),
    "key: the certificate twice": Broken("TLS-SWAPPED", _key(lambda pod: pod.pair.certificate)),
    "key: the public key": Broken("TLS-NO-KEY", _key(lambda pod: _public(pod.pair))),
    "key: its parameters alone": Broken("TLS-NO-KEY", _key(lambda pod: EC_PARAMETERS)),
    "key: two of them": Broken("TLS-SEVERAL-KEYS", _key(lambda pod: pod.pair.key_text + key_pem(make_key()))),
    "key: encrypted, PKCS#8": Broken("TLS-KEY-ENCRYPTED", _key(_encrypted_by("pkcs8", "-topk8"))),
    "key: encrypted, Proc-Type": Broken("TLS-KEY-ENCRYPTED", _key(_proc_type("aes128"))),
    "key: encrypted, PKCS#1": Broken("TLS-KEY-ENCRYPTED", _rsa_key(_pkcs1_legacy)),
    "key: another passphrase, PKCS#8": Broken("TLS-KEY-PASSPHRASE", _key(_other_passphrase), "encrypted"),
    "key: another passphrase, Proc-Type": Broken(
        "TLS-KEY-PASSPHRASE", _key(_proc_type("aes256", word=LEDGER.mark("another passphrase"))), "encrypted"
    ),
    "key: PBE-SHA1-RC2-40": Broken(
        "TLS-KEY-CIPHER", _key(_encrypted_by("pkcs8", "-topk8", "-v1", "PBE-SHA1-RC2-40", *LEGACY)), "encrypted"
    ),
    "key: PBE-MD5-DES": Broken(
        "TLS-KEY-CIPHER", _key(_encrypted_by("pkcs8", "-topk8", "-v1", "PBE-MD5-DES", *LEGACY)), "encrypted"
    ),
    "key: PBES2, single DES": Broken(
        "TLS-KEY-CIPHER", _key(_encrypted_by("pkcs8", "-topk8", "-v2", "des", *LEGACY)), "encrypted"
    ),
    "key: Proc-Type, single DES": Broken("TLS-KEY-CIPHER", _key(_proc_type("des")), "encrypted"),
    "key: Proc-Type, Camellia": Broken("TLS-KEY-CIPHER", _key(_proc_type("camellia128")), "encrypted"),
    "key: OpenSSH, encrypted": Broken("TLS-KEY-ENCRYPTED", _key(lambda pod: openssh(pod, pod.pair.key, True))),
    "key: PuTTY": Broken("TLS-PUTTY", _key(lambda pod: PUTTY)),
    "key: Kubernetes Secret": Broken("TLS-KUBERNETES-SECRET", _key(lambda pod: _secret(pod, json_form=False))),
    "key: SOPS": Broken("TLS-FILE-ENCRYPTED", _key(lambda pod: SOPS)),
    "key: age": Broken("TLS-FILE-ENCRYPTED", _key(lambda pod: "age-encryption.org/v1\n-> X25519 c29tZWJvZHk\n")),
    "key: Ansible Vault": Broken("TLS-FILE-ENCRYPTED", _key(lambda pod: "$ANSIBLE_VAULT;1.1;AES256\n6133\n")),
    "key: OpenPGP": Broken("TLS-FILE-ENCRYPTED", _key(lambda pod: wrapped("PGP MESSAGE", b"\x85\x01\x0c\x03abc"))),
    "key: Git LFS": Broken("TLS-GIT-LFS", _key(lambda pod: GIT_LFS)),
    "key: openssl's text": Broken("TLS-TEXT-OUTPUT", _key(lambda pod: "Private-Key: (256 bit)\npriv:\n    00\n")),
    "key: RSA 1024": Broken("TLS-KEY-UNUSABLE", lambda pod: _matching(pod, _rsa1024(pod))),
    "key: DSA": Broken("TLS-KEY-UNUSABLE", lambda pod: _matching(pod, dsa.generate_private_key(2048))),
    "key: secp256k1": Broken("TLS-KEY-UNUSABLE", lambda pod: _matching(pod, _secp256k1())),
    "key: bytes in PEM": Broken("TLS-KEY-UNUSABLE", _key(lambda pod: wrapped("PRIVATE KEY", b"\x30\x03\x02\x01\x05"))),
    # Both
    "pair: another's key": Broken("TLS-KEY-MISMATCH", _key(lambda pod: key_pem(make_key()))),
    "pair: another kind of key": Broken("TLS-KEY-MISMATCH", _key(lambda pod: key_pem(make_key("rsa2048")))),
    "pair: the intermediate's certificate first": Broken(
        "TLS-KEY-MISMATCH", _cert(lambda pod: certificate_pem(Authority("Between", pod.ca).certificate))
    ),
    "pair: expired": Broken(
        "TLS-EXPIRED", lambda pod: _key_of(pod.ca.issue(starts=-9 * DAY, ends=-1.5 * DAY)), serves=True
    ),
    "pair: not yet valid": Broken(
        "TLS-NOT-YET-VALID", lambda pod: _key_of(pod.ca.issue(starts=1.52 * DAY, ends=9 * DAY)), serves=True
    ),
    # The client CA and its revocation lists
    "client CA: not there": Broken("TLS-UNREADABLE", _clients_file("ca.pem", lambda pod: None), "clients"),
    "client CA: empty": Broken("TLS-CLIENT-CA", _clients_file("ca.pem", lambda pod: ""), "clients"),
    "client CA: a key": Broken("TLS-CLIENT-CA", _clients_file("ca.pem", lambda pod: pod.pair.key_text), "clients"),
    "client CA: a request": Broken("TLS-CLIENT-CA", _clients_file("ca.pem", lambda pod: _request(pod.pair)), "clients"),
    "client CA: a web page": Broken("TLS-CLIENT-CA", _clients_file("ca.pem", lambda pod: HTML), "clients"),
    "client CA: cut": Broken("TLS-CLIENT-CA", _clients_file("ca.pem", lambda pod: pod.ca.pem[:200]), "clients"),
    "revocation list: not there": Broken("TLS-UNREADABLE", _clients_file("clients.crl", lambda pod: None), "clients"),
    "revocation list: empty": Broken("TLS-CRL", _clients_file("clients.crl", lambda pod: b""), "clients"),
    "revocation list: text": Broken("TLS-CRL", _clients_file("clients.crl", lambda pod: TEXT), "clients"),
    "revocation list: a certificate": Broken("TLS-CRL", _clients_file("clients.crl", lambda pod: pod.ca.pem), "clients"),
    "revocation list: DER of something else": Broken(
        "TLS-CRL", _clients_file("clients.crl", lambda pod: pod.pair.der), "clients"
    ),
    "revocation list: cut": Broken("TLS-CRL", _clients_file("clients.crl", lambda pod: pod.ca.crl()[:150]), "clients"),
}


# Material that is only unusual: it is served, and the doctor reports it


@dataclass(frozen=True)
class Odd:
    """`make` writes the whole pod; `words` are the check's arguments."""

    level: str
    make: Callable[[Pod], None]
    words: tuple[str, ...] = ()
    root: bool = False  # only root can make it
    starts: bool = True


def _serving(pod: Pod, pair: Pair, *, certificate: str | None = None, key: str | None = None, **more) -> None:
    runtime = more.pop("runtime", None)
    pod.write("tls.crt", certificate or pair.certificate)
    pod.write("tls.key", key or pair.key_text)
    pod.yaml(tls={"certificate_file": "tls.crt", "key_file": "tls.key", **more}, runtime=runtime)


def _asking(pod: Pod, ca: str, crls: tuple[bytes, ...] = (), identities: bool = True) -> None:
    pod.write("ca.pem", ca)
    names = [f"{number}.crl" for number in range(len(crls))]
    for name, crl in zip(names, crls):
        pod.write(name, crl)
    more = {"client_crl_files": names} if names else {}
    auth = {"auth": {"mtls": {"identities": [{"subject_cn": "etl", "role": "ro"}]}}} if identities else None
    asks = {"client_auth_mode": "required", "client_auth_ca_file": "ca.pem", **more}
    _serving(pod, pod.pair, runtime=auth, **asks)


def _below(pod: Pod, **life) -> Pair:
    """Issued by an intermediate whose lifetime differs from that of the leaf."""
    return Authority("Between", pod.ca, **life).issue()


def _weak_signature(pod: Pod) -> None:
    """SHA-1, with which only openssl still signs."""
    pair = pod.pair
    words = ["x509", "-req", "-sha1", "-days", "90", "-CA", "ca", "-CAkey", "ca-key", "-CAcreateserial", "-extfile", "ext"]
    extensions = "subjectAltName=DNS:localhost\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n"
    files = {"in": _request(pair), "ca": pod.ca.pem, "ca-key": key_pem(pod.ca.key), "ext": extensions}
    folder = in_home(pod, clients.tool("openssl"), *words, "-in", "in", "-out", "out", **files)
    _serving(pod, pair, certificate=(folder / "out").read_text())


def _between(pod: Pod) -> Pair:
    return Authority("Between: Issuing CA", pod.ca).issue()


def _chain(name: str) -> Callable[[Pod], None]:
    """Serves a kind of chain."""

    def make(pod: Pod) -> None:
        chains.KINDS[name].make().lay(pod.folder)
        (pod.cwd / "root.pem").write_bytes((pod.folder / "root.pem").read_bytes())
        pod.yaml(tls={"certificate_file": "tls.crt", "key_file": "tls.key"})

    return make


def _another_root(pod: Pod) -> None:
    pair = pod.pair
    _serving(pod, pair, certificate=pair.certificate + pod.ca.pem)
    (pod.cwd / "root.pem").write_text(Authority("Another Root").pem)


def _public_ca(pod: Pod) -> None:
    """Marked as the CA/Browser Forum requires."""
    policy = x509.PolicyInformation(x509.ObjectIdentifier("2.23.140.1.2.1"), None)
    more = [(x509.CertificatePolicies([policy]), False)]
    extended = [chains.Usage.SERVER_AUTH, chains.Usage.CLIENT_AUTH]
    one, between = chains.issue("db", chains.between(), extended=extended, more=more), chains.between()
    chains.Chain([one, between], chains.root()).lay(pod.folder)
    pod.yaml(tls={"certificate_file": "tls.crt", "key_file": "tls.key"})


def _utf16(pod: Pod) -> bytes:
    """As PowerShell's `>` writes it."""
    return pod.pair.certificate.replace("\n", "\r\n").encode("utf-16")


def _four(pod: Pod) -> str:
    return pod.pair.certificate.replace("-----", "----")


def _chain_order(pod: Pod) -> None:
    inner = Authority("Inner", Authority("Between", pod.ca))
    pair = inner.issue()
    _serving(pod, pair, certificate=certificate_pem(pair.leaf, *reversed(pair.intermediates)))


def _stray(pod: Pod) -> None:
    stray = Authority("Somebody else's").certificate
    pair = _between(pod)
    _serving(pod, pair, certificate=certificate_pem(pair.leaf, *pair.intermediates, stray))


def _mode(pod: Pod) -> None:
    _serving(pod, pod.pair)
    (pod.folder / "tls.key").chmod(0o644)


def _owner(pod: Pod) -> None:
    _serving(pod, pod.pair)
    os.chown(pod.folder / "tls.key", 4242, 4242)


def _doubled(pod: Pod) -> None:
    """Two pairs of the same kind for one name: the first takes precedence."""
    _serving(pod, pod.pair, certificates=[pod.write_pair(pod.ca.issue(("localhost",), common_name="again"), stem="b")])


def _tidied(how: str) -> Callable[[Pod], None]:
    return lambda pod: _serving(pod, pod.pair, certificate=DEFORMED[how](pod.pair.certificate))


ODD: dict[str, tuple[str, Odd]] = {
    "no names": ("TLS-NO-SAN", Odd("warning", lambda pod: _serving(pod, pod.ca.issue(())))),
    "another name": (
        "TLS-NAME-NOT-COVERED",
        Odd("error", lambda pod: _serving(pod, pod.pair), ("--name", "db.example.com")),
    ),
    "a CA's": ("TLS-LEAF-IS-CA", Odd("warning", lambda pod: _serving(pod, Authority("localhost", pod.ca).as_leaf()))),
    "a client's": ("TLS-NO-SERVER-AUTH", Odd("error", lambda pod: _serving(pod, pod.ca.issue(client=True)))),
    "Ed25519": ("TLS-UNUSUAL-KEY", Odd("warning", lambda pod: _serving(pod, pod.ca.issue(kind="ed25519")))),
    "P-521": ("TLS-UNUSUAL-KEY", Odd("warning", lambda pod: _serving(pod, pod.ca.issue(kind="p521")))),
    "SHA-1": ("TLS-WEAK-SIGNATURE", Odd("warning", _weak_signature)),
    "ten years": ("TLS-LONG-LIFETIME", Odd("info", lambda pod: _serving(pod, pod.ca.issue(ends=3650 * DAY)))),
    "ends in 20 days": (
        "TLS-ENDS-SOON",
        Odd("warning", lambda pod: _serving(pod, pod.ca.issue(ends=20.5 * DAY))),
    ),
    "with its root": (
        "TLS-ROOT-SENT",
        Odd("info", lambda pod: _serving(pod, pod.pair, certificate=pod.pair.certificate + pod.ca.pem)),
    ),
    "without its intermediate": (
        "TLS-INTERMEDIATE-MISSING",
        Odd("error", lambda pod: _serving(pod, (pair := _between(pod)), certificate=certificate_pem(pair.leaf))),
    ),
    "intermediates in the wrong order": ("TLS-CHAIN-ORDER", Odd("warning", _chain_order)),
    "a certificate too many": ("TLS-CHAIN-STRAY", Odd("info", _stray)),
    "a byte order mark": ("TLS-PEM-TIDIED", Odd("info", _tidied("bom"))),
    "CRLF": ("TLS-PEM-TIDIED", Odd("info", _tidied("crlf"))),
    "literal newlines": ("TLS-PEM-TIDIED", Odd("info", _tidied("literal-newlines"))),
    "blanks for newlines": ("TLS-PEM-TIDIED", Odd("info", _tidied("newlines-to-blanks"))),
    "text around it": ("TLS-PEM-TIDIED", Odd("info", _tidied("text-before-begin"))),
    "base64 once more": ("TLS-PEM-TIDIED", Odd("info", _tidied("base64-once-more"))),
    "UTF-16": ("TLS-PEM-TIDIED", Odd("info", lambda pod: _serving(pod, pod.pair, certificate=_utf16(pod)))),
    "four hyphens": ("TLS-PEM-TIDIED", Odd("info", lambda pod: _serving(pod, pod.pair, certificate=_four(pod)))),
    "an OpenSSH key": (
        "TLS-PEM-TIDIED",
        Odd("info", lambda pod: _serving(pod, pod.pair, key=openssh(pod, pod.pair.key))),
    ),
    **{
        name: (chains.KINDS[name].code, Odd(level, _chain(name), words))
        for name, level, words in [
            ("intermediate of the same name", "error", ()),
            ("issuer is no CA", "error", ()),
            ("issuer may not sign", "error", ()),
            ("issuer for clients", "warning", ()),
            ("another issuer's key id", "warning", ()),
            ("path length", "error", ()),
            ("names that are not permitted", "error", ()),
            ("issuer with an unknown critical extension", "error", ()),
            ("root has ended", "warning", ("--ca", "root.pem")),
            ("intermediate with RSA 1024", "warning", ()),
            ("key usage without digitalSignature", "warning", ()),
            ("no subject", "warning", ()),
            ("X.509 v1", "warning", ()),
            ("an address as DNS name", "warning", ()),
            ("an underscore", "warning", ()),
            ("a wildcard in a label", "warning", ()),
            ("a URL as name", "error", ()),
        ]
    },
    "a subject that is permitted": ("TLS-CHAIN-REFUSED", Odd("warning", _chain("a subject that is permitted"))),
    "another root": ("TLS-OTHER-CA", Odd("error", _another_root, ("--ca", "root.pem"))),
    "another common name": (
        "TLS-COMMON-NAME-NOT-COVERED",
        Odd("info", lambda pod: _serving(pod, pod.ca.issue(("localhost",), common_name="db.example.com"))),
    ),
    "a public CA's for clients, too": ("TLS-PUBLIC-CLIENT-AUTH", Odd("info", _public_ca)),
    "the same twice": (
        "TLS-CHAIN-DOUBLED",
        Odd("info", lambda pod: _serving(pod, pod.pair, certificate=pod.pair.certificate * 2)),
    ),
    "a passphrase for nothing": (
        "TLS-PASSPHRASE-UNUSED",
        Odd("info", lambda pod: _serving(pod, pod.pair, key_passphrase="${env:TLS_KEY_PASSPHRASE}")),
    ),
    "a key that all may read": ("TLS-KEY-PERMISSIONS", Odd("warning", _mode)),
    "a key of somebody else's": ("TLS-KEY-OWNER", Odd("warning", _owner, root=True)),
    "an intermediate that has ended": (
        "TLS-INTERMEDIATE-EXPIRED",
        Odd("error", lambda pod: _serving(pod, _below(pod, starts=-99 * DAY, ends=-1.5 * DAY))),
    ),
    "an intermediate that has not begun": (
        "TLS-INTERMEDIATE-NOT-YET-VALID",
        Odd("error", lambda pod: _serving(pod, _below(pod, starts=1.52 * DAY))),
    ),
    "an intermediate that ends in 20 days": (
        "TLS-INTERMEDIATE-ENDS-SOON",
        Odd("warning", lambda pod: _serving(pod, _below(pod, ends=20.5 * DAY))),
    ),
    "a client CA that has not begun": (
        "TLS-CLIENT-CA-NOT-YET-VALID",
        Odd("error", lambda pod: _asking(pod, Authority("Clients", starts=1.52 * DAY).pem)),
    ),
    "a hash that is none": (
        "AUTH-KEYS",
        Odd(
            "error",
            lambda pod: _serving(pod, pod.pair, runtime={"auth": {"api_key": {"keys": ["sha256:12:ro"]}}}),
            starts=False,
        ),
    ),
    "an API key without a role": (
        "AUTH-KEY-NO-ROLE",
        Odd("info", lambda pod: _serving(pod, pod.pair, runtime={"auth": {"api_key": {"keys": ["${env:API_KEY}"]}}})),
    ),
    "a development certificate": ("TLS-DEVELOPMENT", Odd("info", lambda pod: pod.yaml(tls={"self_signed": True}))),
    "a name twice": ("TLS-SNI-DOUBLED", Odd("warning", _doubled)),
    "a client CA that is none": (
        "TLS-CLIENT-CA-NOT-CA",
        Odd("warning", lambda pod: _asking(pod, pod.ca.issue(client=True).certificate)),
    ),
    "a client CA that has ended": (
        "TLS-CLIENT-CA-EXPIRED",
        Odd("error", lambda pod: _asking(pod, Authority("Clients", starts=-99 * DAY, ends=-1.5 * DAY).pem)),
    ),
    "a client CA that ends in 20 days": (
        "TLS-CLIENT-CA-ENDS-SOON",
        Odd("warning", lambda pod: _asking(pod, Authority("Clients", starts=-99 * DAY, ends=20.5 * DAY).pem)),
    ),
    "a revocation list that has ended": (
        "TLS-CRL-OUT-OF-DATE",
        Odd("error", lambda pod: _asking(pod, pod.ca.pem, (pod.ca.crl(starts=-9 * DAY, ends=-1.5 * DAY),))),
    ),
    "a revocation list that its CA did not sign": (
        "TLS-CRL-SIGNATURE",
        Odd("error", lambda pod: _asking(pod, pod.ca.pem, (Authority().crl(),))),
    ),
    "one revocation list for two CAs": (
        "TLS-CRL-MISSING",
        Odd("warning", lambda pod: _asking(pod, pod.ca.pem + Authority("More clients").pem, (pod.ca.crl(),))),
    ),
    "a short API key": (
        "AUTH-KEY-SHORT",
        Odd("warning", lambda pod: _serving(pod, pod.pair, runtime={"auth": {"api_key": {"keys": ["hunter2:rw"]}}})),
    ),
    "client certificates without identities": (
        "AUTH-NO-IDENTITIES",
        Odd("warning", lambda pod: _asking(pod, pod.ca.pem, identities=False)),
    ),
    "TLS switched off beside a certificate": (
        "CONFIG-WARNING",
        Odd("warning", lambda pod: pod.yaml(tls={"enabled": False, **pod.write_pair()})),
    ),
    "no TLS": ("TLS-OFF", Odd("info", lambda pod: pod.yaml())),
}
