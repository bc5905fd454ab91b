"""Client certificates: when they are requested, which are trusted, what identity they give, and what is refused at
startup."""

from __future__ import annotations

import datetime
import ssl

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pyarrow import flight

from harness import clients, http2, prompt, wire
from harness.access import RW, Access, asking
from harness.identities import NOBODY, Caller, ask, of_http, role
from harness.certificates import Authority, Pair
from harness.metrics import metrics
from harness.pod import ENDPOINTS, Pod

VERSIONS = {"tls1_2": ssl.TLSVersion.TLSv1_2, "tls1_3": ssl.TLSVersion.TLSv1_3}
every_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS)
every_version = pytest.mark.parametrize("version", VERSIONS)


def shake(server, endpoint: str, pair: Pair | None, version: str = "tls1_3") -> str:
    """Returns `OK` or the alert: in TLS 1.3 a server rejects a certificate only after the client has finished."""
    try:
        with clients.handshake(server.port(endpoint), alpn=("h2",), version=VERSIONS[version], pair=pair) as connection:
            try:
                connection.sendall(http2.PREFACE + http2.frame(http2.SETTINGS))
            except OSError:
                pass  # already closed; the data that is read below has the reason
            frames = http2.read_frames(connection, until=http2.SETTINGS)
            return "OK" if frames and frames[-1].kind == http2.SETTINGS else "closed"
    except OSError as error:  # ssl.SSLError is a subclass
        return getattr(error, "reason", None) or type(error).__name__


# Modes


@every_version
@every_endpoint
@pytest.mark.parametrize("mode", ["none", "request", "required"])
def test_certificate_request(pod, mode, endpoint, version):
    server = asking(pod, tls={"client_auth_mode": "none"}, mtls=False) if mode == "none" else asking(pod, mode)
    said = clients.s_client(server.port(endpoint), f"-{version}", "-alpn", "h2", "-prexit")
    assert ("Requested Signature Algorithms" in said) == (mode != "none"), said


# The alert for each: RFC 8446 §6.2 in TLS 1.3; in TLS 1.2 any failure is accepted.
ALERTS = {
    "nobody": "CERTIFICATE_REQUIRED",
    "wrong-ca": "UNKNOWN_CA",
    "expired": "CERTIFICATE_EXPIRED",
    "revoked": "CERTIFICATE_REVOKED",
}


@pytest.mark.parametrize("mode", ["request", "required"])
def test_handshakes(pod, mode):
    access = Access(pod)
    server = asking(pod, mode, access=access, crls=[access.clients.crl(access.pairs["revoked"])])
    wrong = []
    for endpoint in ENDPOINTS:
        for version in VERSIONS:
            for who, pair in {"nobody": None, **access.pairs}.items():
                got = shake(server, endpoint, pair, version)
                good = who in ("ro", "rw", "unmapped") or (who, mode) == ("nobody", "request")
                if good != (got == "OK") or (not good and version == "tls1_3" and ALERTS[who] not in got):
                    wrong.append(f"{endpoint}, {version}, {who}: {got}")
    assert not wrong, "\n".join(wrong)


def test_mode_none_ignores_certificates(pod):
    """Whatever the client presents, and on every endpoint."""
    server = asking(pod, tls={"client_auth_mode": "none"}, mtls=False)
    for pair in server.access.pairs.values():
        assert ask(server, pair) == "200"
        assert all(shake(server, endpoint, pair) == "OK" for endpoint in ENDPOINTS)


def test_purposes(pod):
    """A server certificate from the right CA is not valid for a client (RFC 5280 §4.2.1.12)."""
    server = asking(pod)
    assert ask(server, server.access.clients.issue((RW,))) == "UNAVAILABLE"
    assert ask(server, server.access.pairs["rw"]) == "200"


@pytest.mark.parametrize("kind", ["rsa2048", "p256", "p384", "ed25519"])
def test_key_kinds(pod, kind):
    server = asking(pod)
    assert role(server, server.access.certificate(RW, kind=kind)) == "rw"


