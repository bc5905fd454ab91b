"""API keys: their sources, their roles, how they are displayed, and which ones are refused at startup."""

from __future__ import annotations

import re
import signal

import pytest
from pyarrow import flight

from harness import identities, clients, commands, data, wire
from harness.access import PATIENT, Access
from harness.identities import NOBODY, Caller, argon2id, basic, code, role, sha256
from harness.leak_scanner import LEDGER
from harness.pod import Pod
from harness.server import text_of
from harness.waiting import eventually


def key(what: str = "a key") -> str:
    return LEDGER.mark(what)


def keyed(pod, *keys: str, env=None, secrets=None, args=(), **auth):
    """A server with these keys in `runtime.auth.api_key.keys`, and a writable data set."""
    more = {"secrets": secrets} if secrets else {}
    auth = {"api_key": {"keys": list(keys)}, **auth} if keys else auth
    pod.yaml(tls=pod.write_pair(), runtime={"auth": auth} if auth else {}, datasets=[data.MEMORY], **more)
    return pod.serve(*args, env=env)


# The source of a key's role: the key in the pod, the content of secret S, the key that the caller sends, and its role

SUFFIXES = {
    "ro": ("${env:S}:ro", "KEY", "KEY", "ro"),
    "rw": ("${env:S}:rw", "KEY", "KEY", "rw"),
    "none": ("${env:S}", "KEY", "KEY", "ro"),
    "none, and the secret ends in :rw": ("${env:S}", "KEY:rw", "KEY:rw", "ro"),
    "none, and the secret ends in :ro": ("${env:S}", "KEY:ro", "KEY:ro", "ro"),
    "ro, and the secret ends in :rw": ("${env:S}:ro", "KEY:rw", "KEY:rw", "ro"),
    "rw, and the secret ends in :ro": ("${env:S}:rw", "KEY:ro", "KEY:ro", "rw"),
    "literal ro": ("KEY:ro", "-", "KEY", "ro"),
    "literal rw": ("KEY:rw", "-", "KEY", "rw"),
    "literal none": ("KEY", "-", "KEY", "ro"),
    "a colon within": ("a:KEY:rw", "-", "a:KEY", "rw"),
    "text around a reference": ("before-${env:S}-after:rw", "KEY", "before-KEY-after", "rw"),
    "the role itself from a secret": ("KEY${env:S}", ":rw", "KEY:rw", "ro"),
}


@pytest.mark.parametrize("said, held, shown, wanted", SUFFIXES.values(), ids=SUFFIXES.keys())
def test_role_of_a_key(pod, said, held, shown, wanted):
    value = key()
    said, held, shown = (text.replace("KEY", value) for text in (said, held, shown))
    server = keyed(pod, said, env={"S": held})
    assert role(server, Caller(shown)) == wanted
    if shown.endswith((":ro", ":rw")):
        assert role(server, Caller(shown[:-3])) == "401", "the end of the secret was read as a role"
    told = server.logged("INFO", match=r"key.*read.only|read.only.*key")
    assert bool(told) == (not said.endswith((":ro", ":rw"))), (
        "the log reports whether a key without a role is read-only"
    )


def test_hash_of_a_key(pod):
    keys = {f"{kind}:{role}": key() for kind in ("sha256", "argon2id") for role in ("ro", "rw", "")}
    hashed = {"sha256": sha256, "argon2id": argon2id}
    said = []
    for name, value in keys.items():
        kind, _, suffix = name.partition(":")
        said.append(hashed[kind](value) + (f":{suffix}" if suffix else ""))
    server = keyed(pod, *said)
    for name, value in keys.items():
        assert role(server, Caller(value)) == (name.partition(":")[2] or "ro"), name
    for hashed_key in (sha256(keys["sha256:rw"]), argon2id(keys["argon2id:rw"])):
        for shown in (hashed_key, hashed_key.partition(":")[2]):
            assert role(server, Caller(shown)) == "401", "the hash is not accepted as a key"


def test_argon2id_at_its_usual_cost(pod):
    value = key()
    server = keyed(pod, argon2id(value, memory_cost=19 * 1024, iterations=2) + ":rw")
    assert role(server, Caller(value)) == "rw"


