"""`spiced sql` and trust: which servers it trusts, and what it reports about others."""

from __future__ import annotations

import datetime
import socket
import threading

import pytest

from harness.certificates import Authority, certificate_pem, key_pem, self_signed
from harness.prompt import ANSWER, QUERY, ca, endpoint, refused, run



@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home of the client"
    folder.mkdir()
    return folder


def days(count: float) -> datetime.timedelta:
    return datetime.timedelta(days=count)


def utc(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


# Trusted servers


@pytest.mark.parametrize("scheme", [None, "grpc+tls", "https"])
def test_trusted_by_option_and_by_variable(over_tls, home, scheme):
    place = endpoint(over_tls, scheme)
    assert run(home, "--endpoint", place, "--tls-root-certificate-file", over_tls.ca, *QUERY).ok() == ANSWER
    variables = {"SPICED_SQL_ENDPOINT": place, "SPICED_SQL_TLS_ROOT_CERTIFICATE_FILE": over_tls.ca}
    assert run(home, *QUERY, env=variables).ok() == ANSWER
    # The option takes precedence over the variable.
    variables["SPICED_SQL_TLS_ROOT_CERTIFICATE_FILE"] = "/nowhere"
    assert run(home, "--tls-root-certificate-file", over_tls.ca, *QUERY, env=variables).ok() == ANSWER


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_every_name_of_the_certificate(over_tls, home, host):
    place = f"grpc+tls://{host}:{over_tls.port('flight')}"
    if host == "[::1]" and not any(address.startswith("[::1]:") for address in over_tls.addresses("flight")):
        pytest.skip("this machine has no ::1")
    if host == "[::1]":
        ports = [a.rsplit(":", 1)[1] for a in over_tls.addresses("flight") if a.startswith("[::1]:")]
        place = f"grpc+tls://[::1]:{ports[0]}"
    assert run(home, "--endpoint", place, "--tls-root-certificate-file", over_tls.ca, *QUERY).ok() == ANSWER


def test_the_systems_store_is_what_ssl_cert_file_names(over_tls, home):
    assert run(home, "--endpoint", endpoint(over_tls), *QUERY, env={"SSL_CERT_FILE": over_tls.ca}).ok() == ANSWER
    # A CA given by option is the only one that is trusted.
    other = ca(home, Authority("Another Root"))
    said = refused(
        home, "--endpoint", endpoint(over_tls), "--tls-root-certificate-file", other, env={"SSL_CERT_FILE": over_tls.ca}
    )
    assert "which is not trusted" in said


def test_the_development_ca_of_the_current_directory(pod, home):
    server = pod.serve("--tls-self-signed")
    assert run(home, "--endpoint", endpoint(server), *QUERY, cwd=pod.folder).ok() == ANSWER
    said = refused(home, "--endpoint", endpoint(server))
    assert said.splitlines()[1] == (
        "hint: that is a development CA of spiced: run this in the pod's folder, or give "
        "--tls-root-certificate-file POD/.spice/tls/ca.pem"
    )
    # Here too, a CA given by option is the only one that is trusted.
    other = ca(home, Authority("Another Root"))
    ran = run(home, "--endpoint", endpoint(server), "--tls-root-certificate-file", other, *QUERY, cwd=pod.folder)
    assert ran.code == 1 and "is not trusted" in ran.err


def test_a_self_signed_certificate_can_be_trusted(pod, home):
    pair = self_signed()
    pod.yaml(tls=pod.write_pair(pair))
    server = pod.serve()
    pin = home / "pin.pem"
    pin.write_text(certificate_pem(pair.leaf))
    assert run(home, "--endpoint", endpoint(server), "--tls-root-certificate-file", str(pin), *QUERY).ok() == ANSWER
    assert refused(home, "--endpoint", endpoint(server)) == (
        f"error: no TLS connection to {endpoint(server)}: its certificate (CN=localhost) is self-signed, and not trusted\n"
        "hint: if that is your server, give its certificate: --tls-root-certificate-file CERTIFICATE.pem\n"
    )


# Errors about certificates that it does not trust


def test_another_authority(over_tls, home):
    other = ca(home, Authority("Another Root"))
    assert refused(home, "--endpoint", endpoint(over_tls), "--tls-root-certificate-file", other) == (
        f"error: no TLS connection to {endpoint(over_tls)}: its certificate (CN=localhost) was issued by CN=Conformance Root, "
        "which is not trusted\n"
        "hint: if that is your CA, give its certificate: --tls-root-certificate-file CA.pem (or the server leaves out an "
        "intermediate certificate)\n"
    )


def test_a_chain_names_the_ca_to_trust(pod, home):
    middle = Authority("Conformance Middle", parent=pod.ca)
    pod.yaml(tls=pod.write_pair(middle.issue()))
    server = pod.serve()
    assert run(home, "--endpoint", endpoint(server), "--tls-root-certificate-file", server.ca, *QUERY).ok() == ANSWER
    said = refused(home, "--endpoint", endpoint(server), "--tls-root-certificate-file", ca(home, Authority("Another Root")))
    assert "was issued by CN=Conformance Root, which is not trusted\n" in said
    assert said.endswith("--tls-root-certificate-file CA.pem\n")


BAD = {
    "name": (
        {"names": ("db.example.com", "10.0.0.1"), "common_name": "db"},
        "its certificate is not for `localhost`: it is for db.example.com, 10.0.0.1\n"
        "hint: if that is the server you mean, write --endpoint grpc+tls://db.example.com:PORT, or have a certificate issued for "
        "`localhost`",
    ),
    "wildcard": (
        {"names": ("*.example.com",), "common_name": "db"},
        "its certificate is not for `localhost`: it is for *.example.com\n"
        "hint: have a certificate issued with subjectAltName for `localhost`",
    ),
    "no-names": (
        {"names": ()},
        "its certificate is not for `localhost`: it names no host at all (no subject alternative name)\n"
        "hint: have a certificate issued with subjectAltName for `localhost`",
    ),
    "expired": (
        {"starts": days(-9), "ends": days(-2)},
        "its certificate (CN=localhost) expired at END\n"
        "hint: renew it on the server; if it is renewed already, reload the server (SIGHUP)",
    ),
    "not-yet": (
        {"starts": days(2)},
        "its certificate (CN=localhost) is not valid before START\n"
        "hint: check the clocks of this machine and of the server's CA",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_certificate(pod, home, case):
    how, message = BAD[case]
    pair = pod.ca.issue(**how)
    pod.yaml(tls=pod.write_pair(pair))
    server = pod.serve()
    port = server.port("flight")
    message = message.replace("PORT", str(port))
    message = message.replace("END", utc(pair.leaf.not_valid_after_utc)).replace("START", utc(pair.leaf.not_valid_before_utc))
    said = refused(home, "--endpoint", endpoint(server), "--tls-root-certificate-file", server.ca)
    assert said == f"error: no TLS connection to localhost:{port}: {message}\n"


def test_a_certificate_of_the_references_recipe(pod, home):
    """`openssl req -x509` creates a CA certificate, which rustls rejects for a server."""
    authority = Authority("localhost")
    pod.yaml(tls={"certificate": authority.pem, "key": key_pem(authority.key)})
    server = pod.serve()
    said = refused(home, "--endpoint", endpoint(server), "--tls-root-certificate-file", ca(home, authority))
    assert said == (
        f"error: no TLS connection to {endpoint(server)}: its certificate (CN=localhost) is not one for a server: it is a CA's "
        "(CA:TRUE)\n"
        "hint: have a server's certificate issued: CA:FALSE, extendedKeyUsage=serverAuth, and its host names as subjectAltName\n"
    )


def test_a_ca_that_was_created_again(over_tls, home):
    old = ca(home, Authority())
    assert refused(home, "--endpoint", endpoint(over_tls), "--tls-root-certificate-file", old) == (
        f"error: no TLS connection to {endpoint(over_tls)}: its certificate (CN=localhost) was issued by another CN=Conformance Root "
        "than the one that is trusted: their keys differ\n"
        "hint: the CA was made anew, it seems: give its new certificate with --tls-root-certificate-file\n"
    )


# TLS and plain text


def test_plain_text_to_tls(over_tls, home):
    place = endpoint(over_tls)
    for scheme in ("grpc", "http", "grpc+tcp"):
        assert refused(home, "--endpoint", f"{scheme}://{place}") == (
            f"error: {place} speaks TLS, and plain text was asked for\nhint: write --endpoint grpc+tls://{place}\n"
        )


def test_tls_to_plain_text(in_clear, home):
    place = endpoint(in_clear)
    message = (
        f"error: {place} does not speak TLS: it answers in plain text\n"
        f"hint: write --endpoint grpc://{place}; then nothing is encrypted, keys and answers included\n"
    )
    assert refused(home, "--endpoint", f"grpc+tls://{place}") == message
    # A CA option implies TLS, and never falls back to plain text.
    assert refused(home, "--endpoint", place, "--tls-root-certificate-file", in_clear.ca) == message


def test_without_a_scheme_either_is_found(in_clear, over_tls, home):
    assert run(home, "--endpoint", endpoint(in_clear), *QUERY).ok() == ANSWER
    assert run(home, "--endpoint", endpoint(over_tls), *QUERY, env={"SSL_CERT_FILE": over_tls.ca}).ok() == ANSWER


def test_no_store_at_all(in_clear, over_tls, home):
    """As in a minimal container: plain text on this machine needs no store; TLS reports what to do."""
    (home / "empty.pem").write_text("")
    nobody = {"SSL_CERT_FILE": str(home / "empty.pem")}
    assert run(home, "--endpoint", endpoint(in_clear), *QUERY, env=nobody).ok() == ANSWER
    said = refused(home, "--endpoint", endpoint(over_tls, "grpc+tls"), env=nobody)
    assert said == (
        "error: this system's trust store holds no certificate\n"
        "hint: install the system's CA certificates (Debian: ca-certificates), point SSL_CERT_FILE at a PEM file of them, or name a "
        "CA to trust\n"
    )


# No server, and servers other than Flight


def test_no_listener(home):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert refused(home, "--endpoint", f"127.0.0.1:{port}") == (
            f"error: cannot connect to 127.0.0.1:{port}: nothing listens there (connection refused)\n"
            "hint: is the server running there? It logs where its Flight endpoint listens (localhost:50051 by default); --endpoint names "
            "another\n"
        )


def test_no_answer(home):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        assert refused(home, "--endpoint", f"127.0.0.1:{port}", "--connect-timeout", "300ms") == (
            f"error: no connection to 127.0.0.1:{port} within 300ms\n"
            f"hint: check the host and the port; if it speaks no TLS write --endpoint grpc://127.0.0.1:{port}; --connect-timeout waits "
            "longer\n"
        )


def test_no_such_host(home):
    said = refused(home, "--endpoint", "no-such-host.invalid")
    assert said.startswith("error: there is no host `no-such-host.invalid`: ")
    assert said.endswith("\nhint: check the name in --endpoint\n")


def test_the_http_endpoint(over_tls, in_clear, home):
    hint = "hint: its Flight endpoint is another port (50051 by default); the server logs all of its endpoints at the start\n"
    for server, trust in [(over_tls, ["--tls-root-certificate-file", over_tls.ca]), (in_clear, [])]:
        place = f"localhost:{server.port('http')}"
        assert refused(home, "--endpoint", place, *trust) == (
            f"error: {place} is no Flight SQL server: it answers HTTP 404 Not Found\n{hint}"
        )


def test_a_server_of_another_protocol(home):
    """A server that sends a greeting in another protocol, as SMTP and SSH do."""
    with socket.socket() as greeter:
        greeter.bind(("127.0.0.1", 0))
        greeter.listen()

        def greet():
            try:
                while True:
                    connection, _ = greeter.accept()
                    with connection:
                        connection.sendall(b"220 mail.example.com ESMTP\r\n")
                        connection.recv(1024)
            except OSError:
                pass

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        place = f"127.0.0.1:{greeter.getsockname()[1]}"
        said = refused(home, "--endpoint", place)
        assert said.startswith(f"error: {place} is no Flight SQL server: ") and "\nhint: its Flight endpoint is another port" in said
        greeter.shutdown(socket.SHUT_RDWR)
    thread.join(10)


# Unusable options


def test_files_that_cannot_be_used(over_tls, home):
    place = ("--endpoint", endpoint(over_tls))
    root = "--tls-root-certificate-file"
    assert refused(home, *place, root, "none.pem") == (
        f'error: {root}: cannot read "none.pem": there is no such file\nhint: check the path: it is relative to "{home}"\n'
    )
    (home / "key.pem").write_text(over_tls.pair.key_text)
    assert refused(home, *place, root, "key.pem") == (
        f'error: {root}: the CA certificate in "key.pem": it holds no certificate, but a private key: are certificate and key '
        "swapped?\n"
        "hint: it expects a PEM file with the certificate of the CA that issued the server's\n"
    )
    said = refused(home, *place, env={"SPICED_SQL_TLS_ROOT_CERTIFICATE_FILE": "none.pem"})
    assert said.startswith('error: SPICED_SQL_TLS_ROOT_CERTIFICATE_FILE: cannot read "none.pem"')
    (home / "cert.pem").write_text(Authority("x").issue().certificate)
    said = refused(home, *place, "--client-certificate-file", "cert.pem", "--client-key-file", "key.pem")
    assert said.startswith(
        'error: the key in "key.pem" (from --client-key-file) is not the key of the certificate CN=localhost in "cert.pem" (from '
        "--client-certificate-file)\n"
    )


def test_one_of_two(home):
    ran = run(home, "--client-certificate-file", "cert.pem", *QUERY)
    assert (ran.code, ran.err) == (64, "error: --client-certificate-file: its key is missing: give it with --client-key-file\n")
