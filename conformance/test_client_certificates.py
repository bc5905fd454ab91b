"""Client certificates: who is asked for one, whose are trusted, whom they name, and when they stop being good."""

from __future__ import annotations

import datetime
import http.client
import os
import signal
import ssl
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pyarrow import flight

from harness import audit, clients, data, http2, prompt, wire
from harness.access import PATIENT, RW, Access
from harness.callers import NOBODY, Caller, code, of_http
from harness.certificates import Authority, Pair
from harness.ledger import LEDGER
from harness.metrics import metrics
from harness.pod import DOORS, Pod
from harness.proxy_protocol import SIGNATURE, Forwarder, header
from harness.waiting import eventually

VERSIONS = {"tls1_2": ssl.TLSVersion.TLSv1_2, "tls1_3": ssl.TLSVersion.TLSv1_3}
every_door = pytest.mark.parametrize("door", DOORS)
every_version = pytest.mark.parametrize("version", VERSIONS)


def serve(
    pod, mode: str = "required", *args, access=None, tls=None, crls=None, mtls=True, keys=False, env=None, **auth
):
    """A server that asks for certificates. `tls` replaces mode and CA; `crls` are the contents of its lists; `mtls`
    replaces the usual identities, `False` leaves them out; the rest is `runtime.auth`."""
    access = access or Access(pod)
    settings = access.tls(mode) if tls is None else {**pod.write_pair(), **tls}
    if crls is not None:
        for number, crl in enumerate(crls):
            pod.write(f"{number}.crl", crl)
        settings["client_crl_files"] = [f"{number}.crl" for number in range(len(crls))]
    if mtls:
        auth["mtls"] = access.mtls if mtls is True else mtls
    if keys:
        auth["api_key"] = access.api_key
    pod.yaml(tls=settings, runtime={"auth": auth, **PATIENT} if auth else PATIENT, datasets=[data.MEMORY])
    server = pod.serve(*args, env={**access.environment, **(env or {})})
    server.access, server.home = access, pod.home
    return server


def reload(pod, server, **files: str | bytes) -> None:
    """New contents, renamed over the old; then SIGHUP."""
    for name, content in files.items():
        pod.write(f"{name}.new", content)
        os.replace(pod.folder / f"{name}.new", pod.folder / name)
    server.signal(signal.SIGHUP)


def ask(server, pair: Pair | None, text: str = "SELECT 1 AS x", *args: str, key: str | None = None) -> str:
    """A query over HTTP: its status, or UNAVAILABLE where there was no handshake."""
    return of_http(Caller(key, pair).curl(server, "/v1/sql", "-d", text, *args, folder=server.home))


def role(server, pair: Pair | None, **more) -> str:
    """`rw`, `ro`, or how the caller is refused."""
    found = tuple(
        ask(server, pair, text, **more) for text in ("SELECT 1 AS x", "INSERT INTO notes SELECT 1, 'x' WHERE false")
    )
    return {("200", "200"): "rw", ("200", "403"): "ro"}.get(found, found[0])


def shake(server, door: str, pair: Pair | None, version: str = "tls1_3") -> str:
    """`OK`, or the alert: a server's word on a TLS 1.3 certificate comes after the client is done."""
    try:
        with clients.handshake(server.port(door), alpn=("h2",), version=VERSIONS[version], pair=pair) as connection:
            try:
                connection.sendall(http2.PREFACE + http2.frame(http2.SETTINGS))
            except OSError:
                pass  # closed already; why stands in what is read
            frames = http2.read_frames(connection, until=http2.SETTINGS)
            return "OK" if frames and frames[-1].kind == http2.SETTINGS else "closed"
    except OSError as error:  # ssl.SSLError is one
        return getattr(error, "reason", None) or type(error).__name__


# Modes


@every_version
@every_door
@pytest.mark.parametrize("mode", ["none", "request", "required"])
def test_who_is_asked(pod, mode, door, version):
    server = serve(pod, tls={"client_auth_mode": "none"}, mtls=False) if mode == "none" else serve(pod, mode)
    said = clients.s_client(server.port(door), f"-{version}", "-alpn", "h2", "-prexit")
    assert ("Requested Signature Algorithms" in said) == (mode != "none"), said


# How each is answered: by RFC 8446 §6.2 in TLS 1.3; in 1.2 it fails somehow.
ALERTS = {
    "nobody": "CERTIFICATE_REQUIRED",
    "wrong-ca": "UNKNOWN_CA",
    "expired": "CERTIFICATE_EXPIRED",
    "revoked": "CERTIFICATE_REVOKED",
}


@pytest.mark.parametrize("mode", ["request", "required"])
def test_handshakes(pod, mode):
    access = Access(pod)
    server = serve(pod, mode, access=access, crls=[access.clients.crl(access.pairs["revoked"])])
    wrong = []
    for door in DOORS:
        for version in VERSIONS:
            for who, pair in {"nobody": None, **access.pairs}.items():
                got = shake(server, door, pair, version)
                good = who in ("ro", "rw", "unmapped") or (who, mode) == ("nobody", "request")
                if good != (got == "OK") or (not good and version == "tls1_3" and ALERTS[who] not in got):
                    wrong.append(f"{door}, {version}, {who}: {got}")
    assert not wrong, "\n".join(wrong)


def test_mode_none_looks_at_no_certificate(pod):
    """Whatever is shown, and on every door."""
    server = serve(pod, tls={"client_auth_mode": "none"}, mtls=False)
    for pair in server.access.pairs.values():
        assert ask(server, pair) == "200"
        assert all(shake(server, door, pair) == "OK" for door in DOORS)


def test_purposes(pod):
    """A server's certificate of the right CA is no client's (RFC 5280 §4.2.1.12)."""
    server = serve(pod)
    assert ask(server, server.access.clients.issue((RW,))) == "UNAVAILABLE"
    assert ask(server, server.access.pairs["rw"]) == "200"