@pytest.mark.parametrize("name", ["api_key", "api-key"])
@pytest.mark.parametrize("more", [{}, {"enabled": True}], ids=["bare", "enabled"])
def test_spelling(pod, name, more):
    value = key()
    pod.yaml(tls=pod.write_pair(), runtime={"auth": {name: {**more, "keys": ["${env:K}:rw"]}}}, datasets=[data.MEMORY])
    server = pod.serve(env={"K": value})
    assert (role(server, Caller(value)), role(server, NOBODY)) == ("rw", "401")


# Stores


def test_keys_from_a_file_store(pod):
    value = key()
    pod.write("mounted/reports", value)
    server = keyed(pod, "${files:reports}:rw", secrets=[{"from": "file:mounted", "name": "files"}])
    assert role(server, Caller(value)) == "rw"


def test_keys_from_any_store(pod):
    one, two = key(), key()
    pod.write("mounted/ONE", one)
    server = keyed(
        pod,
        "${secrets:ONE}:rw",
        "${secrets:TWO}",
        secrets=[{"from": "file:mounted", "name": "files"}],
        env={"TWO": two},
    )
    assert (role(server, Caller(one)), role(server, Caller(two))) == ("rw", "ro")


VARIABLE = "SPICED_RUNTIME__AUTH__API_KEY__KEYS"


def test_keys_from_a_variable(pod):
    one, two, three = key(), key(), key()
    pod.yaml(tls=pod.write_pair(), datasets=[data.MEMORY])
    server = pod.serve(env={VARIABLE: f"{one}:ro,{two}:rw,{sha256(three)}:rw"})
    roles = [role(server, Caller(value)) for value in (one, two, three)]
    assert roles == ["ro", "rw", "rw"] and role(server, NOBODY) == "401"


def test_variable_overrides_the_pod(pod):
    one, two = key(), key()
    server = keyed(pod, f"{one}:rw", env={VARIABLE: f"{two}:ro"})
    assert (role(server, Caller(one)), role(server, Caller(two))) == ("401", "ro")


def test_variable_is_literal(pod):
    """References in the variable are not resolved."""
    value = key()
    pod.yaml(tls=pod.write_pair(), datasets=[data.MEMORY])
    server = pod.serve(env={VARIABLE: "${env:SECRET}:ro", "SECRET": value})
    assert role(server, Caller(value)) == "401"
    assert role(server, Caller("${env:SECRET}")) == "ro"


# Refused at startup, without showing a key. `A` and `B` are keys, `S` is a secret that holds A.

HEX = "0123456789abcdef" * 4
PHC = "$argon2id$v=19$m=1024,t=1,p=1$Y29uZm9ybWFuY2Ugc2FsdA$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI"
REFUSED = {
    "empty": [""],
    "empty with a role": [":ro"],
    "an empty secret": ["${env:EMPTY}:rw"],
    "a missing secret": ["${env:MISSING}:rw"],
    "empty beside a good one": ["A:rw", ":ro"],
    "doubled": ["A:ro", "B:rw", "A:ro"],
    "doubled with two roles": ["A:ro", "A:rw"],
    "doubled, once without a role": ["A", "A:rw"],
    "doubled by a secret": ["A:rw", "${env:S}:ro"],
    "doubled by its hash": ["A:ro", "HASH:rw"],
    "doubled hash": ["HASH:ro", "HASH:rw"],
    "sha256 of nothing": ["sha256::ro"],
    "sha256 too short": [f"sha256:{HEX[:-1]}:ro"],
    "sha256 too long": [f"sha256:{HEX}0:ro"],
    "sha256 that is no hex": [f"sha256:{HEX[:-1]}g:ro"],
    "argon2id of nothing": ["argon2id::ro"],
    "argon2id that is no PHC string": ["argon2id:A:ro"],
    "argon2id cut short": [f"argon2id:{PHC[: PHC.rindex('$')]}:ro"],
    "argon2id without a cost": [f"argon2id:{PHC.replace('t=1,', '')}:ro"],
    "argon2i": [f"argon2id:{PHC.replace('argon2id', 'argon2i')}:ro"],
    "another algorithm's PHC string": [
        "argon2id:$scrypt$ln=15,r=8,p=1$Y29uZm9ybWFuY2Ugc2FsdA$MTIzNDU2Nzg5MDEyMzQ1Ng:ro"
    ],
}


