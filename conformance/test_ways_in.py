"""All ways in: where the certificate and key may come from, and in what shape."""

from __future__ import annotations

import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from harness import clients
from harness.certificates import DEFORMED, LOCAL, Authority, Pair, certificate_pem, key_pem, self_signed
from harness.ledger import LEDGER
from harness.pod import DOORS, Pod
from harness.server import Server

FILES = {"enabled": True, "certificate_file": "certs/tls.crt", "key_file": "certs/tls.key"}


def assert_serves(server: Server, pair: Pair, doors=DOORS) -> None:
    """Every door presents this certificate, and curl, which trusts the test's authority, gets an answer."""
    for door in doors:
        assert server.tls(door), f"the {door} door speaks plain text"
        assert clients.presented(server, door) == pair.der, f"another certificate on the {door} door"
    assert clients.rows(server, "SELECT 1 AS x") == [{"x": 1}]


# Where it comes from. Each gives the arguments for `serve`.


def files(pod: Pod):
    pod.yaml(tls={"enabled": True, **pod.write_pair()})


def files_relative_to_pod(pod: Pod):
    pod.write_pair(stem="certs/tls")
    pod.yaml(tls=FILES)


def files_behind_symlinks(pod: Pod):
    """As Kubernetes mounts a secret."""
    pod.write_pair(stem="certs/..2026_11_23/tls")
    (pod.folder / "certs/..data").symlink_to("..2026_11_23")
    for name in ("tls.crt", "tls.key"):
        (pod.folder / "certs" / name).symlink_to(f"..data/{name}")
    pod.yaml(tls=FILES)


def inline(pod: Pod):
    pod.yaml(tls={"enabled": True, **pod.inline_pair()})


def material_alone_enables(pod: Pod):
    pod.yaml(tls=pod.write_pair())


def file_and_inline_mixed(pod: Pod):
    pod.yaml(tls={"certificate_file": pod.write_pair()["certificate_file"], "key": pod.pair.key_text})


def _references(certificate: str, key: str, suffix: str = ""):
    return {"enabled": True, f"certificate{suffix}": certificate, f"key{suffix}": key}


def env_as_path(pod: Pod):
    paths = pod.write_pair()
    pod.yaml(tls=_references("${env:CERT_PATH}", "${env:KEY_PATH}", "_file"))
    return {"env": {"CERT_PATH": paths["certificate_file"], "KEY_PATH": paths["key_file"]}}


def env_as_content(pod: Pod):
    pod.yaml(tls=_references("${env:SPICE_TLS_CERT}", "${env:SPICE_TLS_KEY}"))
    return {"env": {"SPICE_TLS_CERT": pod.pair.certificate, "SPICE_TLS_KEY": pod.pair.key_text}}


def secrets_as_path(pod: Pod):
    paths = pod.write_pair()
    pod.yaml(tls=_references("${secrets:TLS_CERT_PATH}", "${secrets:TLS_KEY_PATH}", "_file"))
    return {"env": {"TLS_CERT_PATH": paths["certificate_file"], "TLS_KEY_PATH": paths["key_file"]}}


def secrets_as_content(pod: Pod):
    pod.yaml(tls=_references("${secrets:TLS_CERTIFICATE}", "${secrets:TLS_PRIVATE_KEY}"))
    return {"env": {"TLS_CERTIFICATE": pod.pair.certificate, "TLS_PRIVATE_KEY": pod.pair.key_text}}


def blanks_inside_braces(pod: Pod):
    pod.yaml(tls=_references("${ env:CERT }", "${  secrets:KEY  }"))
    return {"env": {"CERT": pod.pair.certificate, "KEY": pod.pair.key_text}}


def text_around_references(pod: Pod):
    pod.write_pair(stem="certs/tls")
    pod.yaml(tls=_references("${env:DIR}/tls.${env:CRT}", "${env:DIR}/tls.key", "_file"))
    return {"env": {"DIR": str(pod.folder / "certs"), "CRT": "crt"}}


def escaped_reference(pod: Pod):
    """`$${` is a literal `${`."""
    pod.write_pair(stem="${env:X}/tls")
    pod.yaml(tls=_references("$${env:X}/tls.crt", "$${env:X}/tls.key", "_file"))
    return {"env": {"X": "elsewhere"}}


