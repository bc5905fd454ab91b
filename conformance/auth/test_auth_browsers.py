"""Browsers: which pages may call (CORS), what other pages cannot do, and when a browser is told to use only HTTPS
(HSTS).
"""

from __future__ import annotations

import pytest

from harness import clients, data
from harness.access import PATIENT, Access
from harness.identities import NOBODY, Caller
from harness.certificates import self_signed

APP, OTHER, EVIL = "https://app.example.com", "https://other.example.com:8443", "https://evil.example"
# Origins that look like APP and are not.
NEAR = [
    EVIL,
    "http://app.example.com",
    "https://app.example.com:444",
    "https://app.example.com.evil.example",
    "https://xapp.example.com",
    "https://sub.app.example.com",
    "null",
]


def serve(pod, *, cors: dict | None = None, mode: str | None = None, **auth):
    """Starts a server with keys and, if `mode` is set, client certificates."""
    access = Access(pod)
    runtime = {"auth": {"api_key": access.api_key, **auth}, **PATIENT}
    if mode:
        runtime["auth"]["mtls"] = access.mtls
    if cors is not None:
        runtime["cors"] = cors
    pod.yaml(tls=access.tls(mode) if mode else pod.write_pair(), runtime=runtime, datasets=[data.MEMORY])
    server = pod.serve(env=access.environment)
    server.access = access
    return server


def preflight(server, origin: str, *, method: str = "POST", headers: str = "x-api-key, authorization, content-type"):
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return clients.get(server, "/v1/sql", "-X", "OPTIONS", *(w for k, v in asked.items() for w in ("-H", f"{k}: {v}")))


def page(server, caller: Caller, pod, *headers: str) -> clients.Answer:
    """Sends a query as the script of a page would."""
    words = [word for header in headers for word in ("-H", header)]
    return caller.curl(server, "/v1/sql", "-d", "SELECT 1 AS x", *words)


def allowed(answer: clients.Answer) -> str | None:
    return answer.headers.get("access-control-allow-origin")


def listed(answer: clients.Answer, name: str) -> set[str]:
    return {word.strip().lower() for word in answer.headers.get(name, "").split(",") if word.strip()}


NAMED = {"enabled": True, "allowed_origins": [APP, OTHER]}


def test_preflight(pod):
    server = serve(pod, cors=NAMED)
    for origin in (APP, OTHER):
        answer = preflight(server, origin)
        assert answer.status in (200, 204), answer
        assert allowed(answer) == origin
        assert "post" in listed(answer, "access-control-allow-methods")
        # `*` does not cover `authorization` (Fetch, CORS-safelisted request headers).
        assert {"x-api-key", "authorization", "content-type"} <= listed(answer, "access-control-allow-headers")
        assert "origin" in listed(answer, "vary"), "a cache must not serve one origin's answer to another"
    for origin in NEAR:
        answer = preflight(server, origin)
        # A browser stops unless the header names the page's origin, whatever the rest of the answer contains.
        assert allowed(answer) is None, f"{origin}: {answer}"


def test_requests_from_pages(pod):
    server = serve(pod, cors=NAMED)
    for header in ("x-api-key", "bearer"):
        caller = Caller(server.access.keys["plain:ro"], header=header)
        answer = page(server, caller, pod, f"Origin: {APP}", "Sec-Fetch-Site: cross-site").ok()
        assert allowed(answer) == APP and answer.json() == [{"x": 1}]
        # No page can send a key on its own, so the request is answered; the page must not read the answer.
        for origin in NEAR:
            assert allowed(page(server, caller, pod, f"Origin: {origin}", "Sec-Fetch-Site: cross-site").ok()) is None, (
                origin
            )
    assert page(server, NOBODY, pod, f"Origin: {APP}").status == 401
    assert page(server, Caller(server.access.wrong), pod, f"Origin: {APP}").status == 401


def test_page_that_is_refused_may_read_why(pod):
    """Without the header, a browser hides a 401 or a 400 from the page."""
    server = serve(pod, cors=NAMED)
    assert allowed(page(server, NOBODY, pod, f"Origin: {APP}")) == APP
    bad = server.access.ro.curl(server, "/v1/sql", "-d", "SELEC 1", "-H", f"Origin: {APP}")
    assert (bad.status, allowed(bad)) == (400, APP)


def test_every_origin(pod):
    server = serve(pod, cors={"enabled": True, "allowed_origins": ["*"]})
    assert allowed(preflight(server, EVIL)) in ("*", EVIL)
    assert allowed(page(server, server.access.ro, pod, f"Origin: {EVIL}").ok()) in ("*", EVIL)
    assert page(server, NOBODY, pod, f"Origin: {EVIL}").status == 401