def _filled(said: str, one: str, two: str) -> str:
    words = {"A": one, "B": two, "HASH": sha256(one)}
    return re.sub(r"\b(A|B|HASH)\b", lambda match: words[match[0]], said)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_at_start(pod, name):
    one, two = key("a refused key"), key("a key beside it")
    keys = [_filled(said, one, two) for said in REFUSED[name]]
    pod.yaml(tls=pod.write_pair(), runtime={"auth": {"api_key": {"keys": keys}}})
    pod.refuse(env={"S": one, "EMPTY": ""}).names("runtime.auth.api_key.keys")


@pytest.mark.parametrize("said", ["", "A:ro,", "A:ro,,B:rw", "A:ro,A:rw", ":ro"])
def test_variable_is_refused_at_start(pod, said):
    one, two = key("a refused key"), key("a key beside it")
    pod.yaml(tls=pod.write_pair())
    pod.refuse(env={VARIABLE: _filled(said, one, two)}).names(VARIABLE)


def test_unknown_role_word_for_anonymous_is_refused(pod):
    pod.yaml(tls=pod.write_pair(), runtime={"auth": {"allow_anonymous": "admin"}})
    pod.refuse().names("allow_anonymous")


# How a key is sent over HTTP. `K` is a valid key, `W` a wrong one.

SHOWN = {
    "x-api-key": (["X-API-Key: K"], 200),
    "x-api-key in lower case": (["x-api-key: K"], 200),
    "bearer": (["Authorization: Bearer K"], 200),
    "bearer in lower case": (["Authorization: bearer K"], 200),  # RFC 9110 §11.1: the scheme is case-insensitive
    "both": (["X-API-Key: K", "Authorization: Bearer K"], 200),
    "x-api-key and an empty bearer": (["X-API-Key: K", "Authorization: Bearer "], 200),
    "nothing": ([], 401),
    "empty bearer": (["Authorization: Bearer "], 401),
    "bearer alone": (["Authorization: Bearer"], 401),
    "wrong x-api-key": (["X-API-Key: W"], 401),
    "wrong bearer": (["Authorization: Bearer W"], 401),
    "good x-api-key and wrong bearer": (["X-API-Key: K", "Authorization: Bearer W"], 401),
    "wrong x-api-key and good bearer": (["X-API-Key: W", "Authorization: Bearer K"], 401),
    "two keys, one of them wrong": (["X-API-Key: K", "X-API-Key: W"], 401),
    "two keys, the first of them wrong": (["X-API-Key: W", "X-API-Key: K"], 401),
    "two bearers, one of them wrong": (["Authorization: Bearer K", "Authorization: Bearer W"], 401),
    "two bearers, the first of them wrong": (["Authorization: Bearer W", "Authorization: Bearer K"], 401),
    "two keys in one line": (["X-API-Key: K, W"], 401),
    "the key alone as authorization": (["Authorization: K"], 401),
    "another scheme": (["Authorization: Token K"], 401),
    "with its role": (["X-API-Key: K:rw"], 401),
    "cut short": (["X-API-Key: SHORT"], 401),
    "with more": (["X-API-Key: Kx"], 401),
    "in upper case": (["X-API-Key: UPPER"], 401),
    "another header": (["API-Key: K"], 401),
    "a cookie": (["Cookie: api_key=K; x-api-key=K"], 401),
}


def patient(pod, **auth):
    """A server with every kind of key and no lockout."""
    access = Access(pod)
    runtime = {"auth": {"api_key": access.api_key, **auth}, **PATIENT}
    pod.yaml(tls=pod.write_pair(), runtime=runtime, datasets=[data.MEMORY])
    server = pod.serve("--metrics", "localhost:0", env=access.environment)
    server.access = access
    return server


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    pod = Pod(tmp_path_factory.mktemp("shared"))
    yield patient(pod)
    pod.close()


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
@pytest.mark.parametrize("headers, wanted", SHOWN.values(), ids=SHOWN.keys())
def test_shown_over_http(shared, headers, wanted, protocol):
    good, wrong = shared.access.keys["plain:ro"], shared.access.wrong
    words = {"SHORT": good[:-1], "UPPER": good.upper(), "K": good, "W": wrong}
    lines = [re.sub("SHORT|UPPER|K(?=$|:|;|,|x)|W$", lambda m: words[m[0]], header) for header in headers]
    answer = clients.sql(shared, "SELECT 1 AS x", protocol, *(word for line in lines for word in ("-H", line)))
    assert answer.status == wanted, answer
    if wanted == 401:
        assert "bearer" in answer.headers.get("www-authenticate", "").lower(), "RFC 9110 §15.5.2"
        assert answer.media_type == "application/problem+json" and answer.json()["status"] == 401
        LEDGER.assert_clean(answer.body, "the refusal")
        LEDGER.assert_clean(str(answer.headers), "its headers")


