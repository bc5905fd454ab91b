"""Encrypted keys: `key_passphrase`, in each format that OpenSSL writes; a passphrase is never printed."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import re
import signal

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from harness import broken, clients
from harness.certificates import key_pem
from harness.clients import assert_serves
from harness.commands import run
from harness.doctor import finding
from harness.leak_scanner import LEDGER
from harness.metrics import total
from harness.pod import ENDPOINTS
from harness.waiting import eventually

# PKCS#8 (RFC 5958, RFC 8018): PBES2 with each cipher and each key derivation function.
PKCS8 = {
    "aes-128-cbc": ["-v2", "aes-128-cbc"],
    "aes-192-cbc": ["-v2", "aes-192-cbc"],
    "aes-256-cbc": ["-v2", "aes-256-cbc"],
    "des3": ["-v2", "des3"],
    "hmacWithSHA1": ["-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA1"],
    "hmacWithSHA256": ["-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA256"],
    "hmacWithSHA512": ["-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA512"],
    "des3, hmacWithSHA1": ["-v2", "des3", "-v2prf", "hmacWithSHA1"],
    "100,000 rounds": ["-v2", "aes-256-cbc", "-iter", "100000"],
    "one round": ["-v2", "aes-256-cbc", "-iter", "1"],
    "scrypt": ["-scrypt"],
    "scrypt, costlier": ["-scrypt", "-scrypt_N", "8192", "-scrypt_r", "16", "-scrypt_p", "3"],
}
# OpenSSL's older format (`Proc-Type: 4,ENCRYPTED`, RFC 1421 §4.6.1.1).
LEGACY = ["aes128", "aes192", "aes256", "des3"]
KINDS = ["p256", "p384", "rsa2048", "ed25519"]
PASSPHRASES = {
    "zeros before": "00123",
    "a number": "1e5",
    "a word of YAML": "no",
    "blanks": " two words and a blank at the end ",
    "not ASCII": "пароль-Kennwort-ä-密",
    "quotes": "it's \"quoted\" \\ $HOME ${nothing} `x`",
    "a colon and a hash": "a: b # c",
    "long": "long " * 50 + "end",
    "one letter": "q",
}


def encrypted(pod, pair, words: list[str], passphrase: str) -> str:
    """The key, encrypted by `openssl pkcs8`, `rsa` or `ec`; the passphrase is passed in a file."""
    file = pod.home / "passphrase"
    file.write_bytes(passphrase.encode() + b"\n")
    return broken.with_openssl(pod, pair.key_text, *words, "-passout", f"file:{file}")


def legacy(pod, pair, cipher: str, passphrase: str) -> str:
    words = ["rsa", "-traditional"] if isinstance(pair.key, rsa.RSAPrivateKey) else ["ec"]
    text = encrypted(pod, pair, [*words, f"-{cipher}"], passphrase)
    assert "Proc-Type: 4,ENCRYPTED" in text, text
    return text


def serve(pod, pair, key: str, passphrase: str, **more):
    """A server whose passphrase comes from a variable, by reference."""
    pod.write("tls.crt", pair.certificate)
    pod.write("tls.key", key)
    setting = {"key_passphrase": "${env:TLS_KEY_PASSPHRASE}"}
    pod.yaml(tls={"certificate_file": "tls.crt", "key_file": "tls.key", **setting})
    return pod.serve(env={"TLS_KEY_PASSPHRASE": passphrase}, **more)


@pytest.fixture
def word():
    return LEDGER.mark("a passphrase")


# Forms


@pytest.mark.parametrize("words", PKCS8.values(), ids=PKCS8.keys())
def test_pkcs8(pod, word, words):
    key = encrypted(pod, pod.pair, ["pkcs8", "-topk8", *words], word)
    assert "BEGIN ENCRYPTED PRIVATE KEY" in key
    server = serve(pod, pod.pair, key, word)
    assert_serves(server, pod.pair)
    assert not server.logged("WARN", "ERROR"), server.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_pkcs8_of_each_kind_of_key(pod, word, kind):
    pair = pod.ca.issue(kind=kind)
    server = serve(pod, pair, encrypted(pod, pair, ["pkcs8", "-topk8"], word), word)
    for endpoint in ENDPOINTS:
        assert clients.presented(server, endpoint) == pair.der


@pytest.mark.parametrize("cipher", LEGACY)
@pytest.mark.parametrize("kind", ["rsa2048", "p256", "p384"])
def test_proc_type(pod, word, kind, cipher):
    pair = pod.ca.issue(kind=kind)
    server = serve(pod, pair, legacy(pod, pair, cipher, word), word)
    assert_serves(server, pair)


def test_proc_type_behind_parameters(pod, word):
    """As `openssl ecparam -genkey | openssl ec -aes256` writes it, preceded by the curve's name."""
    key = broken.EC_PARAMETERS + legacy(pod, pod.pair, "aes256", word)
    assert_serves(serve(pod, pod.pair, key, word), pod.pair)