def substituted_once(pod: Pod):
    """What comes out of a reference is never looked at again."""
    pod.write_pair(stem="${env:X}/tls")
    pod.yaml(tls=_references("${env:DIR}/tls.crt", "${env:DIR}/tls.key", "_file"))
    return {"env": {"DIR": "${env:X}", "X": "elsewhere"}}


def env_with_spice_prefix(pod: Pod):
    pod.yaml(tls=_references("${env:TLS_CERT}", "${env:TLS_KEY}"))
    return {"env": {"SPICE_TLS_CERT": pod.pair.certificate, "SPICE_TLS_KEY": pod.pair.key_text}}


def env_in_upper_case(pod: Pod):
    pod.yaml(tls=_references("${env:tls_cert}", "${secrets:tls_key}"))
    return {"env": {"TLS_CERT": pod.pair.certificate, "SPICE_TLS_KEY": pod.pair.key_text}}


def dot_env_quoted_with_newlines(pod: Pod):
    pod.write(".env", f"# made by hand\nCERT=\"{pod.pair.certificate}\"\nexport KEY='{pod.pair.key_text}'\n")
    pod.yaml(tls=_references("${env:CERT}", "${secrets:KEY}"))


def dot_env_local_before_dot_env(pod: Pod):
    paths = pod.write_pair()
    pod.write(".env", "CERT_PATH=/nowhere\nKEY_PATH=" + paths["key_file"] + "\n")
    pod.write(".env.local", "CERT_PATH=" + paths["certificate_file"] + "\n")
    pod.yaml(tls=_references("${env:CERT_PATH}", "${env:KEY_PATH}", "_file"))


def process_before_dot_env(pod: Pod):
    paths = pod.write_pair()
    pod.write(".env.local", "CERT_PATH=/nowhere\nKEY_PATH=/nowhere\n")
    pod.yaml(tls=_references("${env:CERT_PATH}", "${env:KEY_PATH}", "_file"))
    return {"env": {"CERT_PATH": paths["certificate_file"], "KEY_PATH": paths["key_file"]}}


def dot_env_without_expansion(pod: Pod):
    pod.write_pair(stem="a$HOME/tls")
    pod.write(".env", f'DIR="{pod.folder}/a$HOME"\n')
    pod.yaml(tls=_references("${env:DIR}/tls.crt", "${env:DIR}/tls.key", "_file"))


def env_store_with_file_path(pod: Pod):
    paths = pod.write_pair()
    pod.write(".env", "CERT_PATH=/nowhere\nKEY_PATH=/nowhere\n")
    other = pod.write("other.env", f"CERT_PATH={paths['certificate_file']}\nKEY_PATH={paths['key_file']}\n")
    pod.yaml(
        secrets=[{"name": "env", "from": "env", "params": {"file_path": str(other)}}],
        tls=_references("${env:CERT_PATH}", "${env:KEY_PATH}", "_file"),
    )


def file_store(pod: Pod):
    pod.write("mounted/tls.crt", pod.pair.certificate)
    pod.write("mounted/tls.key", pod.pair.key_text)
    pod.yaml(
        secrets=[{"name": "mount", "from": f"file:{pod.folder}/mounted"}],
        tls=_references("${mount:tls.crt}", "${mount:tls.key}"),
    )


def file_store_through_secrets(pod: Pod):
    pod.write("mounted/CERT", pod.pair.certificate)
    pod.yaml(
        secrets=[{"name": "mount", "from": "file:mounted"}],
        tls=_references("${secrets:CERT}", "${secrets:KEY}"),
    )
    return {"env": {"KEY": pod.pair.key_text}}  # env is asked last


def later_store_first(pod: Pod):
    pod.write("one/CERT", "not this")
    pod.write("one/KEY", pod.pair.key_text)
    pod.write("two/CERT", pod.pair.certificate)
    pod.yaml(
        secrets=[{"name": "one", "from": "file:one"}, {"name": "two", "from": "file:two"}],
        tls=_references("${secrets:CERT}", "${secrets:KEY}"),
    )
    return {"env": {"CERT": "nor this", "KEY": "nor this"}}


def _flags(paths: dict[str, str], enabled=("--tls-enabled",)):
    return [*enabled, "--tls-certificate-file", paths["certificate_file"], "--tls-key-file", paths["key_file"]]


