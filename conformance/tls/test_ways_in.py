"""Every source of the certificate and key; without any TLS setting there is no TLS."""

from __future__ import annotations

import subprocess

import pytest

from harness import clients
from harness.certificates import LOCAL, Authority
from harness.clients import assert_serves
from harness.pod import ENDPOINTS, Pod
from harness.tables import reference
from harness.waiting import eventually

FILES = {"enabled": True, "certificate_file": "certs/tls.crt", "key_file": "certs/tls.key"}


# The sources. Each function returns the arguments for `serve`


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
    """The value of a reference is not searched for references again."""
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
    return {"env": {"KEY": pod.pair.key_text}}  # env is queried last


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
    """`"$(cat …)"`, which removes the last newline."""
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
    """Kubernetes sets variables of this kind in every pod if a service is named `spiced`."""
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


REFERENCE = {
    files_behind_symlinks: "Kubernetes: the pod",
    flags_with_files: "Method 4: flags with files",
    flags_from_a_shell: "Method 4: flags with text",
}


@pytest.mark.parametrize(
    "way",
    [pytest.param(w, id=w.__name__, marks=[reference(REFERENCE[w])] if w in REFERENCE else []) for w in WAYS],
)
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
        assert not any(server.tls(endpoint) for endpoint in ENDPOINTS)
        assert server.logged("WARN", match="--tls-enabled"), "turning material off deserves a warning"
        assert clients.rows(server, "SELECT 1 AS x") == [{"x": 1}]


# Without TLS


def test_without_tls_all_endpoints_speak_plain_text(pod):
    server = pod.serve()
    assert not any(server.tls(endpoint) for endpoint in ENDPOINTS)
    assert clients.rows(server, "SELECT 1 AS x") == [{"x": 1}]
    assert clients.query(clients.flight_client(server), "SELECT 1 AS x").to_pylist() == [{"x": 1}]
    with clients.channel(server) as channel:
        clients.grpc.channel_ready_future(channel).result(clients.DEADLINE)


def test_endpoints_listen_on_both_loopback_addresses_at_one_port(pod):
    server = pod.serve()
    for endpoint in ENDPOINTS:
        hosts = {address.rsplit(":", 1)[0] for address in server.addresses(endpoint)}
        ports = {address.rsplit(":", 1)[1] for address in server.addresses(endpoint)}
        assert "127.0.0.1" in hosts and hosts <= {"127.0.0.1", "[::1]"}, hosts
        assert len(ports) == 1, ports
    for address in server.addresses("http"):
        clients.curl(f"http://{address}/health").ok()


def test_banner_shows_each_endpoint_with_a_line_to_paste(pod):
    pod.yaml(tls=pod.write_pair())
    server = pod.serve()
    for endpoint in ENDPOINTS:
        eventually(lambda endpoint=endpoint: str(server.port(endpoint)) in server.stdout, f"a word of the {endpoint} endpoint")
    assert "https://" in server.stdout and "curl" in server.stdout, server.stdout


def test_the_authority_of_another_test_is_not_trusted(pod):
    """Shows that the checks above can fail: a client that trusts another CA refuses."""
    pod.yaml(tls=pod.write_pair())
    server = pod.serve()
    stranger = pod.write("stranger.pem", Authority("Stranger").pem)
    answer = clients.curl(server.url("/health"), ca=str(stranger))
    assert answer.exit == 60 and answer.status == 0, answer


@reference("Checking: openssl x509")
def test_the_last_lines_of_the_reference(pod):
    """`echo | openssl s_client … | openssl x509 -noout -text`."""
    pod.yaml(tls=pod.write_pair())
    server = pod.serve()
    done = subprocess.run(
        [
            "bash",
            "-c",
            f"echo | openssl s_client -connect localhost:{server.port('http')} 2>/dev/null | openssl x509 -noout -text",
        ],
        capture_output=True,
        timeout=clients.DEADLINE,
    )
    assert done.returncode == 0 and b"CN = localhost" in done.stdout, done
    assert LOCAL[0] in done.stdout.decode()