def test_crlf(pod, word):
    key = legacy(pod, pod.pair, "aes256", word).replace("\n", "\r\n")
    assert_serves(serve(pod, pod.pair, key, word), pod.pair)


@pytest.mark.parametrize("form", ["pkcs8", "legacy"])
def test_inline_by_reference(pod, word, form):
    """Key and passphrase both come from variables, with newlines written as `\\n`."""
    key = encrypted(pod, pod.pair, ["pkcs8", "-topk8"], word) if form == "pkcs8" else legacy(pod, pod.pair, "aes128", word)
    refers = {"certificate": "${env:CRT}", "key": "${env:KEY}", "key_passphrase": "${env:WORD}"}
    pod.yaml(tls=refers)
    server = pod.serve(env={"CRT": pod.pair.certificate, "KEY": key.replace("\n", "\\n"), "WORD": word})
    assert_serves(server, pod.pair)


# Passphrases


@pytest.mark.parametrize("form", ["pkcs8", "legacy"])
@pytest.mark.parametrize("passphrase", PASSPHRASES.values(), ids=PASSPHRASES.keys())
def test_a_passphrase_is_used_unchanged(pod, passphrase, form):
    make = {"pkcs8": lambda: encrypted(pod, pod.pair, ["pkcs8", "-topk8"], passphrase), "legacy": lambda: legacy(pod, pod.pair, "aes256", passphrase)}
    assert_serves(serve(pod, pod.pair, make[form](), passphrase), pod.pair)


WAYS = ["environment", "plain in the pod", "not quoted in the pod", "a file store", "the .env file", "the variable of the setting"]


@pytest.mark.parametrize("way", WAYS)
def test_where_a_passphrase_may_come_from(pod, way):
    word = "00123"
    pod.write("tls.key", encrypted(pod, pod.pair, ["pkcs8", "-topk8"], word))
    pod.write("tls.crt", pod.pair.certificate)
    tls = {"certificate_file": "tls.crt", "key_file": "tls.key"}
    env, more = {}, {}
    if way == "environment":
        tls["key_passphrase"], env = "${env:WORD}", {"WORD": word}
    elif way == "plain in the pod":
        tls["key_passphrase"] = word
    elif way == "a file store":
        pod.write("secrets/word", word)
        tls["key_passphrase"], more = "${mount:word}", {"secrets": [{"from": f"file:{pod.folder}/secrets", "name": "mount"}]}
    elif way == "the .env file":
        pod.write(".env", f"WORD={word}\n")
        tls["key_passphrase"] = "${secrets:WORD}"
    elif way == "the variable of the setting":
        env = {"SPICED_RUNTIME__TLS__KEY_PASSPHRASE": word}
    path = pod.yaml(tls=tls, **more)
    if way == "not quoted in the pod":
        path.write_text(path.read_text().replace("key_file: tls.key", "key_file: tls.key\n    key_passphrase: 'x'").replace("'x'", '"00123"'))
    assert_serves(pod.serve(env=env), pod.pair)