def test_key_in_the_url_is_ignored(shared):
    good = shared.access.keys["plain:rw"]
    for query in (f"api_key={good}", f"x-api-key={good}", f"access_token={good}"):
        assert clients.get(shared, f"/v1/status?{query}").status == 401


@pytest.mark.parametrize("path", ["/v1/status", "/v1/datasets", "/v1/sql"])
def test_every_route_requires_a_key(shared, path):
    more = ["-d", "SELECT 1"] if path == "/v1/sql" else []
    assert clients.get(shared, path, *more).status == 401
    shared.access.ro.curl(shared, path, *more).ok()


@pytest.mark.parametrize("endpoint", ["flight", "grpc"])
@pytest.mark.parametrize("header", ["x-api-key", "bearer", "basic"])
def test_shown_as_metadata(shared, endpoint, header):
    method, request = (
        (wire.REFLECTION, wire.message(f7="*")) if endpoint == "grpc" else ("GetFlightInfo", wire.descriptor("SELECT 1"))
    )
    for value, wanted in ((shared.access.keys["plain:ro"], "OK"), (shared.access.wrong, "UNAUTHENTICATED")):
        with Caller(value, header=header).wire(shared, endpoint) as calls:
            assert calls.ask(method, request).code == wanted
    for metadata in ({}, {"authorization": "Bearer "}, {"authorization": basic("")}):
        with NOBODY.wire(shared, endpoint, **metadata) as calls:
            assert calls.ask(method, request).code == "UNAUTHENTICATED", metadata


@pytest.mark.parametrize("order", [("K", "W"), ("W", "K")], ids=["good first", "wrong first"])
@pytest.mark.parametrize(
    "name, before", [(b"authorization", "Bearer "), (b"x-api-key", "")], ids=["bearer", "x-api-key"]
)
def test_shown_twice_as_metadata(shared, name, before, order):
    words = {"K": shared.access.keys["plain:ro"], "W": shared.access.wrong}
    options = clients.call(headers=[(name, f"{before}{words[word]}".encode()) for word in order])
    with clients.flight_client(shared) as client:
        assert code(lambda: clients.query(client, "SELECT 1 AS x", options)) == "UNAUTHENTICATED"


def test_basic_is_not_for_http(shared):
    """Browsers would send Basic credentials with any page's request."""
    assert Caller(shared.access.keys["plain:ro"], header="basic").curl(shared, "/v1/status").status == 401


EVERY_METHOD = {
    "GetFlightInfo": wire.descriptor("SELECT 1"),
    "GetSchema": wire.descriptor("SELECT 1"),
    "DoGet": wire.message(f1=b"ticket"),
    "DoPut": wire.put(wire.update("SELECT 1"))[0],
    "DoAction": wire.message(
        f1="CreatePreparedStatement", f2=wire.sql_any("ActionCreatePreparedStatementRequest", f1="SELECT 1")
    ),
    "DoExchange": wire.message(f1=wire.descriptor("SELECT 1")),
    "ListFlights": b"",
    "ListActions": b"",
    "PollFlightInfo": wire.descriptor("SELECT 1"),
    "Handshake": wire.message(f2=b""),
}


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_every_flight_method_requires_a_key(shared, method):
    for caller in (NOBODY, Caller(shared.access.wrong)):
        with caller.wire(shared) as calls:
            assert calls.ask(method, EVERY_METHOD[method]).code == "UNAUTHENTICATED", caller


# Anonymous callers in addition to keys