def test_certificate_that_is_not_valid_yet(pod):
    server = asking(pod)
    later = {"starts": datetime.timedelta(hours=1), "ends": datetime.timedelta(hours=2)}
    assert ask(server, server.access.certificate(RW, **later)) == "UNAVAILABLE"


def test_required_refuses_health_without_a_certificate(pod):
    server = asking(pod, "required", "--probe", "localhost:0", "--metrics", "localhost:0")
    for path, endpoint in (("/health", "http"), ("/v1/ready", "http"), ("/metrics", "metrics")):
        assert of_http(NOBODY.curl(server, path, endpoint=endpoint)) == "UNAVAILABLE", path
        assert of_http(Caller(pair=server.access.pairs["ro"]).curl(server, path, endpoint=endpoint)) == "200", path
    for endpoint in ("flight", "grpc"):
        for pair, wanted in ((None, "UNAVAILABLE"), (server.access.pairs["unmapped"], "OK")):
            with Caller(pair=pair).wire(server, endpoint) as calls:
                assert calls.ask(wire.HEALTH, b"").code == wanted
    for path, said in (("/health", "ok"), ("/v1/ready", "ready")):
        assert clients.get(server, path, endpoint="probe").ok().text.strip() == said
    with clients.channel(server, "probe") as channel:
        check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=clients.DEADLINE)
    assert check.status == health_pb2.HealthCheckResponse.SERVING


def test_request_falls_back_to_keys_and_anonymous(pod):
    server = asking(pod, "request", keys=True, allow_anonymous="ro")
    pairs, keys = server.access.pairs, server.access.keys
    assert role(server, None) == "ro"
    assert role(server, Caller(keys["plain:rw"])) == "rw"
    assert role(server, Caller(server.access.wrong)) == "401"
    assert role(server, pairs["rw"]) == "rw"
    assert role(server, Caller(server.access.wrong, pairs["rw"])) == "401"
    assert role(server, Caller(keys["plain:ro"], pairs["rw"])) == "ro", "the key takes precedence"
    assert role(server, pairs["unmapped"]) == "403", "a certificate without access does not make its caller anonymous"
    assert role(server, Caller(keys["plain:ro"], pairs["unmapped"])) == "ro"


def test_anonymous_is_refused_if_certificates_are_configured(pod):
    """Although the endpoint is on loopback."""
    server = asking(pod, "request")
    assert role(server, None) == "401"
    with NOBODY.wire(server) as calls:
        assert calls.query("SELECT 1").code == "UNAUTHENTICATED"


# Clients


def test_pyarrow(pod):
    server = asking(pod)
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
    """`spiced sql`, with a certificate, with a key, and with neither."""
    server = asking(pod, "request", keys=True)
    caller = Caller(pair=server.access.pairs["ro"])
    _, certificate, _, key = caller.curl_args(server)
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


# Sources of the CA


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
    """The flag's file takes precedence, and the pod's file, which does not exist, is not read."""
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
    assert ask(server, access.pairs["rw"]) == "200"
    assert ask(server, access.pairs["wrong-ca"]) == ask(server, None) == "UNAVAILABLE"


def test_several_cas(pod):
    access = Access(pod)
    pod.write("both.pem", access.clients.pem + access.strangers.pem)
    server = asking(pod, access=access, tls={"client_auth_mode": "required", "client_auth_ca_file": "both.pem"})
    assert ask(server, access.pairs["rw"]) == ask(server, access.pairs["wrong-ca"]) == "200"
    assert ask(server, Authority("Third").issue((RW,), client=True)) == "UNAVAILABLE"