@pytest.mark.parametrize("kind", ["rsa2048", "p256", "p384", "ed25519"])
def test_key_kinds(pod, kind):
    server = serve(pod)
    assert role(server, server.access.certificate(RW, kind=kind)) == "rw"


def test_certificate_that_is_not_valid_yet(pod):
    server = serve(pod)
    later = {"starts": datetime.timedelta(hours=1), "ends": datetime.timedelta(hours=2)}
    assert ask(server, server.access.certificate(RW, **later)) == "UNAVAILABLE"


def test_required_keeps_health_from_those_without(pod):
    server = serve(pod, "required", "--probe", "localhost:0", "--metrics", "localhost:0")
    for path, door in (("/health", "http"), ("/v1/ready", "http"), ("/metrics", "metrics")):
        assert of_http(NOBODY.curl(server, path, door=door, folder=pod.home)) == "UNAVAILABLE", path
        assert (
            of_http(Caller(pair=server.access.pairs["ro"]).curl(server, path, door=door, folder=pod.home)) == "200"
        ), path
    for door in ("flight", "grpc"):
        for pair, wanted in ((None, "UNAVAILABLE"), (server.access.pairs["unmapped"], "OK")):
            with Caller(pair=pair).wire(server, door) as calls:
                assert calls.ask(wire.HEALTH, b"").code == wanted
    for path, said in (("/health", "ok"), ("/v1/ready", "ready")):
        assert clients.get(server, path, door="probe").ok().text.strip() == said
    with clients.channel(server, "probe") as channel:
        check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=clients.DEADLINE)
    assert check.status == health_pb2.HealthCheckResponse.SERVING


def test_request_asks_keys_and_then_anonymous(pod):
    server = serve(pod, "request", keys=True, allow_anonymous="ro")
    pairs, keys = server.access.pairs, server.access.keys
    assert role(server, None) == "ro"
    assert role(server, None, key=keys["plain:rw"]) == "rw"
    assert role(server, None, key=server.access.wrong) == "401"
    assert role(server, pairs["rw"]) == "rw"
    assert role(server, pairs["rw"], key=server.access.wrong) == "401"
    assert role(server, pairs["rw"], key=keys["plain:ro"]) == "ro", "the key first"
    assert role(server, pairs["unmapped"]) == "403", "a certificate without access is not nobody"
    assert role(server, pairs["unmapped"], key=keys["plain:ro"]) == "ro"


def test_anonymous_is_nobody_where_certificates_are_set_up(pod):
    """Though only this machine reaches the door."""
    server = serve(pod, "request")
    assert role(server, None) == "401"
    with NOBODY.wire(server) as calls:
        assert calls.query("SELECT 1").code == "UNAUTHENTICATED"


# Clients


def test_pyarrow(pod):
    server = serve(pod)
    pairs = server.access.pairs
    with Caller(pair=pairs["rw"]).flight(server) as client:
        assert clients.query(client, "INSERT INTO notes VALUES (1, 'x')").num_rows == 1
    with Caller(pair=pairs["ro"]).flight(server) as client:
        assert clients.query(client, "SELECT id FROM notes").to_pylist() == [{"id": 1}]
        with pytest.raises(flight.FlightUnauthorizedError):
            clients.query(client, "INSERT INTO notes VALUES (2, 'x')")
    with NOBODY.flight(server) as client:
        with pytest.raises(flight.FlightUnavailableError):
            clients.query(client, "SELECT 1 AS x")


def test_spiced_sql(pod, tmp_path):
    """Our own prompt, with a certificate, with a key, and with neither."""
    server = serve(pod, "request", keys=True)
    caller = Caller(pair=server.access.pairs["ro"])
    _, certificate, _, key = caller.curl_args(tmp_path)
    trusting = prompt.trusting(server)
    shown = ("--client-certificate-file", certificate, "--client-key-file", key)
    assert prompt.run(tmp_path, *trusting, *shown, *prompt.QUERY).ok() == prompt.ANSWER
    by_key = {"SPICED_SQL_API_KEY": server.access.keys["plain:ro"]}
    assert prompt.run(tmp_path, *trusting, *prompt.QUERY, env=by_key).ok() == prompt.ANSWER
    for more, env in ((shown, {}), ((), by_key)):
        ran = prompt.run(tmp_path, *trusting, *more, "INSERT INTO notes VALUES (1, 'x')", env=env)
        assert ran.code == 1 and ran.err.startswith("error: "), ran
    prompt.refused(tmp_path, *trusting)
    prompt.refused(tmp_path, *trusting, env={"SPICED_SQL_API_KEY": server.access.wrong})


# Where the CA comes from


def _ca_file(pod, ca):
    return {"client_auth_mode": "required", "client_auth_ca_file": str(pod.write("clients.pem", ca))}, [], {}


def _ca_relative(pod, ca):
    pod.write("certs/clients.pem", ca)
    return {"client_auth_mode": "required", "client_auth_ca_file": "certs/clients.pem"}, [], {}


def _ca_inline(pod, ca):
    return {"client_auth_mode": "required", "client_auth_ca": ca}, [], {}


def _ca_secret(pod, ca):
    return {"client_auth_mode": "required", "client_auth_ca": "${env:CLIENT_CA}"}, [], {"CLIENT_CA": ca}


def _ca_flags(pod, ca):
    path = pod.write("clients.pem", ca)
    return {}, ["--tls-client-auth-mode", "required", "--tls-client-auth-ca-file", path], {}


def _ca_inline_flag(pod, ca):
    return {}, ["--tls-client-auth-mode", "required", "--tls-client-auth-ca", ca], {}