@pytest.mark.parametrize("allowed, wanted", [("ro", "ro"), ("rw", "rw"), (False, "401"), (None, "401")])
def test_anonymous_beside_keys(pod, allowed, wanted):
    """A wrong key is refused even if anonymous callers are accepted; an empty bearer token counts as no key."""
    server = patient(pod, **({} if allowed is None else {"allow_anonymous": allowed}))
    assert role(server, NOBODY) == wanted
    assert role(server, Caller("")) == wanted, "an empty bearer token counts as no key"
    assert role(server, Caller(server.access.wrong)) == "401"
    assert role(server, server.access.ro) == "ro"
    for endpoint in ("flight", "grpc"):
        method, request = (
            (wire.REFLECTION, wire.message(f7="*"))
            if endpoint == "grpc"
            else ("GetFlightInfo", wire.descriptor("SELECT 1"))
        )
        for caller, right in (
            (NOBODY, "UNAUTHENTICATED" if wanted == "401" else "OK"),
            (Caller(server.access.wrong), "UNAUTHENTICATED"),
        ):
            with caller.wire(server, endpoint) as calls:
                assert calls.ask(method, request).code == right, (endpoint, caller)


@pytest.mark.parametrize("allowed, wanted", [(None, "401"), ("ro", "ro"), ("rw", "rw"), (False, "401")])
def test_anonymous_without_configured_credentials(pod, allowed, wanted):
    """Without configured access, an endpoint beyond loopback refuses callers, and one on loopback accepts them."""
    auth = {} if allowed is None else {"auth": {"allow_anonymous": allowed}}
    pod.yaml(tls=pod.write_pair(), runtime=auth, datasets=[data.MEMORY])
    server = pod.serve("--http", "0.0.0.0:0", endpoints=("flight", "grpc"))
    assert role(server, NOBODY) == wanted
    with NOBODY.wire(server) as calls:
        code = calls.put(wire.update("INSERT INTO notes VALUES (1, 'x')")).code
    here = "rw" if allowed is None else wanted
    assert code == {"rw": "OK", "ro": "PERMISSION_DENIED", "401": "UNAUTHENTICATED"}[here]


def test_credentials_are_ignored_without_configured_keys(pod):
    server = keyed(pod)
    for header in ("x-api-key", "bearer"):
        assert role(server, Caller(key("a key that nobody asked for"), header=header)) == "rw"
    with Caller(key("a key that nobody asked for")).wire(server) as calls:
        calls.query("SELECT 1 AS x").ok()


# Handshake


@pytest.fixture
def good(shared):
    return shared.access.keys["plain:rw"]


def test_basic_token_by_pyarrow(shared, good):
    with clients.flight_client(shared) as client:
        name, value = client.authenticate_basic_token("anybody", good, clients.call())
        assert (name.lower(), value) == (b"authorization", f"Bearer {good}".encode())
        assert clients.query(client, "SELECT 1 AS x", clients.call(headers=[(name, value)])).num_rows == 1
        assert code(lambda: clients.query(client, "SELECT 1 AS x")) == "UNAUTHENTICATED", (
            "the connection itself has no identity"
        )


@pytest.mark.parametrize("password", ["wrong", ""])
def test_basic_token_with_a_wrong_password(shared, password):
    with clients.flight_client(shared) as client:
        with pytest.raises(flight.FlightUnauthenticatedError):
            client.authenticate_basic_token("anybody", shared.access.wrong if password else "", clients.call())


class _Payload(flight.ClientAuthHandler):
    """Sends Basic credentials in the handshake's payload, as pyarrow's own handlers do."""

    def __init__(self, password: str) -> None:
        super().__init__()
        self.password, self.token = password, b""

    def authenticate(self, outgoing, incoming):
        outgoing.write(flight.BasicAuth(b"anybody", self.password.encode()).serialize())
        self.token = incoming.read()

    def get_token(self):
        return self.token


def test_payload_by_pyarrow(shared, good):
    with clients.flight_client(shared) as client:
        handler = _Payload(good)
        client.authenticate(handler, clients.call())
        assert handler.token == good.encode()
        with pytest.raises(flight.FlightUnauthenticatedError):
            client.authenticate(_Payload(shared.access.wrong), clients.call())


def _handshake(shared, *, metadata: str | None = None, payload: bytes = b"") -> wire.Outcome:
    headers = {"authorization": metadata} if metadata else {}
    with NOBODY.wire(shared, **headers) as calls:
        return calls.ask("Handshake", wire.message(f2=payload))


def _basic_auth(password: str, user: str = "anybody") -> bytes:
    return wire.message(f2=user, f3=password)