@pytest.mark.parametrize("cors", [None, {"enabled": False, "allowed_origins": [APP]}], ids=["unset", "off"])
def test_no_cors(pod, cors):
    server = serve(pod, cors=cors)
    assert not any(name.startswith("access-control-allow") for name in preflight(server, APP).headers)
    assert allowed(page(server, server.access.ro, pod, f"Origin: {APP}").ok()) is None
    assert page(server, NOBODY, pod, f"Origin: {APP}").status in (401, 403)


def test_anonymous_pages(pod):
    """If anonymous callers may read, only the listed pages may."""
    server = serve(pod, cors=NAMED, allow_anonymous="ro")
    answer = page(server, NOBODY, pod, f"Origin: {APP}", "Sec-Fetch-Site: cross-site").ok()
    assert allowed(answer) == APP
    for origin in NEAR:
        assert page(server, NOBODY, pod, f"Origin: {origin}").status == 403, origin
    assert page(server, NOBODY, pod, "Sec-Fetch-Site: cross-site").status == 403
    page(server, NOBODY, pod).ok()
    page(server, NOBODY, pod, f"Origin: {server.url('').rstrip('/')}", "Sec-Fetch-Site: same-origin").ok()


FOREIGN = {
    "origin": [f"Origin: {EVIL}"],
    "null origin": ["Origin: null"],
    "cross-site": ["Sec-Fetch-Site: cross-site"],
    "both": [f"Origin: {EVIL}", "Sec-Fetch-Site: cross-site"],
    "origin that claims to be at home": [f"Origin: {EVIL}", "Sec-Fetch-Site: same-origin"],
}


@pytest.mark.parametrize("mode", ["request", "required"])
def test_certificate_does_not_authorize_a_page(pod, mode):
    """A browser presents a certificate with any page's request, but not a key."""
    server = serve(pod, cors=NAMED, mode=mode)
    shown = Caller(pair=server.access.pairs["rw"])
    for name, headers in FOREIGN.items():
        assert page(server, shown, pod, *headers).status == 403, name
        page(server, Caller(server.access.keys["plain:ro"], server.access.pairs["rw"]), pod, *headers).ok()
    page(server, shown, pod).ok()
    page(server, shown, pod, f"Origin: {server.url('').rstrip('/')}", "Sec-Fetch-Site: same-origin").ok()
    assert allowed(page(server, shown, pod, f"Origin: {APP}", "Sec-Fetch-Site: cross-site").ok()) == APP


def test_empty_bearer_does_not_authorize_a_page(pod):
    server = serve(pod, mode="request")
    assert page(server, Caller("", server.access.pairs["rw"]), pod, f"Origin: {EVIL}").status == 403


def test_any_host_is_accepted_if_keys_are_required(pod):
    """DNS rebinding gains nothing if every caller needs a key."""
    server = serve(pod)
    page(server, server.access.ro, pod, "Host: spiced.example.com").ok()


@pytest.mark.parametrize("origins", [["app.example.com"], ["https://app.example.com/path"], [""]], ids=str)
def test_invalid_origins_are_refused(pod, origins):
    pod.yaml(tls=pod.write_pair(), runtime={"cors": {"enabled": True, "allowed_origins": origins}})
    pod.refuse().names("allowed_origins")


# HSTS

NAME = "spiced.example.com"


def _issued(pod):
    return pod.ca.issue((NAME, "localhost", "127.0.0.1"))


def _hsts(pod, *, hsts: str | None = "365d", issue=_issued, tls: bool = True, hosts=(NAME,)) -> dict[str, str | None]:
    """Returns the header for each host, from an endpoint that every client may reach."""
    access = Access(pod)
    runtime = {"auth": {"api_key": access.api_key}, **({"http": {"hsts": hsts}} if hsts else {})}
    pod.yaml(tls=pod.write_pair(issue(pod)) if tls else None, runtime=runtime)
    server = pod.serve("--http", "0.0.0.0:0", endpoints=("flight", "grpc"), env=access.environment)
    found = {}
    for host in hosts:
        answer = clients.get(
            server, "/health", "-k", "--resolve", f"{NAME}:{server.port('http')}:127.0.0.1", host=host
        ).ok()
        found[host] = answer.headers.get("strict-transport-security")
    return found


def test_hsts(pod):
    found = _hsts(pod, hosts=(NAME, "localhost", "127.0.0.1"))
    assert (found.pop(NAME) or "").replace(" ", "").startswith("max-age=31536000")
    assert set(found.values()) == {None}, (
        f"this would block every plain-text port of this host in a developer's browser: {found}"
    )


NO_HSTS = {
    "not asked for": {"hsts": None},
    "self-signed": {"issue": lambda _: self_signed((NAME, "localhost", "127.0.0.1"))},
    "plain text": {"tls": False},
}


@pytest.mark.parametrize("how", NO_HSTS.values(), ids=NO_HSTS.keys())
def test_no_hsts(pod, how):
    assert _hsts(pod, **how) == {NAME: None}