def test_a_newline_at_the_end_of_a_secret_is_ignored(pod, word):
    """A secret that `kubectl create secret --from-file` made from an edited file: its final newline is not part of the
    passphrase.
    """
    pod.write("tls.key", encrypted(pod, pod.pair, ["pkcs8", "-topk8"], word))
    pod.write("tls.crt", pod.pair.certificate)
    pod.write("secrets/word", f"{word}\n")
    pod.yaml(
        secrets=[{"from": f"file:{pod.folder}/secrets", "name": "mount"}],
        tls={"certificate_file": "tls.crt", "key_file": "tls.key", "key_passphrase": "${mount:word}"},
    )
    assert_serves(pod.serve(), pod.pair)


# Wrong and missing


@pytest.mark.parametrize("form", ["pkcs8", "scrypt", "legacy"])
@pytest.mark.parametrize("wrong", ["another", "empty", "with a blank", "in capitals", "missing"])
def test_wrong_and_missing(pod, word, form, wrong):
    key = {
        "pkcs8": lambda: encrypted(pod, pod.pair, ["pkcs8", "-topk8"], word),
        "scrypt": lambda: encrypted(pod, pod.pair, ["pkcs8", "-topk8", "-scrypt"], word),
        "legacy": lambda: legacy(pod, pod.pair, "aes256", word),
    }[form]()
    pod.write("tls.key", key)
    pod.write("tls.crt", pod.pair.certificate)
    tls = {"certificate_file": "tls.crt", "key_file": "tls.key"}
    given = {"another": LEDGER.mark("another passphrase"), "empty": "", "with a blank": f"{word} ", "in capitals": word.upper()}.get(wrong)
    LEDGER.add("another passphrase", word.upper())
    if given is not None:
        tls["key_passphrase"] = "${env:WORD}"
    pod.yaml(tls=tls)
    env = {"WORD": given} if given is not None else {}
    # The ledger holds both passphrases, and the output is checked against it.
    refusal = pod.refuse(env=env)
    if wrong == "empty":
        refusal.names("WORD")
        return
    code = "TLS-KEY-ENCRYPTED" if given is None else "TLS-KEY-PASSPHRASE"
    refusal.names("tls.key", "passphrase" if given is None else "does not decrypt")
    found = json.loads(run(pod, "tls", "check", "--json", pod.folder, code=1, env=env).stdout)["findings"]
    assert finding(found, code)["severity"] == "error"


def _opens_by_chance(decrypt) -> str:
    """Finds a wrong passphrase whose last block ends in valid padding, as one in 256 does (RFC 5652 §6.3)."""
    for number in itertools.count():
        guess = f"guess{number}"
        last = decrypt(guess.encode())[-16:]
        if 1 <= last[-1] <= 16 and last.endswith(bytes([last[-1]]) * last[-1]):
            return guess


def _cbc(key: bytes, iv: bytes):
    return Cipher(algorithms.AES(key), modes.CBC(iv))


def _legacy_key(passphrase: bytes, salt: bytes) -> bytes:
    """EVP_BytesToKey with MD5 and one round, for AES-256."""
    made = b""
    while len(made) < 32:
        made += hashlib.md5(made[-16:] + passphrase + salt).digest()
    return made[:32]