@pytest.mark.parametrize("user", ["anybody", "", "Zoë", "a b"])
def test_handshake_on_the_wire(shared, good, user):
    """Sent as metadata or as payload, the credentials return a token in the response's headers and in its payload."""
    for shown in ({"metadata": basic(good, user)}, {"payload": _basic_auth(good, user)}):
        answer = _handshake(shared, **shown).ok()
        assert answer.headers["authorization"] == f"Bearer {good}", shown
        assert wire.read(answer.answers[0], 2) == good.encode(), shown


def test_handshake_with_a_key_that_holds_a_colon(pod):
    value = f"{key()}:{key()}"
    server = keyed(pod, f"{value}:ro")
    assert _handshake(server, metadata=basic(value)).ok().headers["authorization"] == f"Bearer {value}"


REFUSED_HANDSHAKES = {
    "nothing": lambda good, wrong: {},
    "wrong metadata": lambda good, wrong: {"metadata": basic(wrong)},
    "wrong payload": lambda good, wrong: {"payload": _basic_auth(wrong)},
    "good payload and wrong metadata": lambda good, wrong: {"metadata": basic(wrong), "payload": _basic_auth(good)},
    "key as the user": lambda good, wrong: {
        "metadata": "Basic " + identities.base64.b64encode(f"{good}:".encode()).decode()
    },
    "no base64": lambda good, wrong: {"metadata": "Basic !!!!"},
    "no colon": lambda good, wrong: {"metadata": "Basic " + identities.base64.b64encode(b"nothing").decode()},
    "no password": lambda good, wrong: {"payload": wire.message(f2="anybody")},
}


@pytest.mark.parametrize("name", REFUSED_HANDSHAKES)
def test_handshake_refused(shared, good, name):
    answer = _handshake(shared, **REFUSED_HANDSHAKES[name](good, shared.access.wrong))
    malformed = {"INVALID_ARGUMENT"} if name in ("no base64", "no colon") else set()
    assert answer.code in {"UNAUTHENTICATED"} | malformed and "authorization" not in answer.headers, answer.code


def test_handshake_payload_that_is_invalid(shared):
    answer = _handshake(shared, payload=b"\xff\xff\xff")
    assert answer.code in ("UNAUTHENTICATED", "INVALID_ARGUMENT"), answer


def test_token_is_good_on_every_replica(pod, shared, good):
    """The token is the key, so any server that knows the key accepts it."""
    token = _handshake(shared, metadata=basic(good)).ok().headers["authorization"]
    server = keyed(pod, f"{good}:ro")
    with NOBODY.wire(server, authorization=token) as calls:
        calls.query("SELECT 1 AS x").ok()