def _ca_variables(pod, ca):
    path = pod.write("clients.pem", ca)
    names = ("SPICED_RUNTIME__TLS__CLIENT_AUTH_MODE", "SPICED_RUNTIME__TLS__CLIENT_AUTH_CA_FILE")
    return {}, [], dict(zip(names, ("required", str(path))))


def _ca_flag_over_the_pod(pod, ca):
    """The flag's file wins, and the pod's, which does not exist, is not read."""
    path = pod.write("clients.pem", ca)
    return (
        {"client_auth_mode": "required", "client_auth_ca_file": "nowhere.pem"},
        ["--tls-client-auth-ca-file", path],
        {},
    )


SOURCES = {
    "file": _ca_file,
    "relative file": _ca_relative,
    "inline": _ca_inline,
    "secret": _ca_secret,
    "flags": _ca_flags,
    "inline flag": _ca_inline_flag,
    "variables": _ca_variables,
    "flag over the pod": _ca_flag_over_the_pod,
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_source_of_the_ca(pod, source):
    access = Access(pod)
    tls, args, env = source(pod, access.clients.pem)
    pod.yaml(tls={**pod.write_pair(), **tls}, runtime={"auth": {"mtls": access.mtls}})
    server = pod.serve(*args, env=env)
    server.home = pod.home
    assert ask(server, access.pairs["rw"]) == "200"
    assert ask(server, access.pairs["wrong-ca"]) == ask(server, None) == "UNAVAILABLE"


def test_several_cas(pod):
    access = Access(pod)
    pod.write("both.pem", access.clients.pem + access.strangers.pem)
    server = serve(pod, access=access, tls={"client_auth_mode": "required", "client_auth_ca_file": "both.pem"})
    assert ask(server, access.pairs["rw"]) == ask(server, access.pairs["wrong-ca"]) == "200"
    assert ask(server, Authority("Third").issue((RW,), client=True)) == "UNAVAILABLE"


def test_end_of_the_ca_is_shown(pod):
    server = serve(pod, "request", "--metrics", "localhost:0")
    found = [value for name, _, value in metrics(server) if name == "spiced_tls_client_ca_not_after_timestamp_seconds"]
    assert server.access.clients.certificate.not_valid_after_utc.timestamp() in found


# Identities

IDENTITIES = [
    {"san_uri": "spiffe://prod/first", "role": "ro"},
    {"san_uri": "spiffe://prod/first", "role": "rw"},
    {"san_uri": "spiffe://prod/ns/etl/*", "role": "rw"},
    {"san_uri": "spiffe://prod/ns/*/reader", "role": "ro"},
    {"san_dns": "*.reports.example.com", "role": "ro"},
    {"san_dns": "writer.Example.com", "role": "rw"},
    {"subject_cn": "grafana", "role": "ro"},
    {"subject_cn": "job-*.etl", "role": "rw"},
]
# The names of a certificate and its common name; what it may do.
NAMED = {
    "uri": (["spiffe://prod/ns/etl/job"], "", "rw"),
    "uri, two segments for one star": (["spiffe://prod/ns/etl/job/more"], "", "403"),
    "uri, nothing for a star": (["spiffe://prod/ns/etl/"], "", "403"),
    "uri, too short": (["spiffe://prod/ns/etl"], "", "403"),
    "uri, in another case": (["spiffe://prod/ns/ETL/job"], "", "403"),
    "uri, another trust domain": (["spiffe://prod2/ns/etl/job"], "", "403"),
    "uri, something before": (["x://spiffe://prod/ns/etl/job"], "", "403"),
    "uri, star within": (["spiffe://prod/ns/web/reader"], "", "ro"),
    "uri, two segments within": (["spiffe://prod/ns/a/b/reader"], "", "403"),
    "uri, first that fits": (["spiffe://prod/first"], "", "ro"),
    "uri, one of two": (["spiffe://else/where", "spiffe://prod/ns/etl/job"], "", "rw"),
    "dns": (["daily.reports.example.com"], "", "ro"),
    "dns, in another case": (["DAILY.Reports.EXAMPLE.com"], "", "ro"),
    "dns, a rule in another case": (["WRITER.example.COM"], "", "rw"),
    "dns, two labels for one star": (["a.b.reports.example.com"], "", "403"),
    "dns, nothing for a star": (["reports.example.com"], "", "403"),
    "dns, a dot is a dot": (["daily.reportsXexample.com"], "", "403"),
    "dns, something before": (["xwriter.example.com"], "", "403"),
    "dns, something after": (["writer.example.com.evil.example"], "", "403"),
    "dns, as a uri": (["https://writer.example.com"], "", "403"),
    "cn": ([], "grafana", "ro"),
    "cn, beside names": (["other.example.com"], "grafana", "ro"),
    "cn, a star": ([], "job-7.etl", "rw"),
    "cn, two labels for one star": ([], "job-7.8.etl", "403"),
    "cn, something after": ([], "grafana2", "403"),
    "cn is no dns name": ([], "writer.example.com", "403"),
    "cn is no uri": ([], "spiffe://prod/ns/etl/job", "403"),
    "dns name is no cn": (["grafana"], "x", "403"),
    "rule before rule, whichever name comes first": (["writer.example.com", "daily.reports.example.com"], "", "ro"),
    "rule before rule, across kinds": (["daily.reports.example.com", "spiffe://prod/ns/etl/job"], "grafana", "rw"),
    "address": (["127.0.0.1"], "", "403"),
    "nothing": ([], "nobody in particular", "403"),
}


@pytest.fixture(scope="module")
def identified(tmp_path_factory):
    pod = Pod(tmp_path_factory.mktemp("identified"))
    yield serve(pod, mtls={"identities": IDENTITIES})
    pod.close()


@pytest.mark.parametrize("names, common_name, wanted", NAMED.values(), ids=NAMED.keys())
def test_identity(identified, names, common_name, wanted):
    pair = identified.access.certificate(*names, common_name=common_name or "a client")
    assert role(identified, pair) == wanted
    if wanted == "403":
        with Caller(pair=pair).wire(identified) as calls:
            assert calls.query("SELECT 1 AS x").code == "PERMISSION_DENIED"
            assert calls.ask(wire.HEALTH, b"").code == "OK"


def test_no_identities_at_all(pod):
    """Every good certificate may read, and the log warns of it."""
    server = serve(pod, mtls=False)
    assert role(server, server.access.pairs["rw"]) == role(server, server.access.certificate(common_name="any")) == "ro"
    assert server.logged("WARN", match=r"identit"), server.stderr


def test_tickets_belong_to_the_identity(pod):
    """A renewed certificate goes on with them; another name that the same rule fits does not."""
    server = serve(pod, mtls={"identities": [{"san_uri": "spiffe://prod/ns/etl/*", "role": "rw"}]})
    names = {"maker": "job", "renewed": "job", "another": "other"}
    pairs = {who: server.access.certificate(f"spiffe://prod/ns/etl/{name}") for who, name in names.items()}
    with Caller(pair=pairs["maker"]).wire(server) as calls:
        ticket = wire.ticket_of(calls.ask("GetFlightInfo", wire.descriptor("SELECT 1 AS x")).ok())
        update = wire.handle_of(calls.prepare("INSERT INTO notes VALUES (1, 'x')"))
    update = wire.sql_any("CommandPreparedStatementUpdate", f1=update)
    for who, wanted in (("maker", "OK"), ("renewed", "OK"), ("another", "PERMISSION_DENIED")):
        with Caller(pair=pairs[who]).wire(server) as calls:
            assert (calls.ask("DoGet", ticket).code, calls.put(update).code) == (wanted, wanted), who


def test_metrics_that_ask_take_a_certificate(pod):
    server = serve(pod, "request", "--metrics", "localhost:0", metrics=True)
    for pair, wanted in ((None, 401), (server.access.pairs["ro"], 200), (server.access.pairs["unmapped"], 403)):
        assert Caller(pair=pair).curl(server, "/metrics", door="metrics", folder=pod.home).status == wanted


# Chains


def test_intermediate_that_the_client_sends(pod):
    server = serve(pod)
    between = Authority("Conformance Clients, between", server.access.clients)
    pair = between.issue((RW,), client=True)
    assert ask(server, pair) == "200"
    assert all(shake(server, door, pair, version) == "OK" for door in DOORS for version in VERSIONS)
    assert ask(server, Pair(pair.leaf, pair.key)) == "UNAVAILABLE", "without its intermediate nothing leads to the CA"
    elsewhere = Authority("Strangers, between", server.access.strangers).issue((RW,), client=True)
    assert ask(server, elsewhere) == "UNAVAILABLE"


def test_leaf_is_no_authority(pod):
    """Whoever has a client's key cannot issue more."""
    server = serve(pod)
    leaf = server.access.pairs["rw"]
    false = Authority("a client")
    false.key, false.certificate = leaf.key, leaf.leaf
    pair = false.issue((RW,), client=True)
    assert ask(server, Pair(pair.leaf, pair.key, [leaf.leaf])) == "UNAVAILABLE"


# Revocation


class Chain:
    """A root that the server trusts, an intermediate, and leaves of both."""

    def __init__(self, access: Access) -> None:
        self.root = access.clients
        self.between = Authority("Conformance Clients, between", self.root)
        self.near = self.root.issue((RW,), client=True)
        self.far = self.between.issue((RW,), client=True)
        self.between_as_pair = Pair(self.between.certificate, self.between.key)


PAST = {"starts": -datetime.timedelta(days=2), "ends": -datetime.timedelta(minutes=1)}
FUTURE = {"starts": datetime.timedelta(hours=1), "ends": datetime.timedelta(days=1)}
# The lists that the server has; whether a leaf of the root and one of the intermediate get in.
LISTS = {
    "both, nothing revoked": (lambda c: [c.root.crl(), c.between.crl()], "200", "200"),
    "both in one file": (lambda c: [c.root.crl() + c.between.crl()], "200", "200"),
    "as DER": (lambda c: [c.root.crl(form="der"), c.between.crl(form="der")], "200", "200"),
    "one as DER, one as PEM": (lambda c: [c.root.crl(form="der"), c.between.crl()], "200", "200"),
    "leaf revoked": (lambda c: [c.root.crl(c.near), c.between.crl()], "UNAVAILABLE", "200"),
    "leaf revoked, as DER": (lambda c: [c.root.crl(c.near, form="der"), c.between.crl()], "UNAVAILABLE", "200"),
    "leaf of the intermediate revoked": (lambda c: [c.root.crl(), c.between.crl(c.far)], "200", "UNAVAILABLE"),
    "intermediate revoked": (lambda c: [c.root.crl(c.between_as_pair), c.between.crl()], "200", "UNAVAILABLE"),
    "none of the intermediate": (lambda c: [c.root.crl()], "200", "UNAVAILABLE"),
    "none of the root": (lambda c: [c.between.crl()], "UNAVAILABLE", "UNAVAILABLE"),
    "root's out of date": (lambda c: [c.root.crl(**PAST), c.between.crl()], "UNAVAILABLE", "UNAVAILABLE"),
    "intermediate's out of date": (lambda c: [c.root.crl(), c.between.crl(**PAST)], "200", "UNAVAILABLE"),
    "another authority's alone": (lambda c: [Authority("Another").crl()], "UNAVAILABLE", "UNAVAILABLE"),
    "forged": (lambda c: [_forged(c.root).crl(), c.between.crl()], "UNAVAILABLE", "UNAVAILABLE"),
    "old and new, the new revokes": (
        lambda c: [c.root.crl(**PAST), c.root.crl(c.near, number=2), c.between.crl()],
        "UNAVAILABLE",
        "200",
    ),
}


def _forged(authority: Authority) -> Authority:
    """One that calls itself the same, with a key of its own."""
    false = Authority("false")
    false.certificate = authority.certificate
    return false


@pytest.mark.parametrize("lists, near, far", LISTS.values(), ids=LISTS.keys())
def test_revocation(pod, lists, near, far):
    access = Access(pod)
    chain = Chain(access)
    server = serve(pod, access=access, crls=lists(chain))
    assert (ask(server, chain.near), ask(server, chain.far)) == (near, far)


def test_list_that_goes_out_of_date(pod):
    """While the server runs: nobody can say any more who was revoked, until there is a new list."""
    access = Access(pod)
    server = serve(pod, access=access, crls=[access.clients.crl(ends=datetime.timedelta(seconds=5))])
    assert ask(server, access.pairs["rw"]) == "200"
    eventually(lambda: ask(server, access.pairs["rw"]) == "UNAVAILABLE", "handshakes that fail")
    reload(pod, server, **{"0.crl": access.clients.crl(number=2)})
    eventually(lambda: ask(server, access.pairs["rw"]) == "200", "handshakes that succeed with the new list")


BROKEN_LISTS = {"garbage": b"this is no list", "empty": b"", "a certificate": None}


@pytest.mark.parametrize("content", BROKEN_LISTS.values(), ids=BROKEN_LISTS.keys())
def test_broken_list_is_refused_at_start(pod, content):
    access = Access(pod)
    pod.write("a.crl", access.clients.pem if content is None else content)
    pod.yaml(tls={**access.tls(), "client_crl_files": ["a.crl"]}, runtime={"auth": {"mtls": access.mtls}})
    pod.refuse().names("client_crl_files")


def test_missing_list_is_refused_at_start(pod):
    access = Access(pod)
    pod.yaml(tls={**access.tls(), "client_crl_files": ["nowhere.crl"]}, runtime={"auth": {"mtls": access.mtls}})
    pod.refuse().names("client_crl_files", "nowhere.crl")


# Refused at start


def _ca(pod) -> dict:
    return {"client_auth_ca_file": str(pod.write("clients.pem", Authority("Clients").pem))}


IDENTITY = {"san_uri": RW, "role": "rw"}
# What the pod says of TLS and of auth, and what the report must name.
MISTAKES = {
    "required without a CA": (lambda p: {"client_auth_mode": "required"}, {}, "client_auth"),
    "request without a CA": (lambda p: {"client_auth_mode": "request"}, {}, "client_auth"),
    "a bad mode": (lambda p: {"client_auth_mode": "optional", **_ca(p)}, {}, "client_auth_mode"),
    "a mode of truth": (lambda p: {"client_auth_mode": True, **_ca(p)}, {}, "client_auth_mode"),
    "a CA file that is not there": (
        lambda p: {"client_auth_mode": "required", "client_auth_ca_file": "nowhere.pem"},
        {},
        "client_auth_ca_file",
    ),
    "a CA file that is empty": (
        lambda p: {"client_auth_mode": "required", "client_auth_ca_file": str(p.write("empty.pem", ""))},
        {},
        "client_auth_ca_file",
    ),
    "a CA file without a certificate": (
        lambda p: {"client_auth_mode": "required", "client_auth_ca_file": p.write_pair()["key_file"]},
        {},
        "client_auth_ca_file",
    ),
    "a CA of garbage": (lambda p: {"client_auth_mode": "required", "client_auth_ca": "no PEM"}, {}, "client_auth_ca"),
    "a CA from a secret that is missing": (
        lambda p: {"client_auth_mode": "required", "client_auth_ca": "${env:NOWHERE}"},
        {},
        "NOWHERE",
    ),
    "identities, and mode none": (lambda p: {}, {"mtls": {"identities": [IDENTITY]}}, "mtls"),
    "all, and only keys": (
        lambda p: {},
        {"require": "all", "api_key": {"keys": ["a-key-in-the-pod:ro"]}},
        "require",
    ),
    "all, and only certificates": (
        lambda p: {"client_auth_mode": "required", **_ca(p)},
        {"require": "all", "mtls": {"identities": [IDENTITY]}},
        "require",
    ),
    "all, and neither": (lambda p: {}, {"require": "all"}, "require"),
    "require what": (
        lambda p: {"client_auth_mode": "required", **_ca(p)},
        {"require": "both", "mtls": {"identities": [IDENTITY]}},
        "require",
    ),
    "an identity of nobody": (
        lambda p: {"client_auth_mode": "required", **_ca(p)},
        {"mtls": {"identities": [{"role": "rw"}]}},
        "identities",
    ),
    "an identity of two kinds": (
        lambda p: {"client_auth_mode": "required", **_ca(p)},
        {"mtls": {"identities": [{"san_dns": "a.example", "subject_cn": "a", "role": "rw"}]}},
        "identities",
    ),
    "an identity without a role": (
        lambda p: {"client_auth_mode": "required", **_ca(p)},
        {"mtls": {"identities": [{"san_dns": "a.example"}]}},
        "identities",
    ),
    "an identity of a bad role": (
        lambda p: {"client_auth_mode": "required", **_ca(p)},
        {"mtls": {"identities": [{"san_dns": "a.example", "role": "admin"}]}},
        "identities",
    ),
    "an identity of an unknown kind": (
        lambda p: {"client_auth_mode": "required", **_ca(p)},
        {"mtls": {"identities": [{"san_email": "a@example.com", "role": "ro"}]}},
        "identities",
    ),
}


@pytest.mark.parametrize("tls, auth, named", MISTAKES.values(), ids=MISTAKES.keys())
def test_refused_at_start(pod, tls, auth, named):
    pod.yaml(tls={**pod.write_pair(), **tls(pod)}, runtime={"auth": auth} if auth else {})
    pod.refuse().names(named)


@pytest.mark.parametrize("off", [{"enabled": False}, {}], ids=["off", "without material"])
@pytest.mark.parametrize("mode", ["request", "required"])
def test_mode_without_tls_is_refused_at_start(pod, mode, off):
    pod.yaml(tls={**off, "client_auth_mode": mode, **_ca(pod)})
    pod.refuse().names("client_auth_mode")


def test_flags_are_refused_at_start(pod):
    pod.yaml(tls=pod.write_pair())
    pod.refuse("--tls-client-auth-mode", "optional").names("--tls-client-auth-mode")
    pod.refuse("--tls-client-auth-mode", "required").names("--tls-client-auth-mode")
    pod.refuse("--tls-client-auth-mode", "required", "--tls-client-auth-ca-file", "nowhere.pem").names(
        "--tls-client-auth-ca-file"
    )


# Sessions


def _resumed(server, door: str, version: str, session: Path) -> bool:
    """Whether the door takes the session; no certificate is shown this time."""
    said = clients.s_client(server.port(door), f"-{version}", "-alpn", "h2", "-sess_in", str(session))
    return "Reused, TLSv1" in said


def _saved(server, door: str, version: str, pair: Pair, tmp_path: Path) -> Path:
    path = tmp_path / f"{door}-{version}.pem"
    _, certificate, _, key = Caller(pair=pair).curl_args(tmp_path)
    clients.save_session(server, door, version, path, "-cert", certificate, "-key", key)
    return path


@every_version
@every_door
def test_session_is_resumed(pod, tmp_path, door, version):
    server = serve(pod)
    assert _resumed(server, door, version, _saved(server, door, version, server.access.pairs["rw"], tmp_path))


def _post(text: str) -> bytes:
    head = f"POST /v1/sql HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    return head.encode() + text.encode()


def _first(server, pair: Pair, version: str) -> tuple[ssl.SSLContext, ssl.SSLSession]:
    """A connection that makes a request, and its session."""
    context = clients.context(version=VERSIONS[version], pair=pair)
    status, session, _ = _next(server, context, None)
    assert status == "200" and session is not None
    return context, session


def _next(server, context: ssl.SSLContext, session: ssl.SSLSession | None, text: str = "SELECT 1 AS x"):
    """A request on a connection that offers the session: status, the session it has got, whether it was resumed."""
    try:
        raw = clients.socket.create_connection(("127.0.0.1", server.port("http")), timeout=clients.DEADLINE)
        with context.wrap_socket(raw, server_hostname="localhost", session=session) as connection:
            connection.sendall(_post(text))
            answer = http2.read_to_end(connection)
            return answer[9:12].decode() or "closed", connection.session, connection.session_reused
    except (ssl.SSLError, OSError):
        return "UNAVAILABLE", None, False


@every_version
def test_resumed_session_has_its_role(pod, version):
    server = serve(pod)
    for who, wanted in (("rw", "200"), ("ro", "403"), ("unmapped", "403")):
        context = clients.context(version=VERSIONS[version], pair=server.access.pairs[who])
        _, session, _ = _next(server, context, None)
        status, _, reused = _next(server, context, session, "INSERT INTO notes VALUES (1, 'x')")
        assert (status, reused) == (wanted, True), who
    assert audit.line(server, outcome="done")["principal"] == f"san_uri:{RW}"


@every_version
@pytest.mark.parametrize("change", ["another CA", "revoked"])
def test_session_from_before_a_change_does_not_let_in(pod, tmp_path, change, version):
    access = Access(pod)
    leaver, stays = access.certificate(RW), access.certificate(RW)
    server = serve(pod, access=access, crls=[access.clients.crl()])
    saved = {door: _saved(server, door, version, leaver, tmp_path) for door in DOORS}
    assert all(_resumed(server, door, version, path) for door, path in saved.items())
    context, session = _first(server, leaver, version)
    if change == "revoked":
        reload(pod, server, **{"0.crl": access.clients.crl(leaver, number=2)})
    else:
        reload(pod, server, **{"clients-ca.pem": access.strangers.pem, "0.crl": access.strangers.crl()})
        stays = access.certificate(RW, by=access.strangers)
    eventually(lambda: (ask(server, leaver), ask(server, stays)) == ("UNAVAILABLE", "200"), "the change")
    for door, path in saved.items():
        assert not _resumed(server, door, version, path), f"the {door} door took a session from before"
    assert _next(server, context, session)[0] == "UNAVAILABLE"


@every_version
def test_session_from_before_a_change_is_not_resumed_by_who_stays(pod, version):
    """One more CA: who was let in still is, by a whole handshake."""
    server = serve(pod)
    access = server.access
    context, session = _first(server, access.pairs["rw"], version)
    assert _next(server, context, session)[2]
    newcomer = access.certificate(RW, by=access.strangers)
    reload(pod, server, **{"clients-ca.pem": access.clients.pem + access.strangers.pem})
    eventually(lambda: ask(server, newcomer) == "200", "the second CA")
    status, _, reused = _next(server, context, session)
    assert (status, reused) == ("200", False)


@every_version
def test_session_ends_with_its_certificate(pod, version):
    server = serve(pod)
    pair = server.access.certificate(RW, ends=datetime.timedelta(seconds=5))
    context, session = _first(server, pair, version)
    eventually(lambda: ask(server, pair) == "UNAVAILABLE", "the certificate's end")
    assert _next(server, context, session)[0] in ("UNAVAILABLE", "closed")


# Open connections


def _open(server, pair: Pair) -> http.client.HTTPSConnection:
    """An HTTP/1 connection that does not open itself again."""
    connection = http.client.HTTPSConnection(
        "localhost", server.port("http"), context=clients.context(pair=pair), timeout=clients.DEADLINE
    )
    connection.connect()
    connection.auto_open = 0
    return connection


def _on(connection: http.client.HTTPSConnection, text: str = "SELECT 1 AS x", **headers: str) -> str:
    """A query on an open connection: its status, or `closed`."""
    try:
        connection.request("POST", "/v1/sql", text, headers)
        answer = connection.getresponse()
        answer.read()
        return str(answer.status)
    except (http.client.HTTPException, OSError):
        return "closed"


def _open_h2(server, door: str, pair: Pair) -> ssl.SSLSocket:
    connection = clients.handshake(server.port(door), alpn=("h2",), pair=pair)
    connection.sendall(http2.PREFACE + http2.frame(http2.SETTINGS))
    assert http2.read_frames(connection, until=http2.SETTINGS)[-1].kind == http2.SETTINGS
    return connection


def test_certificate_that_ends_on_an_open_connection(pod):
    """The end is looked at for each request, on every door."""
    server = serve(pod)
    pair = server.access.certificate(RW, ends=datetime.timedelta(seconds=5))
    connection = _open(server, pair)
    with Caller(pair=pair).wire(server) as calls, Caller(pair=pair).wire(server, "grpc") as grpc:
        reflection = wire.REFLECTION, wire.message(f7="*")
        assert _on(connection) == "200"
        calls.query("SELECT 1 AS x").ok(), grpc.ask(*reflection).ok()
        last = eventually(lambda: (got := _on(connection)) != "200" and got, "a refusal on the open connection")
        assert last in ("401", "403", "closed"), last
        assert datetime.datetime.now(datetime.timezone.utc) >= pair.leaf.not_valid_after_utc
        refused = ("UNAUTHENTICATED", "PERMISSION_DENIED", "UNAVAILABLE")
        assert calls.query("SELECT 1 AS x").code in refused
        assert calls.put(wire.update("INSERT INTO notes VALUES (1, 'x')")).code in refused
        assert grpc.ask(*reflection).code in refused
    connection.close()
    assert ask(server, pair) == "UNAVAILABLE"


def test_certificate_that_ends_while_a_key_is_shown_too(pod):
    """Where both are needed, the key alone does not do."""
    server = serve(pod, "required", keys=True, require="all")
    pair = server.access.certificate(RW, ends=datetime.timedelta(seconds=5))
    connection = _open(server, pair)
    key = {"X-API-Key": server.access.keys["plain:rw"]}
    assert _on(connection, **key) == "200"
    assert eventually(lambda: (got := _on(connection, **key)) != "200" and got, "a refusal") in ("401", "403", "closed")


@pytest.mark.parametrize("change", ["revoked", "another CA"])
def test_open_connections_after_a_change(pod, change):
    """HTTP/2 gets GOAWAY, HTTP/1 is closed; who is still good is left alone."""
    access = Access(pod)
    leaver, stays = access.certificate(RW), access.certificate(RW)
    if change == "another CA":
        stays = access.certificate(RW, by=access.strangers)
    pod.write("both.pem", access.clients.pem + access.strangers.pem)
    both = {"client_auth_mode": "required", "client_auth_ca_file": "both.pem"}
    server = serve(pod, access=access, tls=both, crls=[access.clients.crl(), access.strangers.crl()])
    left, kept = _open(server, leaver), _open(server, stays)
    assert _on(left) == _on(kept) == "200"
    going = {door: _open_h2(server, door, leaver) for door in DOORS}
    with Caller(pair=stays).flight(server) as staying:
        clients.query(staying, "SELECT 1 AS x")
        sock = kept.sock
        if change == "revoked":
            reload(pod, server, **{"0.crl": access.clients.crl(leaver, number=2)})
        else:
            reload(pod, server, **{"both.pem": access.strangers.pem})
        for door, connection in going.items():
            frames = http2.read_frames(connection, until=http2.GOAWAY)
            assert frames and frames[-1].kind == http2.GOAWAY, f"no GOAWAY on the {door} door: {frames}"
            connection.close()
        eventually(lambda: _on(left) == "closed", "the end of the HTTP/1 connection")
        assert ask(server, leaver) == "UNAVAILABLE"
        assert _on(kept) == "200" and kept.sock is sock, "who is still good was disturbed"
        assert code(lambda: clients.query(staying, "SELECT 1 AS x")) == "OK"
    kept.close()


def test_writes_of_the_revoked_end(pod):
    """From the moment that new connections are refused, an open one writes nothing more."""
    access = Access(pod)
    pair = access.certificate(RW)
    server = serve(pod, access=access, crls=[access.clients.crl()])
    connection = _open(server, pair)
    assert _on(connection, "INSERT INTO notes VALUES (1, 'x')") == "200"
    reload(pod, server, **{"0.crl": access.clients.crl(pair, number=2)})
    eventually(lambda: ask(server, pair) == "UNAVAILABLE", "the revocation")
    _on(connection, "INSERT INTO notes VALUES (2, 'x')")
    eventually(lambda: _on(connection) == "closed", "the end of the connection")
    other = access.certificate(RW)
    answer = Caller(pair=other).curl(server, "/v1/sql", "-d", "SELECT count(*) AS n FROM notes", folder=pod.home)
    assert answer.ok().json() == [{"n": 1}]


def test_broken_list_keeps_what_serves(pod):
    access = Access(pod)
    server = serve(pod, access=access, crls=[access.clients.crl(access.pairs["revoked"])])
    since = len(server.log)
    reload(pod, server, **{"0.crl": "nothing that is a list"})
    server.wait_for_log("WARN", "ERROR", match=r"crl", since=since)
    assert ask(server, access.pairs["rw"]) == "200"
    assert ask(server, access.pairs["revoked"]) == "UNAVAILABLE"


# PROXY protocol

ADDRESS, ADDRESS_6 = "192.0.2.1", "2001:db8::1"
TLV = b"\x04\x00\x03abc"  # PP2_TYPE_NOOP


def proxied(pod, tls: bool = True, doors=("http",)):
    access = Access(pod)
    pod.yaml(
        tls=pod.write_pair() if tls else None,
        runtime={"auth": {"api_key": access.api_key}, "listen": {"proxy_protocol": list(doors)}, **PATIENT},
        datasets=[data.MEMORY],
    )
    server = pod.serve(env=access.environment)
    server.access, server.home = access, pod.home
    return server


def _through(server, first: bytes, key: str, pieces: int = 0) -> str:
    """A query whose connection begins with these bytes: its status, or `closed`."""
    request = f"POST /v1/sql HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\nContent-Length: 8\r\nConnection: close\r\n\r\nSELECT 1"
    raw = clients.socket.create_connection(("127.0.0.1", server.port("http")), timeout=clients.DEADLINE)
    try:
        raw.setsockopt(clients.socket.IPPROTO_TCP, clients.socket.TCP_NODELAY, 1)
        for part in [first] if not pieces else [first[at : at + pieces] for at in range(0, len(first), pieces)]:
            raw.sendall(part)
        if server.tls("http"):
            raw = clients.context().wrap_socket(raw, server_hostname="localhost")
        raw.sendall(request.encode())
        answer = http2.read_to_end(raw)
        return answer[9:12].decode() if answer.startswith(b"HTTP/1.1 ") else "closed"
    except (ssl.SSLError, OSError):
        return "closed"
    finally:
        raw.close()


HEADERS = {
    "IPv4": (header(ADDRESS), ADDRESS),
    "IPv6": (header(ADDRESS_6), ADDRESS_6),
    "with more": (header(ADDRESS, more=TLV), ADDRESS),
    "the proxy itself": (header(None), "127.0.0.1"),
    "the proxy itself, with more": (header(None, more=TLV), "127.0.0.1"),
}


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "clear"])
@pytest.mark.parametrize("first, address", HEADERS.values(), ids=HEADERS.keys())
def test_proxy_header(pod, first, address, tls):
    server = proxied(pod, tls)
    for pieces in (0, 1):
        since = len(server.log)
        assert _through(server, first, server.access.wrong, pieces) == "401"
        assert address in audit.line(server, since, outcome="denied", door="http")["address"]
        assert _through(server, first, server.access.keys["plain:ro"], pieces) == "200"