def flags_with_files(pod: Pod):
    return {"args": _flags(pod.write_pair())}


def flags_without_the_enable_flag(pod: Pod):
    return {"args": _flags(pod.write_pair(), enabled=())}


def flags_relative_to_the_current_folder(pod: Pod):
    (pod.cwd / "here.crt").write_text(pod.pair.certificate)
    key = pod.cwd / "here.key"
    key.write_text(pod.pair.key_text)
    key.chmod(0o600)
    return {"args": _flags({"certificate_file": "here.crt", "key_file": "here.key"})}


def flags_with_text(pod: Pod):
    return {"args": ["--tls-enabled", "--tls-certificate", pod.pair.certificate, "--tls-key", pod.pair.key_text]}


def flags_with_text_after_equals(pod: Pod):
    return {"args": [f"--tls-certificate={pod.pair.certificate}", f"--tls-key={pod.pair.key_text}"]}


def flags_from_a_shell(pod: Pod):
    """`"$(cat …)"`, which takes the last newline away."""
    paths = pod.write_pair()
    script = 'exec "$0" "$@" --tls-enabled --tls-certificate "$(cat "$C")" --tls-key "$(cat "$K")"'
    return {"wrap": ["bash", "-c", script], "env": {"C": paths["certificate_file"], "K": paths["key_file"]}}


def flags_from_a_fifo(pod: Pod):
    """`<(…)` of a shell: a file that can be read once."""
    paths = pod.write_pair()
    script = 'exec "$0" "$@" --tls-certificate-file <(cat "$C") --tls-key-file <(cat "$K")'
    return {"wrap": ["bash", "-c", script], "env": {"C": paths["certificate_file"], "K": paths["key_file"]}}


def variables_with_files(pod: Pod):
    paths = pod.write_pair()
    return {
        "env": {
            "SPICED_RUNTIME__TLS__ENABLED": "true",
            "SPICED_RUNTIME__TLS__CERTIFICATE_FILE": paths["certificate_file"],
            "SPICED_RUNTIME__TLS__KEY_FILE": paths["key_file"],
        }
    }


def variables_with_text(pod: Pod):
    return {
        "env": {
            "SPICED_RUNTIME__TLS__CERTIFICATE": pod.pair.certificate,
            "SPICED_RUNTIME__TLS__KEY": pod.pair.key_text,
        }
    }


def variables_beside_service_links(pod: Pod):
    """Kubernetes gives every pod variables of this kind for a service named `spiced`."""
    pod.yaml(tls=pod.write_pair())
    return {
        "env": {
            "SPICED_PORT": "tcp://10.96.0.7:50051",
            "SPICED_SERVICE_HOST": "10.96.0.7",
            "SPICED_PORT_50051_TCP_ADDR": "10.96.0.7",
            "SPICED_RUNTIME": "none of ours",
        }
    }


def path_is_a_yaml_file(pod: Pod):
    pod.write_pair(stem="certs/tls")
    return {"path": pod.yaml(tls=FILES, file="other.yaml")}


def path_is_left_out(pod: Pod):
    pod.write_pair(stem="certs/tls")
    pod.yaml(tls=FILES)
    return {"path": None, "cwd": pod.folder}


def pod_file_named_yml(pod: Pod):
    pod.write_pair(stem="certs/tls")
    pod.yaml(tls=FILES, file="spicepod.yml")