def test_adbc_user_and_password(shared, good):
    with clients.adbc(shared, username="anybody", password=good) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1 AS x")
        assert cursor.fetchall() == [(1,)]

    def wrong():
        with (
            clients.adbc(shared, username="anybody", password=shared.access.wrong) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT 1 AS x")

    assert code(wrong) == "UNAUTHENTICATED"


# `spiced key generate`


def _generated(pod, *more) -> tuple[str, str]:
    """Returns the key, and the line for the pod."""
    said = commands.run(pod, "key", "generate", *more).stdout.decode()
    value = re.search(r"^key:\s+(spk_\S+)", said, re.MULTILINE)
    line = re.search(r"^pod:\s+(sha256:[0-9a-f]{64}:r[ow])\b", said, re.MULTILINE)
    assert value and line, said
    return LEDGER.add("a generated key", value[1]), line[1]


@pytest.mark.parametrize("more, wanted", [((), "ro"), (("--role", "rw"), "rw")], ids=["unsaid", "rw"])
def test_generated_key_works(pod, more, wanted):
    value, line = _generated(pod, *more)
    assert line == f"{sha256(value)}:{wanted}"
    server = keyed(pod, line)
    assert role(server, Caller(value)) == wanted
    assert role(server, Caller(line.removesuffix(f":{wanted}"))) == "401"


def test_generated_keys_are_long_and_never_the_same(pod):
    keys = {_generated(pod)[0] for _ in range(3)}
    assert len(keys) == 3 and all(len(value) >= len("spk_") + 22 for value in keys), "128 bits need 22 characters"


# What reloads


def test_removed_key_ends_with_a_reload(pod):
    """A removed key's bearer token ends too; an added key is accepted, and a changed role applies to open connections.
    """
    one, two, three = key(), key(), key()
    server = keyed(pod, f"{one}:rw", f"{two}:rw")
    insert = "INSERT INTO notes VALUES (1, 'x')"
    with Caller(one).wire(server) as first, Caller(two).wire(server) as second:
        first.query("SELECT 1 AS x").ok()
        update = wire.sql_any("CommandPreparedStatementUpdate", f1=wire.handle_of(second.prepare(insert)))
        second.put(update).ok()
        keys = {"api_key": {"keys": [f"{two}:ro", f"{three}:rw"]}}
        pod.yaml(tls=pod.write_pair(), runtime={"auth": keys}, datasets=[data.MEMORY])
        server.signal(signal.SIGHUP)
        eventually(lambda: role(server, Caller(three)) == "rw", "the new key")
        assert (role(server, Caller(one)), role(server, Caller(two))) == ("401", "ro")
        assert first.query("SELECT 1 AS x").code == "UNAUTHENTICATED"
        assert second.put(update).code == "PERMISSION_DENIED", "a handle from before the change does not keep the role"
        second.query("SELECT 1 AS x").ok()


def test_broken_keys_keep_the_current_keys(pod):
    value = key()
    server = keyed(pod, f"{value}:rw")
    since = len(server.log)
    pod.yaml(tls=pod.write_pair(), runtime={"auth": {"api_key": {"keys": [":rw"]}}}, datasets=[data.MEMORY])
    server.signal(signal.SIGHUP)
    server.wait_for_log("WARN", "ERROR", match="api_key", since=since)
    assert role(server, Caller(value)) == "rw"


# Plain text, metrics, logs, commands


@pytest.mark.parametrize(
    "address, tls, warned",
    [("0.0.0.0:0", False, True), ("localhost:0", False, False), ("0.0.0.0:0", True, False)],
    ids=["beyond loopback", "on loopback", "over TLS"],
)
def test_warning_of_keys_in_plain_text(pod, address, tls, warned):
    pod.yaml(tls=pod.write_pair() if tls else None, runtime={"auth": {"api_key": {"keys": [f"{key()}:rw"]}}})
    server = pod.serve("--http", address, endpoints=("flight", "grpc"))
    told = server.logged("WARN", match=r"(?s)key.*plain|plain.*key")
    assert bool(told) == warned, server.stderr
    assert all("http" in text_of(line) for line in told), "the warning names the endpoint"


def test_metrics_are_open_by_default(pod):
    server = patient(pod)
    clients.get(server, "/metrics", endpoint="metrics").ok()


def test_metrics_that_require_a_key(pod):
    server = patient(pod, metrics=True)
    assert clients.get(server, "/metrics", endpoint="metrics").status == 401
    for caller, wanted in ((Caller(server.access.wrong), 401), (server.access.ro, 200), (server.access.rw, 200)):
        assert caller.curl(server, "/metrics", endpoint="metrics").status == wanted


def test_no_key_is_shown_by_any_log_or_command(pod):
    """Keys in the pod's text, in secrets and in every form that a caller sends, at the highest log level."""
    value, wrong = key("a literal key"), key("a wrong key")
    for one in (value, wrong):
        LEDGER.add("a key as Basic credentials", basic(one).removeprefix("Basic "))
    server = keyed(
        pod, f"{value}:rw", "${env:K}:ro", env={"K": key("a key from a store"), "SPICED_LOG": "trace"}, args=["-vv"]
    )
    for one in (value, wrong):
        for header in ("x-api-key", "bearer", "basic"):
            caller = Caller(one, header=header)
            for protocol in ("--http1.1", "--http2"):
                answer = caller.curl(server, "/v1/status", protocol)
                LEDGER.assert_clean(answer.body, "/v1/status")
            for endpoint in ("flight", "grpc"):
                with caller.wire(server, endpoint) as calls:
                    calls.ask("GetFlightInfo", wire.descriptor("SELECT 1"))
                    calls.ask("Handshake", wire.message(f2=b""))
        _handshake(server, payload=_basic_auth(one))
    for words in (("config", "explain"), ("config", "explain", "--json"), ("secrets", "check"), ("connect", "curl")):
        commands.run(pod, *words, pod.folder, env={"K": key("a key from a store")})