def test_end_of_the_ca_is_shown(pod):
    server = asking(pod, "request", "--metrics", "localhost:0")
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
# The names of a certificate and its common name; its rights.
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
    # An X509-SVID has exactly one URI.
    "uri, one of two": (["spiffe://else/where", "spiffe://prod/ns/etl/job"], "", "403"),
    "dns": (["daily.reports.example.com"], "", "ro"),
    "dns, in another case": (["DAILY.Reports.EXAMPLE.com"], "", "ro"),
    "dns, a rule in another case": (["WRITER.example.COM"], "", "rw"),
    "dns, a wildcard of its own": (["*.reports.example.com"], "", "403"),
    "dns, two labels for one star": (["a.b.reports.example.com"], "", "403"),
    "dns, nothing for a star": (["reports.example.com"], "", "403"),
    "dns, a dot is a dot": (["daily.reportsXexample.com"], "", "403"),
    "dns, something before": (["xwriter.example.com"], "", "403"),
    "dns, something after": (["writer.example.com.evil.example"], "", "403"),
    "dns, as a uri": (["https://writer.example.com"], "", "403"),
    "cn": ([], "grafana", "ro"),
    "cn, beside names": (["other.example.com"], "grafana", "ro"),
    "cn, a star": ([], "job-7.etl", "rw"),
    # It is ambiguous which of the two is meant.
    "cn, one of two": ([], "nobody + grafana", "403"),
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
    yield asking(pod, mtls={"identities": IDENTITIES})
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
    """Every valid certificate may read, and the log warns of it."""
    server = asking(pod, mtls=False)
    assert role(server, server.access.pairs["rw"]) == role(server, server.access.certificate(common_name="any")) == "ro"
    assert server.logged("WARN", match=r"identit"), server.stderr


def test_tickets_belong_to_the_identity(pod):
    """A renewed certificate keeps access to them; another name that matches the same rule does not get it."""
    server = asking(pod, mtls={"identities": [{"san_uri": "spiffe://prod/ns/etl/*", "role": "rw"}]})
    names = {"maker": "job", "renewed": "job", "another": "other"}
    pairs = {who: server.access.certificate(f"spiffe://prod/ns/etl/{name}") for who, name in names.items()}
    with Caller(pair=pairs["maker"]).wire(server) as calls:
        ticket = wire.ticket_of(calls.ask("GetFlightInfo", wire.descriptor("SELECT 1 AS x")).ok())
        update = wire.handle_of(calls.prepare("INSERT INTO notes VALUES (1, 'x')"))
    update = wire.sql_any("CommandPreparedStatementUpdate", f1=update)
    for who, wanted in (("maker", "OK"), ("renewed", "OK"), ("another", "PERMISSION_DENIED")):
        with Caller(pair=pairs[who]).wire(server) as calls:
            assert (calls.ask("DoGet", ticket).code, calls.put(update).code) == (wanted, wanted), who


def test_metrics_that_require_credentials_accept_a_certificate(pod):
    server = asking(pod, "request", "--metrics", "localhost:0", metrics=True)
    for pair, wanted in ((None, 401), (server.access.pairs["ro"], 200), (server.access.pairs["unmapped"], 403)):
        assert Caller(pair=pair).curl(server, "/metrics", endpoint="metrics").status == wanted


# Chains


def test_intermediate_that_the_client_sends(pod):
    server = asking(pod)
    between = Authority("Conformance Clients, between", server.access.clients)
    pair = between.issue((RW,), client=True)
    assert ask(server, pair) == "200"
    assert all(shake(server, endpoint, pair, version) == "OK" for endpoint in ENDPOINTS for version in VERSIONS)
    assert ask(server, Pair(pair.leaf, pair.key)) == "UNAVAILABLE", "without its intermediate no path leads to the CA"
    elsewhere = Authority("Strangers, between", server.access.strangers).issue((RW,), client=True)
    assert ask(server, elsewhere) == "UNAVAILABLE"


def test_leaf_cannot_issue(pod):
    """The holder of a client's key cannot issue certificates."""
    server = asking(pod)
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
# The server's revocation lists; whether a leaf of the root and a leaf of the intermediate are accepted.
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
    """An authority with the same certificate and another key."""
    false = Authority("false")
    false.certificate = authority.certificate
    return false


@pytest.mark.parametrize("lists, near, far", LISTS.values(), ids=LISTS.keys())
def test_revocation(pod, lists, near, far):
    access = Access(pod)
    chain = Chain(access)
    server = asking(pod, access=access, crls=lists(chain))
    assert (ask(server, chain.near), ask(server, chain.far)) == (near, far)


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
# The pod's TLS and auth settings, and what the report must name.
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