BAD_HEADERS = {
    "none": b"",
    "version 1": b"PROXY TCP4 192.0.2.1 127.0.0.1 40000 443\r\n",
    "another version": header(ADDRESS).replace(b"QUIT\n\x21", b"QUIT\n\x31"),
    "an unknown command": header(ADDRESS).replace(b"QUIT\n\x21", b"QUIT\n\x22"),
    "signature alone, then the request": SIGNATURE,
    "too short for its family": SIGNATURE + b"\x21\x11\x00\x04\xc0\x00\x02\x01",
    "a changed signature": b"\r\n\r\n\0\r\nQUIT\r" + header(ADDRESS)[12:],
}


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "clear"])
@pytest.mark.parametrize("first", BAD_HEADERS.values(), ids=BAD_HEADERS.keys())
def test_connection_without_a_proxy_header_is_refused(pod, first, tls):
    server = proxied(pod, tls)
    assert _through(server, first, server.access.keys["plain:ro"]) in ("closed", "400")
    assert _through(server, header(ADDRESS), server.access.keys["plain:ro"]) == "200", "and it serves on"


def test_doors_that_are_not_named_want_no_header(pod):
    server = proxied(pod)
    with server.access.ro.wire(server) as calls, server.access.ro.wire(server, "grpc") as grpc:
        calls.query("SELECT 1 AS x").ok()
        grpc.ask(wire.HEALTH, b"").ok()