@pytest.mark.parametrize("form", ["pkcs8", "legacy"])
@pytest.mark.parametrize("kind", ["p256", "rsa2048"])
def test_a_wrong_passphrase_whose_padding_looks_right(pod, word, kind, form):
    """The decrypted data is noise; the report blames the passphrase, not the key."""
    pair = pod.ca.issue(kind=kind)
    if form == "legacy":
        key = legacy(pod, pair, "aes256", word)
        iv = bytes.fromhex(re.search(r"DEK-Info: AES-256-CBC,([0-9A-F]{32})", key)[1])
        data = base64.b64decode(key.split("\n\n")[1].split("-----")[0])

        def decrypt(guess: bytes) -> bytes:
            cipher = _cbc(_legacy_key(guess, iv[:8]), iv).decryptor()
            return cipher.update(data) + cipher.finalize()

    else:
        salt, iv = os.urandom(16), os.urandom(16)

        def key_for(guess: bytes) -> bytes:
            return hashlib.pbkdf2_hmac("sha256", guess, salt, 1, 32)

        plain = broken.der(pair.key)
        plain += bytes([16 - len(plain) % 16]) * (16 - len(plain) % 16)
        cipher = _cbc(key_for(word.encode()), iv).encryptor()
        data = cipher.update(plain) + cipher.finalize()
        key = _pbes2(_pbkdf2(1, salt), iv, data)
        assert_serves(serve(pod, pair, key, word), pair)  # the right passphrase works

        def decrypt(guess: bytes) -> bytes:
            cipher = _cbc(key_for(guess), iv).decryptor()
            return cipher.update(data) + cipher.finalize()

    wrong = _opens_by_chance(decrypt)
    pod.write("tls.crt", pair.certificate)
    pod.write("tls.key", key)
    pod.yaml(tls={"certificate_file": "tls.crt", "key_file": "tls.key", "key_passphrase": "${env:WORD}"})
    pod.refuse(env={"WORD": wrong}).names("does not decrypt the private key")


def test_nothing_shows_a_passphrase(pod, word):
    """`config explain`, the status, logs at the highest level, and the metrics."""
    server = serve(pod, pod.pair, encrypted(pod, pod.pair, ["pkcs8", "-topk8"], word), word)
    env = {"TLS_KEY_PASSPHRASE": word}
    for words in (["config", "explain"], ["config", "explain", "--json"], ["secrets", "check"], ["tls", "check"]):
        said = run(pod, *words, pod.folder, env=env)  # scanned for secrets
        assert words[0] != "config" or b"key_passphrase" in said.stdout
    LEDGER.assert_clean(clients.get(server, "/v1/status").ok().body, "/v1/status")
    loud = pod.serve("-vv", env={**env, "SPICED_LOG": "trace"})
    clients.get(loud, "/health").ok()


def test_a_passphrase_in_the_pod_is_masked(pod):
    word = LEDGER.mark("a passphrase")
    pod.write("tls.key", encrypted(pod, pod.pair, ["pkcs8", "-topk8"], word))
    pod.write("tls.crt", pod.pair.certificate)
    pod.yaml(tls={"certificate_file": "tls.crt", "key_file": "tls.key", "key_passphrase": word})
    run(pod, "config", "explain", pod.folder)
    run(pod, "config", "explain", "--json", pod.folder)
    assert_serves(pod.serve(), pod.pair)


def test_a_passphrase_for_an_unencrypted_key(pod, word):
    server = serve(pod, pod.pair, pod.pair.key_text, word)
    assert_serves(server, pod.pair)
    (said,) = server.logged(match="TLS-PASSPHRASE-UNUSED")
    assert said["level"] == "INFO", said


def test_a_passphrase_without_a_key(pod, word):
    pod.yaml(tls={"key_passphrase": "${env:WORD}"})
    pod.refuse(env={"WORD": word}).names("key_passphrase")


# Rotation


