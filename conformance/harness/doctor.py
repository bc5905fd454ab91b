"""The doctor's findings for a pod, and docs/doctor.md, which is generated from them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

from . import broken
from .broken import BROKEN, ODD, SET_UPS, lay, passphrase
from .commands import run
from .pod import Pod
from .waiting import DEADLINE

PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"

# The meaning of each code, in the order of the page.
MEANS = {
    "TLS-UNREADABLE": "the file does not exist, is a directory, or cannot be read",
    "TLS-EMPTY": "the file or value is empty",
    "TLS-NOT-PEM": "neither PEM nor another known format",
    "TLS-DER": "a certificate or key in DER, the binary encoding",
    "TLS-PKCS12": "a PKCS#12 store (`.p12`, `.pfx`)",
    "TLS-JKS": "a Java keystore",
    "TLS-PKCS7": "PKCS#7 (`.p7b`): certificates without a key",
    "TLS-KUBERNETES-SECRET": "a Kubernetes Secret object, as `kubectl get` prints it, instead of one of its values",
    "TLS-PUTTY": "a key in PuTTY's format (`.ppk`)",
    "TLS-SSH-PUBLIC-KEY": "an SSH public key",
    "TLS-ARCHIVE": "an archive: zip, gzip, tar and others",
    "TLS-FILE-ENCRYPTED": "a file that SOPS, age, Ansible Vault, git-crypt or OpenPGP encrypted",
    "TLS-GIT-LFS": "a Git LFS pointer instead of the file",
    "TLS-TEXT-OUTPUT": "the output of `openssl … -text -noout`, without the PEM",
    "TLS-PATH-AS-PEM": "a path instead of PEM text",
    "TLS-HTML": "a web page, such as a login form that was downloaded instead of the file",
    "TLS-PEM-CUT": "a PEM block without an END line",
    "TLS-PEM-DAMAGED": "a PEM block that is not valid base64",
    "TLS-SWAPPED": "a key instead of a certificate, or a certificate instead of a key",
    "TLS-NO-CERTIFICATE": "PEM without a certificate: a certificate request, a public key, a revocation list",
    "TLS-CERTIFICATE-UNUSABLE": "the PEM block does not contain a usable certificate",
    "TLS-NO-KEY": "PEM without a private key",
    "TLS-SEVERAL-KEYS": "more than one private key",
    "TLS-KEY-ENCRYPTED": "the key is encrypted, and no passphrase is given",
    "TLS-KEY-PASSPHRASE": "the passphrase does not decrypt the key",
    "TLS-KEY-CIPHER": "the key is encrypted with an unsupported cipher",
    "TLS-KEY-UNUSABLE": "an unsupported key type or size: RSA 1024, DSA, secp256k1, Ed448",
    "TLS-KEY-MISMATCH": "the key does not belong to the certificate",
    "TLS-EXPIRED": "the certificate has expired. A start serves it; a reload rejects it",
    "TLS-NOT-YET-VALID": "the certificate is not valid yet. A start serves it; a reload waits until it is valid",
    "TLS-CLIENT-CA": "the client CA file contains no certificate",
    "TLS-CRL": "the revocation list file contains no revocation list",
    "TLS-NAME-NOT-COVERED": "the certificate does not cover a name given with `--name`",
    "AUTH-KEYS": "an invalid API key or hash",
    "TLS-INTERMEDIATE-EXPIRED": "an intermediate has expired. A start serves the chain",
    "TLS-INTERMEDIATE-NOT-YET-VALID": "an intermediate is not valid yet. A start serves the chain",
    "TLS-CLIENT-CA-EXPIRED": "a client CA has expired",
    "TLS-CLIENT-CA-NOT-YET-VALID": "a client CA is not valid yet",
    "TLS-CRL-OUT-OF-DATE": "a revocation list is past its `nextUpdate`",
    "TLS-ENDS-SOON": "the certificate expires within 30 days; within 7 days this is an error",
    "TLS-INTERMEDIATE-ENDS-SOON": "an intermediate expires within 30 days",
    "TLS-NO-SAN": "the certificate has no subject alternative name",
    "TLS-LEAF-IS-CA": "the server certificate is a CA certificate",
    "TLS-NO-SERVER-AUTH": "the extended key usage excludes server authentication",
    "TLS-UNUSUAL-KEY": "a key type that many clients refuse",
    "TLS-WEAK-SIGNATURE": "a SHA-1 or MD5 signature",
    "TLS-CHAIN-ORDER": "the chain is out of order; the server sends it in the right order",
    "TLS-SNI-DOUBLED": "a certificate that is never selected, because another one takes precedence",
    "TLS-KEY-PERMISSIONS": "other users can read the key file",
    "TLS-KEY-OWNER": "another user owns the key file",
    "TLS-CLIENT-CA-NOT-CA": "a client CA certificate is not marked as a CA",
    "TLS-CLIENT-CA-ENDS-SOON": "a client CA expires within 30 days",
    "TLS-CRL-SIGNATURE": "a revocation list that its CA did not sign",
    "TLS-CRL-MISSING": "a client CA has no revocation list, while others have one",
    "AUTH-KEY-SHORT": "an API key that is short enough to guess",
    "AUTH-NO-IDENTITIES": "client certificates are requested, and no identity is configured",
    "TLS-INTERMEDIATE-MISSING": "the issuer's certificate is missing from the file, and the issuer is an intermediate",
    "TLS-CHAIN-SIGNATURE": "an intermediate has the issuer's name, but another key",
    "TLS-ISSUER-NOT-CA": "the issuer of a certificate is not a CA",
    "TLS-ISSUER-KEY-USAGE": "a CA whose key usage excludes signing certificates",
    "TLS-ISSUER-USAGE": "a CA whose extended key usage excludes server certificates",
    "TLS-ISSUER-KEY-ID": "a certificate names a different issuer certificate than the one in the file",
    "TLS-PATH-LENGTH": "more intermediates than a CA allows below it",
    "TLS-NAME-CONSTRAINTS": "names that the CA may not issue for, or constraints that clients cannot check",
    "TLS-CRITICAL-EXTENSION": "a critical extension that clients do not recognize",
    "TLS-ROOT-EXPIRED": "the root has expired",
    "TLS-OTHER-CA": "the chain leads to a root that is not in `--ca`; on a reload also to another CA than before",
    "TLS-CHAIN-REFUSED": "rustls refuses the chain for another reason",
    "TLS-WEAK-KEY": "an RSA key below 2048 bits in the chain",
    "TLS-KEY-USAGE": "the key usage excludes digitalSignature",
    "TLS-EMPTY-SUBJECT": "an empty subject, with alternative names that are not critical",
    "TLS-X509-V1": "an X.509 version 1 certificate, which has no extensions. It is served",
    "TLS-IP-AS-DNS": "an IP address as a DNS name",
    "TLS-NAME-UNDERSCORE": "a name with an underscore",
    "TLS-WILDCARD": "a wildcard that some clients refuse",
    "TLS-NAME-INVALID": "an alternative name that is not a host name: a URL, a port, a space",
    "TLS-COMMON-NAME-NOT-COVERED": "a common name that is missing from the alternative names",
    "TLS-PUBLIC-CLIENT-AUTH": "a public CA's certificate that also allows client authentication",
    "TLS-CHAIN-DOUBLED": "a certificate that appears twice",
    "TLS-CHAIN-STRAY": "a certificate that does not belong to the chain",
    "TLS-ROOT-SENT": "the file contains the root",
    "TLS-LONG-LIFETIME": "a validity period longer than some clients accept",
    "TLS-PEM-TIDIED": "damaged PEM that can still be read",
    "TLS-PASSPHRASE-UNUSED": "a passphrase for an unencrypted key",
    "AUTH-KEY-NO-ROLE": "an API key without `:ro` or `:rw`",
    "TLS-DEVELOPMENT": "the development certificate does not exist yet",
    "TLS-OFF": "TLS is not configured, or switched off",
    "CONFIG-WARNING": "a setting has no effect, or is not what it seems to be",
}


def secrets(pod: Pod) -> dict[str, str]:
    return {"TLS_KEY_PASSPHRASE": passphrase(pod), "API_KEY": pod.api_key}


def check(pod: Pod, *words: str, code: int | None = None) -> list[dict]:
    """The findings; the exit code must match them, or be the given one."""
    done = run(pod, "tls", "check", "--json", *words, pod.folder, code=code, env=secrets(pod))
    findings = json.loads(done.stdout)["findings"]
    levels = {"error": True, "warning": None, "info": False}
    bad = any(
        bool(finding.get("refused_by")) if levels[finding["severity"]] is None else levels[finding["severity"]]
        for finding in findings
    )
    assert done.returncode == (1 if bad else 0), (done.returncode, findings)
    return findings


def finding(findings: list[dict], code: str) -> dict:
    """The single finding with this code."""
    found = [f for f in findings if f["code"] == code]
    assert len(found) == 1, f"{len(found)} × {code} in {[(f['code'], f['message']) for f in findings]}"
    assert found[0]["message"] and found[0]["fix"] and found[0]["origin"], found[0]
    return found[0]


def broken_pod(pod: Pod, name: str) -> None:
    """A pod with this broken piece of material, and otherwise good material."""
    piece = BROKEN[name]
    SET_UPS[piece.set_up].yaml(pod)
    lay(pod, SET_UPS[piece.set_up].good(pod))
    lay(pod, piece.make(pod))


# The commands of a fix


def commands(fix: str) -> list[str]:
    """The commands to run, which are in backticks."""
    return [text for text in re.findall(r"`([^`]+)`", fix) if " " in text]


def with_passwords(pod: Pod, command: str) -> str:
    """Puts the passwords that a person would type on the command line; changes nothing else."""
    steps = []
    for step in command.split(" && "):
        words = step.split(" ")
        if words[:2] == ["openssl", "pkcs12"]:
            words[2:2] = ["-passin", f"pass:{broken.PASSWORD}"]
        elif words[:2] == ["openssl", "pkcs8"]:
            word = shlex.quote(f"pass:{passphrase(pod)}")
            words[2:2] = ["-passin", word, "-passout", word]
        elif words[0] == "keytool":
            words += ["-srcstorepass", broken.PASSWORD, "-deststorepass", broken.PASSWORD, "-noprompt"]
        steps.append(" ".join(words))
    return " && ".join(steps)


def in_shell(pod: Pod, command: str):
    """Runs a command as a person would, in the pod's directory; prompts get no input."""
    return subprocess.run(
        ["setsid", "sh", "-c", with_passwords(pod, command)],
        cwd=pod.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


# The page

_HEAD = """<!-- Generated by conformance/tls/test_broken_material.py with SPICED_WRITE_DOCS=1. Do not edit this page. -->

# Findings of `spiced tls check`

[`spiced tls check`](certificates.md#the-doctor) reports each problem under a stable code. A start and a rejected reload
log the same code, message and fix. An error stops the start with exit code 78, unless its row says otherwise; a reload
that finds one keeps the current configuration. A test prints every row of this page.
"""
_LEVELS = {"error": "Errors", "warning": "Warnings", "info": "Notes"}


def row(pod: Pod, found: dict) -> str:
    """A row of the page, without details that differ between runs."""

    def tidy(text: str) -> str:
        return text.replace(str(pod.folder), "/etc/spice").replace("|", "\\|")

    shown = [f"`{found['code']}`", MEANS[found["code"]], tidy(found["message"]), tidy(found["fix"])]
    return "| " + " | ".join(shown) + " |"


def page(make_pod) -> str:
    """The whole page: for each code, the first piece of the corpus that has it."""
    rows: dict[str, tuple[str, str]] = {}
    for name, piece in BROKEN.items():
        if piece.code not in rows:
            pod = make_pod()
            broken_pod(pod, name)
            found = finding(check(pod), piece.code)
            rows[piece.code] = (found["severity"], row(pod, found))
    for code, odd in ODD.values():
        if code not in rows:
            pod = make_pod()
            odd.make(pod)
            found = finding(check(pod, *odd.words), code)
            rows[code] = (found["severity"], row(pod, found))
    assert rows.keys() == MEANS.keys(), rows.keys() ^ MEANS.keys()
    text = _HEAD
    for level, title in _LEVELS.items():
        text += f"\n## {title}\n\n| code | problem | example message | fix |\n| --- | --- | --- | --- |\n"
        text += "".join(f"{rows[code][1]}\n" for code in MEANS if rows[code][0] == level)
    return text