def test_flight_and_grpc_behind_a_proxy(pod):
    server = proxied(pod, doors=("flight", "grpc"))
    assert server.access.ro.curl(server, "/v1/status", folder=pod.home).status == 200
    pem = Path(server.ca).read_bytes()
    forwarders = {door: Forwarder(server.port(door), ADDRESS) for door in ("flight", "grpc")}
    try:
        location = f"grpc+tls://localhost:{forwarders['flight'].port}"
        with flight.FlightClient(location, tls_root_certs=pem) as client:
            assert clients.query(client, "SELECT 1 AS x", server.access.ro.call()).num_rows == 1
            assert (
                code(lambda: clients.query(client, "SELECT 1 AS x", Caller(server.access.wrong).call()))
                == "UNAUTHENTICATED"
            )
        assert ADDRESS in audit.line(server, outcome="denied", door="flight")["address"]
        with clients.channel_at(f"localhost:{forwarders['grpc'].port}", pem) as channel:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=clients.DEADLINE)
    finally:
        for forwarder in forwarders.values():
            forwarder.close()


def test_behind_a_proxy_nobody_is_local(pod):
    """Without keys a loopback door lets all in, but not where others' connections come through it."""
    pod.yaml(tls=pod.write_pair(), runtime={"listen": {"proxy_protocol": ["http"]}})
    server = pod.serve()
    assert _through(server, header(ADDRESS), LEDGER.mark("a key that nobody asked for")) == "401"
    assert _through(server, header("127.0.0.1"), LEDGER.mark("a key that nobody asked for")) == "401"


@pytest.mark.parametrize("doors", [["ftp"], ["http", "probes"]], ids=str)
def test_proxied_doors_that_are_none_are_refused(pod, doors):
    pod.yaml(runtime={"listen": {"proxy_protocol": doors}})
    pod.refuse().names("proxy_protocol")