def test_key_and_passphrase_rotate_together(pod):
    """From a store: in any order of the changes, no handshake fails, and the new pair is used once all parts are there.
    """
    folder = pod.folder / "secrets"

    def store(name: str, text: str) -> None:
        pod.write(folder / f"{name}.new", text)
        os.replace(folder / f"{name}.new", folder / name)

    def files(pair, word):
        return {"key": key_pem(pair.key, passphrase=word.encode()), "crt": pair.certificate, "word": word}

    for name, text in files(pod.pair, LEDGER.mark("a passphrase")).items():
        store(name, text)
    refers = {"certificate": "${mount:crt}", "key": "${mount:key}", "key_passphrase": "${mount:word}"}
    pod.yaml(
        secrets=[{"from": f"file:{folder}", "name": "mount", "refresh_interval": "1s"}],
        tls=refers,
    )
    server = pod.serve("--metrics", "localhost:0")
    for order in (["word", "key", "crt"], ["crt", "key", "word"]):
        before = clients.presented(server)
        renewed = pod.ca.issue(common_name="renewed")
        new = files(renewed, LEDGER.mark("a new passphrase"))
        for name in order[:-1]:
            store(name, new[name])
            server.signal(signal.SIGHUP)
            clients.get(server, "/health").ok()
        assert clients.presented(server) == before, "a partial change is never loaded"
        store(order[-1], new[order[-1]])
        eventually(lambda: clients.presented(server) == renewed.der, "the new pair", 60)
    for endpoint in ENDPOINTS:
        assert clients.presented(server, endpoint) == renewed.der
    assert total(server, "spiced_tls_reload_total", result="swapped") == 2


def test_from_plain_to_encrypted_and_back(pod, word):
    """The passphrase is set before it is needed; the key file changes later."""
    server = serve(pod, pod.pair, pod.pair.key_text, word)
    for make in (lambda p: encrypted(pod, p, ["pkcs8", "-topk8"], word), lambda p: legacy(pod, p, "aes256", word), lambda p: p.key_text):
        renewed = pod.ca.issue(common_name="renewed")
        pod.write("tls.key", make(renewed))
        pod.write("tls.crt", renewed.certificate)
        eventually(lambda: clients.presented(server) == renewed.der, "the next one")


def test_one_key_is_encrypted_again(pod):
    """The same key and certificate under another passphrase: nothing is swapped, and nothing fails."""
    folder = pod.folder / "secrets"
    words = [LEDGER.mark("a passphrase"), LEDGER.mark("a new passphrase")]
    pod.write("tls.crt", pod.pair.certificate)
    pod.write("tls.key", key_pem(pod.pair.key, passphrase=words[0].encode()))
    pod.write(folder / "word", words[0])
    pod.yaml(
        secrets=[{"from": f"file:{folder}", "name": "mount", "refresh_interval": "1s"}],
        tls={"certificate_file": "tls.crt", "key_file": "tls.key", "key_passphrase": "${mount:word}"},
    )
    server = pod.serve("--metrics", "localhost:0")
    pod.write(folder / "word", words[1])
    pod.write("tls.key", key_pem(pod.pair.key, passphrase=words[1].encode()))
    server.signal(signal.SIGHUP)
    server.wait_for_log(match="unchanged|reloaded")
    assert_serves(server, pod.pair)
    renewed = pod.ca.issue(common_name="renewed")
    pod.write("tls.key", key_pem(renewed.key, passphrase=words[1].encode()))
    pod.write("tls.crt", renewed.certificate)
    eventually(lambda: clients.presented(server) == renewed.der, "the next one, under the new passphrase")