WAYS = [
    files,
    files_relative_to_pod,
    files_behind_symlinks,
    inline,
    material_alone_enables,
    file_and_inline_mixed,
    env_as_path,
    env_as_content,
    secrets_as_path,
    secrets_as_content,
    blanks_inside_braces,
    text_around_references,
    escaped_reference,
    substituted_once,
    env_with_spice_prefix,
    env_in_upper_case,
    dot_env_quoted_with_newlines,
    dot_env_local_before_dot_env,
    process_before_dot_env,
    dot_env_without_expansion,
    env_store_with_file_path,
    file_store,
    file_store_through_secrets,
    later_store_first,
    flags_with_files,
    flags_without_the_enable_flag,
    flags_relative_to_the_current_folder,
    flags_with_text,
    flags_with_text_after_equals,
    flags_from_a_shell,
    flags_from_a_fifo,
    variables_with_files,
    variables_with_text,
    variables_beside_service_links,
    path_is_a_yaml_file,
    path_is_left_out,
    pod_file_named_yml,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_way(pod, way):
    how = way(pod) or {}
    server = pod.serve(*how.pop("args", []), **how)
    assert_serves(server, pod.pair)


def test_key_on_the_command_line_warns_about_the_process_list(pod):
    server = pod.serve("--tls-certificate", pod.pair.certificate, "--tls-key", pod.pair.key_text)
    assert server.logged("WARN", match="--tls-key"), server.stderr


# The flag `--tls-enabled`, before PATH and after it.

SPELLINGS = {
    "alone": (["--tls-enabled"], True),
    "blank-true": (["--tls-enabled", "true"], True),
    "equals-true": (["--tls-enabled=true"], True),
    "blank-false": (["--tls-enabled", "false"], False),
    "equals-false": (["--tls-enabled=false"], False),
}


@pytest.mark.parametrize("place", ["before-path", "after-path"])
@pytest.mark.parametrize("flags, on", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_flag_spelling(pod, flags, on, place):
    pod.yaml(tls=pod.write_pair())
    if place == "before-path":
        server = pod.serve(*flags)
    else:
        server = pod.serve(str(pod.folder), *flags, path=None)
    if on:
        assert_serves(server, pod.pair)
    else:
        assert not any(server.tls(door) for door in DOORS)
        assert server.logged("WARN", match="--tls-enabled"), "turning material off deserves a warning"
        assert clients.rows(server, "SELECT 1 AS x") == [{"x": 1}]


# Kinds of keys, and how they are written.

KEYS = [
    ("rsa2048", "pkcs8"),
    ("rsa2048", "pkcs1"),
    ("rsa3072", "pkcs8"),
    ("rsa3072", "pkcs1"),
    ("p256", "pkcs8"),
    ("p256", "sec1"),
    ("p256", "sec1-params"),
    ("p384", "pkcs8"),
    ("p384", "sec1"),
    ("p384", "sec1-params"),
    ("ed25519", "pkcs8"),
]


@pytest.mark.parametrize("kind, form", KEYS, ids=lambda value: value)
def test_key(pod, kind, form):
    pair = pod.ca.issue(kind=kind)
    pod.yaml(tls={"certificate_file": str(pod.write("tls.crt", pair.certificate)),
                  "key_file": str(pod.write("tls.key", key_pem(pair.key, form)))})
    server = pod.serve()
    assert_serves(server, pair)
    said = clients.s_client(server.port("http"), "-CAfile", pod.ca_file, "-verify_return_error", "-verify_hostname", "localhost")
    assert "Verify return code: 0 (ok)" in said, said


OPENSSL_KEYS = {
    "genrsa": ["genrsa", "2048"],
    "genrsa-traditional": ["genrsa", "-traditional", "2048"],
    "ecparam": ["ecparam", "-genkey", "-name", "prime256v1"],
    "ecparam-noout": ["ecparam", "-genkey", "-noout", "-name", "secp384r1"],
    "genpkey-ec": ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "genpkey-ed25519": ["genpkey", "-algorithm", "ed25519"],
}


@pytest.mark.parametrize("command", OPENSSL_KEYS.values(), ids=OPENSSL_KEYS.keys())
def test_key_made_by_openssl(pod, command):
    text = clients.openssl(*command).decode()
    key = load_pem_private_key(text[text.rindex("-----BEGIN") :].encode(), None)
    LEDGER.add_key(key)
    key_file = pod.write("key.pem", text)
    clients.openssl(
        "req", "-new", "-x509", "-key", str(key_file), "-out", str(pod.folder / "cert.pem"), "-days", "365",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
    )
    certificate = x509.load_pem_x509_certificate((pod.folder / "cert.pem").read_bytes())
    pod.yaml(tls={"certificate_file": "cert.pem", "key_file": "key.pem"})
    server = pod.serve()
    server.ca = str(pod.folder / "cert.pem")
    assert_serves(server, Pair(certificate, key))


# Chains.


def test_self_signed_with_san(pod):
    pair = self_signed()
    pod.yaml(tls=pod.write_pair(pair))
    server = pod.serve()
    server.ca = str(pod.folder / "tls.crt")
    assert_serves(server, pair)
    assert not server.logged("WARN", match=r"\bSAN\b|subject alternative"), "this one has SANs"


def test_the_openssl_recipe_of_the_reference(pod):
    """It makes a certificate without SAN and with CA:TRUE: curl takes it, the log warns."""
    clients.openssl("genrsa", "-out", "key.pem", "2048", cwd=pod.folder)
    clients.openssl(
        "req", "-new", "-x509", "-key", "key.pem", "-out", "cert.pem", "-days", "365",
        "-subj", "/C=US/ST=State/L=City/O=Organization/CN=localhost", cwd=pod.folder,
    )
    key = load_pem_private_key((pod.folder / "key.pem").read_bytes(), None)
    LEDGER.add_key(key)
    pod.yaml(tls={"enabled": True, "certificate_file": "cert.pem", "key_file": "key.pem"})
    server = pod.serve()
    server.ca = str(pod.folder / "cert.pem")
    assert_serves(server, Pair(x509.load_pem_x509_certificate((pod.folder / "cert.pem").read_bytes()), key))
    assert server.logged("WARN", match=r"\bSANs?\b|subject alternative"), server.stderr


def _chain(pod: Pod, order) -> tuple[Server, Pair]:
    root = pod.ca
    middle = Authority("Conformance Intermediate", root)
    pair = middle.issue()
    parts = {"leaf": pair.leaf, "middle": middle.certificate, "root": root.certificate}
    pod.yaml(tls={"certificate_file": str(pod.write("tls.crt", certificate_pem(*(parts[p] for p in order)))),
                  "key_file": str(pod.write("tls.key", pair.key_text))})
    return pod.serve(), pair


@pytest.mark.parametrize("order", [("leaf", "middle"), ("leaf", "middle", "root")], ids="-".join)
def test_chain_in_order(pod, order):
    server, pair = _chain(pod, order)
    assert_serves(server, pair)
    assert not server.logged("WARN", match="order"), server.stderr
    said = clients.s_client(server.port("http"), "-showcerts", "-CAfile", pod.ca_file)
    assert "Verify return code: 0 (ok)" in said, said


@pytest.mark.parametrize(
    "order", [("middle", "leaf"), ("leaf", "root", "middle"), ("root", "middle", "leaf")], ids="-".join
)
def test_chain_out_of_order_is_served_with_a_warning(pod, order):
    server, pair = _chain(pod, order)
    assert_serves(server, pair)
    assert server.logged("WARN", match="order"), server.stderr


def test_certificate_without_its_intermediate_is_served(pod):
    server, pair = _chain(pod, ("leaf",))
    for door in DOORS:
        assert clients.presented(server, door) == pair.der
    assert server.logged("INFO", "WARN", match="intermediate"), server.stderr


# PEM that something on its way deformed.


@pytest.mark.parametrize("carrier", ["file", "variable"])
@pytest.mark.parametrize("deform", DEFORMED.values(), ids=DEFORMED.keys())
def test_deformed_pem(pod, deform, carrier):
    certificate, key = deform(pod.pair.certificate), deform(pod.pair.key_text)
    env = {}
    if carrier == "file":
        pod.yaml(tls={"certificate_file": str(pod.write("tls.crt", certificate)), "key_file": str(pod.write("tls.key", key))})
    else:
        env = {"CERT": certificate, "KEY": key}
        pod.yaml(tls=_references("${env:CERT}", "${env:KEY}"))
    assert_serves(pod.serve(env=env), pod.pair)


def test_deformed_chain(pod):
    """Several certificates whose newlines an unquoted shell expansion turned to blanks."""
    middle = Authority("Conformance Intermediate", pod.ca)
    pair = middle.issue()
    pod.yaml(tls=_references("${env:CERT}", "${env:KEY}"))
    server = pod.serve(env={"CERT": " ".join(pair.certificate.split("\n")), "KEY": " ".join(pair.key_text.split("\n"))})
    assert_serves(server, pair)


def test_certificate_behind_openssl_text(pod):
    """`openssl x509 -text` puts pages before the PEM."""
    text = clients.openssl("x509", "-text", send=pod.pair.certificate.encode())
    pod.yaml(tls={"certificate_file": str(pod.write("tls.crt", text)), "key": pod.pair.key_text})
    assert_serves(pod.serve(), pod.pair)


# Without.


def test_without_tls_all_doors_speak_plain_text(pod):
    server = pod.serve()
    assert not any(server.tls(door) for door in DOORS)
    assert clients.rows(server, "SELECT 1 AS x") == [{"x": 1}]
    assert clients.query(clients.flight_client(server), "SELECT 1 AS x").to_pylist() == [{"x": 1}]
    with clients.channel(server) as channel:
        clients.grpc.channel_ready_future(channel).result(clients.DEADLINE)


def test_doors_listen_on_both_loopback_addresses_at_one_port(pod):
    server = pod.serve()
    for door in DOORS:
        hosts = {address.rsplit(":", 1)[0] for address in server.addresses(door)}
        ports = {address.rsplit(":", 1)[1] for address in server.addresses(door)}
        assert "127.0.0.1" in hosts and hosts <= {"127.0.0.1", "[::1]"}, hosts
        assert len(ports) == 1, ports
    for address in server.addresses("http"):
        clients.curl(f"http://{address}/health").ok()


def test_banner_shows_each_door_with_a_line_to_paste(pod):
    pod.yaml(tls=pod.write_pair())
    server = pod.serve()
    for door in DOORS:
        assert str(server.port(door)) in server.stdout, f"no word of the {door} door:\n{server.stdout}"
    assert "https://" in server.stdout and "curl" in server.stdout, server.stdout


# A development certificate, made on first use.


@pytest.mark.parametrize("how", ["flag", "pod"])
def test_self_signed_setting_makes_a_ca_and_a_leaf_and_keeps_them(pod, how):
    args = ["--tls-self-signed"] if how == "flag" else []
    pod.yaml(tls={"self_signed": True} if how == "pod" else None)
    first = pod.serve(*args)
    folder = pod.folder / ".spice/tls"
    authorities = [p for p in sorted(folder.rglob("*")) if p.is_file() and _is_ca(p)]
    assert len(authorities) == 1, f"one file of {folder} should hold the CA alone: {list(folder.rglob('*'))}"
    for path in folder.rglob("*"):
        if path.is_file() and b"PRIVATE KEY" in path.read_bytes():
            assert path.stat().st_mode & 0o077 == 0, f"{path} is open to others"
            text = path.read_text()
            LEDGER.add_key(load_pem_private_key(text[text.index("-----BEGIN") :].encode(), None))
    first.ca = str(authorities[0])
    for host in ("localhost", "127.0.0.1"):
        clients.curl(first.url("/health", host=host), ca=first.ca).ok()
    assert clients.query(clients.flight_client(first), "SELECT 1 AS x").to_pylist() == [{"x": 1}]
    leaf = x509.load_der_x509_certificate(clients.presented(first))
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca, "CA and leaf are apart"
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "localhost" in names.get_values_for_type(x509.DNSName)
    assert {"127.0.0.1", "::1"} <= {str(ip) for ip in names.get_values_for_type(x509.IPAddress)}
    authority = authorities[0].read_bytes()
    first.close()

    second = pod.serve(*args)
    assert authorities[0].read_bytes() == authority, "the second start made another CA"
    second.ca = first.ca
    clients.get(second, "/health").ok()


def _is_ca(path) -> bool:
    data = path.read_bytes()
    if b"BEGIN CERTIFICATE" not in data or data.count(b"BEGIN CERTIFICATE") != 1:
        return False
    certificate = x509.load_pem_x509_certificate(data)
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def test_the_authority_of_another_test_is_not_trusted(pod):
    """That the checks above can fail: a client that trusts somebody else refuses."""
    pod.yaml(tls=pod.write_pair())
    server = pod.serve()
    stranger = pod.write("stranger.pem", Authority("Stranger").pem)
    answer = clients.curl(server.url("/health"), ca=str(stranger))
    assert answer.exit == 60 and answer.status == 0, answer


def test_the_last_lines_of_the_reference(pod):
    """`echo | openssl s_client … | openssl x509 -noout -text`."""
    pod.yaml(tls=pod.write_pair())
    server = pod.serve()
    done = subprocess.run(
        ["bash", "-c", f"echo | openssl s_client -connect localhost:{server.port('http')} 2>/dev/null | openssl x509 -noout -text"],
        capture_output=True,
        timeout=clients.DEADLINE,
    )
    assert done.returncode == 0 and b"CN = localhost" in done.stdout, done
    assert LOCAL[0] in done.stdout.decode()
