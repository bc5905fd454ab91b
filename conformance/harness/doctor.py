"""What the doctor says of a pod, and docs/doctor.md, which is made of it."""

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

# What each code means, in the order of the page.
MEANS = {
    "TLS-UNREADABLE": "the file is not there, is a folder, or may not be read",
    "TLS-EMPTY": "there is nothing in it",
    "TLS-NOT-PEM": "it is no PEM, nor anything that is known",
    "TLS-DER": "certificate or key in DER, the binary form",
    "TLS-PKCS12": "a PKCS#12 store (`.p12`, `.pfx`)",
    "TLS-JKS": "a Java keystore",
    "TLS-PKCS7": "PKCS#7 (`.p7b`): certificates, and no key",
    "TLS-KUBERNETES-SECRET": "a Kubernetes Secret as `kubectl get` prints it, not a value of it",
    "TLS-PUTTY": "a key of PuTTY's",
    "TLS-SSH-PUBLIC-KEY": "a public key of SSH's",
    "TLS-ARCHIVE": "an archive: zip, gzip, tar and others",
    "TLS-FILE-ENCRYPTED": "a file that SOPS, age, Ansible Vault, git-crypt or OpenPGP has encrypted",
    "TLS-GIT-LFS": "a pointer of Git LFS, not the file",
    "TLS-TEXT-OUTPUT": "what `openssl … -text -noout` prints, without the PEM",
    "TLS-PATH-AS-PEM": "a path where the PEM text itself belongs",
    "TLS-HTML": "a web page: a download that asked for a password, say",
    "TLS-PEM-CUT": "a PEM block has no end",
    "TLS-PEM-DAMAGED": "a PEM block is not base64",
    "TLS-SWAPPED": "a key where the certificate belongs, or the other way round",
    "TLS-NO-CERTIFICATE": "PEM, and no certificate in it: a request, a public key, a revocation list",
    "TLS-CERTIFICATE-UNUSABLE": "what the PEM holds is no certificate that TLS can use",
    "TLS-NO-KEY": "PEM, and no private key in it",
    "TLS-SEVERAL-KEYS": "more than one private key",
    "TLS-KEY-ENCRYPTED": "an encrypted key without its passphrase",
    "TLS-KEY-PASSPHRASE": "a passphrase that does not open the key",
    "TLS-KEY-CIPHER": "a key that is encrypted with what is not supported",
    "TLS-KEY-UNUSABLE": "a kind or size of key that is not supported: RSA 1024, DSA, secp256k1, Ed448",
    "TLS-KEY-MISMATCH": "the key is not the certificate's",
    "TLS-EXPIRED": "the certificate has ended. A start serves it, a reload does not take it",
    "TLS-NOT-YET-VALID": "the certificate has not begun. A start serves it, a reload takes it when its time comes",
    "TLS-CLIENT-CA": "no certificate where the CA of client certificates belongs",
    "TLS-CRL": "no revocation list where one belongs",
    "TLS-NAME-NOT-COVERED": "the certificate is not for a name that `--name` gives",
    "AUTH-KEYS": "an API key, or its hash, that cannot be",
    "TLS-INTERMEDIATE-EXPIRED": "an intermediate has ended. A start serves the chain",
    "TLS-INTERMEDIATE-NOT-YET-VALID": "an intermediate has not begun. A start serves the chain",
    "TLS-CLIENT-CA-EXPIRED": "a CA of client certificates has ended",
    "TLS-CLIENT-CA-NOT-YET-VALID": "a CA of client certificates has not begun",
    "TLS-CRL-OUT-OF-DATE": "a revocation list has ended",
    "TLS-ENDS-SOON": "the certificate ends within 30 days; within 7 it is an error",
    "TLS-INTERMEDIATE-ENDS-SOON": "an intermediate ends within 30 days",
    "TLS-NO-SAN": "the certificate has no subject alternative name",
    "TLS-LEAF-IS-CA": "the certificate is a CA's",
    "TLS-NO-SERVER-AUTH": "the certificate is not for servers",
    "TLS-UNUSUAL-KEY": "a kind of key that many clients refuse",
    "TLS-WEAK-SIGNATURE": "a signature with SHA-1 or MD5",
    "TLS-CHAIN-ORDER": "the chain is not in order",
    "TLS-SNI-DOUBLED": "a pair that another pair always answers for",
    "TLS-KEY-PERMISSIONS": "others may read the key file",
    "TLS-KEY-OWNER": "the key file is another user's",
    "TLS-CLIENT-CA-NOT-CA": "a CA of client certificates is not marked as a CA",
    "TLS-CLIENT-CA-ENDS-SOON": "a CA of client certificates ends within 30 days",
    "TLS-CRL-MISSING": "a CA of client certificates has no revocation list, and others have one",
    "AUTH-KEY-SHORT": "an API key that may be guessed",
    "AUTH-NO-IDENTITIES": "client certificates are asked for, and no identity is named",
    "TLS-INTERMEDIATE-MISSING": "the issuer's certificate is not in the file, and all says that it is no root",
    "TLS-CHAIN-SIGNATURE": "an intermediate has the issuer's name, and another key",
    "TLS-ISSUER-NOT-CA": "a certificate is issued by one that is no CA's",
    "TLS-ISSUER-KEY-USAGE": "a CA that may not sign certificates",
    "TLS-ISSUER-USAGE": "a CA that may not issue certificates for servers",
    "TLS-ISSUER-KEY-ID": "a certificate that names another issuer's certificate than the one in the file",
    "TLS-PATH-LENGTH": "more intermediates than a CA allows below it",
    "TLS-NAME-CONSTRAINTS": "names that the CA may not issue for, or constraints that a client cannot check",
    "TLS-CRITICAL-EXTENSION": "a critical extension that clients do not know",
    "TLS-ROOT-EXPIRED": "the root has ended",
    "TLS-OTHER-CA": "the chain leads to another root than those of `--ca`",
    "TLS-CHAIN-REFUSED": "rustls refuses the chain for a reason of its own",
    "TLS-WEAK-KEY": "an RSA key of less than 2048 bits",
    "TLS-KEY-USAGE": "the key usage leaves out digitalSignature",
    "TLS-EMPTY-SUBJECT": "no subject, and alternative names that are not critical",
    "TLS-X509-V1": "X.509 version 1, which has no extensions. It is served",
    "TLS-IP-AS-DNS": "an address among the DNS names",
    "TLS-NAME-UNDERSCORE": "a name with an underscore",
    "TLS-WILDCARD": "a wildcard of a kind that some clients refuse",
    "TLS-NAME-INVALID": "an alternative name that is no host name: a URL, a port, a blank",
    "TLS-COMMON-NAME-NOT-COVERED": "a common name that is none of the alternative names",
    "TLS-PUBLIC-CLIENT-AUTH": "a public CA's certificate for clients, too",
    "TLS-CHAIN-DOUBLED": "the same certificate twice",
    "TLS-CHAIN-STRAY": "a certificate that is no part of the chain",
    "TLS-ROOT-SENT": "the root is in the file",
    "TLS-LONG-LIFETIME": "the certificate lives longer than some clients accept",
    "TLS-PEM-TIDIED": "the PEM was deformed on its way, and is read all the same",
    "TLS-PASSPHRASE-UNUSED": "a passphrase for a key that is not encrypted",
    "AUTH-KEY-NO-ROLE": "an API key without `:ro` or `:rw`",
    "TLS-DEVELOPMENT": "there is no development certificate yet",
    "TLS-OFF": "nothing asks for TLS",
}