def test_a_list_of_encrypted_pairs(pod):
    """Each with its own passphrase, next to one without."""
    env, more = {}, []
    pairs = {}
    for number, form in enumerate(["pkcs8", "legacy", "plain"]):
        word = LEDGER.mark("a passphrase")
        name = f"{form}.example.com"
        pair = pairs[name] = pod.ca.issue((name,), common_name=form)
        key = {"pkcs8": lambda: encrypted(pod, pair, ["pkcs8", "-topk8"], word), "legacy": lambda: legacy(pod, pair, "aes256", word), "plain": lambda: pair.key_text}[form]()
        pod.write(f"{form}.crt", pair.certificate)
        pod.write(f"{form}.key", key)
        entry = {"certificate_file": f"{form}.crt", "key_file": f"{form}.key"}
        if form != "plain":
            env[f"WORD{number}"] = word
            entry["key_passphrase"] = f"${{env:WORD{number}}}"
        more.append(entry)
    pod.yaml(tls={**pod.write_pair(), "certificates": more})
    server = pod.serve(env=env)
    for name, pair in pairs.items():
        said = clients.s_client(server.port("http"), "-servername", name)
        assert pair.certificate.splitlines()[1] in said, name
    assert not server.logged(match="PASSPHRASE-UNUSED")
    # The passphrase of the top-level pair applies to that pair only.
    pod.write("pkcs8.key", encrypted(pod, pairs["pkcs8.example.com"], ["pkcs8", "-topk8"], LEDGER.mark("another passphrase")))
    said = server.wait_for_log("ERROR", match="is rejected")["fields"]
    assert "certificates[0]" in said["reason"] and "does not decrypt" in said["reason"], said


def _der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body)
    length = bytes([size] if size < 128 else [0x81, size] if size < 256 else [0x82, size >> 8, size & 255])
    return bytes([tag]) + length + body


def _number(value: int) -> bytes:
    return _der(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _pbes2(kdf: bytes, iv: bytes, data: bytes) -> str:
    """An EncryptedPrivateKeyInfo (RFC 5958 §3, RFC 8018 §A.4), AES-256-CBC."""
    pbes2, aes256 = bytes.fromhex("06092a864886f70d01050d"), bytes.fromhex("060960864801650304012a")
    algorithm = _der(0x30, pbes2, _der(0x30, kdf, _der(0x30, aes256, _der(4, iv))))
    return broken.wrapped("ENCRYPTED PRIVATE KEY", _der(0x30, algorithm, _der(4, data)))


def _dear(kdf: bytes) -> str:
    """An encrypted key of noise whose decryption costs what `kdf` states."""
    return _pbes2(kdf, os.urandom(16), os.urandom(144))


def _pbkdf2(rounds: int, salt: bytes = b"0123456789abcdef") -> bytes:
    sha256 = _der(0x30, bytes.fromhex("06082a864886f70d0209"), b"\x05\x00")
    name = bytes.fromhex("06092a864886f70d01050c")
    return _der(0x30, name, _der(0x30, _der(4, salt), _number(rounds), sha256))


def _scrypt(n: int, r: int, p: int) -> bytes:
    name = bytes.fromhex("06092b06010401da47040b")
    return _der(0x30, name, _der(0x30, _der(4, os.urandom(16)), _number(n), _number(r), _number(p)))


DEAR = {
    "PBKDF2, two thousand million rounds": _pbkdf2(2_000_000_000),
    "PBKDF2, more than 64 bits": _pbkdf2(1 << 80),
    "scrypt, 4 GiB": _scrypt(1 << 22, 8, 1),
    "scrypt, a million times": _scrypt(1 << 14, 8, 1 << 20),
    "scrypt, N no power of two": _scrypt(12345, 8, 1),
}


@pytest.mark.parametrize("kdf", DEAR.values(), ids=DEAR.keys())
def test_what_a_key_may_cost_is_bounded(pod, word, kdf):
    """A file states the cost of its passphrase; neither a start nor a reload spends unlimited time or memory on it."""
    pod.write("tls.key", _dear(kdf))
    pod.write("tls.crt", pod.pair.certificate)
    pod.yaml(tls={"certificate_file": "tls.crt", "key_file": "tls.key", "key_passphrase": "${env:WORD}"})
    pod.refuse(env={"WORD": word}).names("tls.key")

    server = serve(pod, pod.pair, pod.pair.key_text, word)
    server.forget_peak()
    pod.write("tls.key", _dear(kdf))
    server.wait_for_log("ERROR", match="is rejected")
    assert server.memory("VmHWM") < 600 << 20
    assert clients.sql(server, "SELECT 1 AS x").ok().json() == [{"x": 1}]