def secrets(pod: Pod) -> dict[str, str]:
    return {"TLS_KEY_PASSPHRASE": passphrase(pod), "API_KEY": pod.api_key}


def check(pod: Pod, *words: str, code: int | None = None) -> list[dict]:
    """The findings; the exit code has to fit them, or be the one that is given."""
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
    """The one with this code."""
    found = [f for f in findings if f["code"] == code]
    assert len(found) == 1, f"{len(found)} × {code} in {[(f['code'], f['message']) for f in findings]}"
    assert found[0]["message"] and found[0]["fix"] and found[0]["origin"], found[0]
    return found[0]


def broken_pod(pod: Pod, name: str) -> None:
    """A pod whose material is this broken piece, and nothing else of it."""
    piece = BROKEN[name]
    SET_UPS[piece.set_up].yaml(pod)
    lay(pod, SET_UPS[piece.set_up].good(pod))
    lay(pod, piece.make(pod))


# The commands of a fix


def commands(fix: str) -> list[str]:
    """What stands in backticks and is to be run."""
    return [text for text in re.findall(r"`([^`]+)`", fix) if " " in text]


def with_passwords(pod: Pod, command: str) -> str:
    """A person types the passwords; here they go to the command line, and nothing else is changed."""
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
    """Run as a person would, in the pod's folder; nothing answers what it may still ask."""
    return subprocess.run(
        ["setsid", "sh", "-c", with_passwords(pod, command)],
        cwd=pod.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


# The page

_HEAD = """<!-- Made by conformance/test_broken_material.py (SPICED_WRITE_DOCS=1) from what the doctor prints; changes here are lost. -->

# What the doctor says

`spiced tls check` has a stable code for each thing that it finds ([how to run it](certificates.md#the-doctor)); a start prints the
same message and hint, and a reload that is rejected logs them. Each row is printed by a test as it stands here. An error stops a
start with exit code 78, where its row does not say otherwise; a reload keeps what served before.
"""
_LEVELS = {"error": "Errors", "warning": "Warnings", "info": "For your information"}


def row(pod: Pod, found: dict) -> str:
    """A line of the page, without what differs from run to run."""

    def tidy(text: str) -> str:
        return text.replace(f"{pod.folder}/", "/etc/spice/").replace("|", "\\|")

    shown = [f"`{found['code']}`", MEANS[found["code"]], tidy(found["message"]), tidy(found["fix"])]
    return "| " + " | ".join(shown) + " |"


def page(make_pod) -> str:
    """The whole page: of each code the first piece of the corpus that has it."""
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
        text += f"\n## {title}\n\n| code | means | as it is said | do |\n| --- | --- | --- | --- |\n"
        text += "".join(f"{rows[code][1]}\n" for code in MEANS if rows[code][0] == level)
    return text
