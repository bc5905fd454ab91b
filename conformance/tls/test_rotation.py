"""Changed files are loaded automatically, on every endpoint, whichever way they change."""

from __future__ import annotations

import datetime
import os
import shutil

import pytest

from harness import clients, data
from harness.certificates import Authority
from harness.leak_scanner import LEDGER
from harness.pod import ENDPOINTS
from harness.waiting import eventually


def _mount(pod, pair, version: str) -> None:
    """The layout of a Kubernetes volume: `tls.crt` is a link through `..data` into a directory for one version."""
    folder = pod.folder / "volume"
    (folder / version).mkdir(parents=True)
    (folder / version / "tls.crt").write_text(pair.certificate)
    (folder / version / "tls.key").write_text(pair.key_text)
    os.symlink(version, folder / "..data_tmp")
    os.replace(folder / "..data_tmp", folder / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (folder / name).is_symlink():
            os.symlink(f"..data/{name}", folder / name)


def _rename(pod, pair):
    for name, text in (("tls.key", pair.key_text), ("tls.crt", pair.certificate)):
        pod.write(f"volume/{name}.new", text)
        os.replace(pod.folder / "volume" / f"{name}.new", pod.folder / "volume" / name)


def _in_place(pod, pair):
    (pod.folder / "volume" / "tls.key").write_text(pair.key_text)
    (pod.folder / "volume" / "tls.crt").write_text(pair.certificate)


def _swap(pod, pair):
    _mount(pod, pair, "..2")


def _folder(pod, pair):
    """The directory itself is replaced."""
    shutil.rmtree(pod.folder / "volume")
    _mount(pod, pair, "..3")


def _gone_and_back(pod, pair):
    (pod.folder / "volume" / "tls.crt").unlink()
    _rename(pod, pair)


CHANGES = {"rename": _rename, "in place": _in_place, "..data": _swap, "folder": _folder, "gone and back": _gone_and_back}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_changed_files_are_loaded_automatically(pod, change):
    _mount(pod, pod.pair, "..1")
    pod.yaml(tls={"certificate_file": "volume/tls.crt", "key_file": "volume/tls.key"})
    server = pod.serve()
    renewed = pod.ca.issue(common_name="renewed")
    change(pod, renewed)
    for endpoint in ENDPOINTS:
        eventually(lambda endpoint=endpoint: clients.presented(server, endpoint) == renewed.der, f"it on the {endpoint} endpoint")
    assert not server.logged("ERROR"), server.stderr


def test_half_of_a_pair_is_never_installed(pod):
    pod.yaml(tls=pod.write_pair())
    server = pod.serve()
    renewed = pod.ca.issue(common_name="renewed")
    pod.write("tls.crt", renewed.certificate)
    server.wait_for_log("ERROR", match="is not the key of")
    assert clients.presented(server, "http") == pod.pair.der
    pod.write("tls.key", renewed.key_text)
    eventually(lambda: clients.presented(server, "http") == renewed.der, "the whole pair")


def test_the_pod_itself(pod):
    """Inline PEM, keys and the client CA change with the pod; settings that need a restart are logged."""
    pod.yaml(tls=pod.inline_pair())
    server = pod.serve()
    assert clients.sql(server, "SELECT 1 AS x").ok().json() == [{"x": 1}]
    renewed, key = pod.ca.issue(common_name="renewed"), LEDGER.mark("an API key")
    pod.yaml(
        tls=pod.inline_pair(renewed),
        runtime={"auth": {"api_key": {"keys": [f"{key}:rw"]}}, "limits": {"connections": 7}},
        datasets=[data.MEMORY],
    )
    eventually(lambda: clients.presented(server, "http") == renewed.der, "the new certificate")
    eventually(lambda: clients.sql(server, "SELECT 1 AS x").status == 401, "callers without a key are refused")
    assert clients.sql(server, "SELECT 1 AS x", "-H", f"X-API-Key: {key}").ok().json() == [{"x": 1}]
    said = server.wait_for_log("WARN", match="require a restart")
    assert {"runtime.limits", "datasets"} <= set(said["fields"]["changed"].split(", ")), said

    mine = pod.ca.issue(names=(), common_name="a client", client=True)
    show = clients.showing(mine, pod.home)
    asked = {**pod.inline_pair(renewed), "client_auth_mode": "required", "client_auth_ca": pod.ca.pem}
    pod.yaml(tls=asked)
    eventually(lambda: clients.get(server, "/health").exit != 0, "nobody gets in without a certificate")
    assert clients.sql(server, "SELECT 1 AS x", *show).ok().json() == [{"x": 1}]


def test_a_broken_pod_keeps_the_current_configuration(pod):
    pod.yaml(tls=pod.write_pair())
    server = pod.serve()
    pod.write("spicepod.yaml", "runtime: { tls: { certificate_file: tls.crt, key_flie: tls.key } }\n")
    said = server.wait_for_log("ERROR", match="did you mean `key_file`")
    assert "the previous one stays in use" in said["fields"]["message"]
    assert clients.presented(server, "http") == pod.pair.der
    # A certificate that is renewed at its previous path is loaded nevertheless.
    renewed = pod.ca.issue(common_name="renewed")
    pod.write_pair(renewed)
    eventually(lambda: clients.presented(server, "http") == renewed.der, "the renewed certificate")


def test_reload_by_http(pod):
    key, reader = LEDGER.mark("an API key"), LEDGER.mark("another API key")
    keys = {"auth": {"api_key": {"keys": [f"{key}:rw", f"{reader}:ro"]}}}
    pod.yaml(tls=pod.write_pair(), runtime=keys)
    server = pod.serve()

    def reload(query: str = "", by: str = key) -> clients.Answer:
        return clients.get(server, f"/v1/tls/reload{query}", "-X", "POST", "-H", f"X-API-Key: {by}")

    assert reload().ok().json() == {"result": "unchanged", "dry_run": False}
    assert reload(by=reader).status == 403
    assert reload("?dry_run=perhaps").status == 400
    renewed = pod.ca.issue(common_name="renewed")
    pod.write_pair(renewed)
    # Either the poll or the request finds the change first; there is only one swap.
    dry = reload("?dry_run=true").ok().json()
    assert dry["dry_run"] and dry["result"] in ("swapped", "unchanged"), dry
    assert reload().ok().json()["result"] in ("swapped", "unchanged")
    assert clients.presented(server, "http") == renewed.der
    pod.write("tls.key", pod.ca.issue().key_text)
    answer = reload()
    assert answer.status == 409 and answer.json()["result"] == "rejected", answer
    assert "not the key of" in answer.json()["reason"] and answer.json()["fix"]
    assert clients.presented(server, "http") == renewed.der


def test_reload_by_http_needs_credentials(served):
    """An endpoint open to anonymous callers does not let them reload."""
    assert clients.get(served, "/v1/tls/reload", "-X", "POST").status == 403


def test_a_client_ca_that_is_replaced(pod):
    one, other = Authority("one"), Authority("other")
    pod.write("ca.pem", one.pem)
    pod.yaml(tls={**pod.write_pair(), "client_auth_mode": "required", "client_auth_ca_file": "ca.pem"})
    server = pod.serve()
    shows = {ca: clients.as_client(ca, pod.home) for ca in (one, other)}
    assert clients.get(server, "/health", *shows[one]).status == 200
    pod.write("ca.pem", other.pem)
    eventually(lambda: clients.get(server, "/health", *shows[other]).status == 200, "who is trusted now")
    assert clients.get(server, "/health", *shows[one]).exit != 0


EMPTIED = {
    "an empty file": "",
    "cut off before auth": "version: v1\nkind: Spicepod\nname: conformance\n",
    "without auth": None,
}


@pytest.mark.parametrize("text", EMPTIED.values(), ids=EMPTIED.keys())
def test_no_reload_opens_an_endpoint(pod, text):
    """A pod that is half-written, or emptied by mistake, does not admit callers that were not admitted before."""
    key = LEDGER.mark("an API key")
    pod.yaml(tls=pod.write_pair(), runtime={"auth": {"api_key": {"keys": [f"{key}:rw"]}}})
    server = pod.serve()
    if text is None:
        pod.yaml(tls=pod.write_pair())
    else:
        pod.write("spicepod.yaml", text)
    server.wait_for_log("ERROR", match="the previous one stays in use")
    assert clients.sql(server, "SELECT 1 AS x").status == 401
    assert clients.sql(server, "SELECT 1 AS x", "-H", f"X-API-Key: {key}").ok().json() == [{"x": 1}]
    assert clients.presented(server, "http") == pod.pair.der


def test_a_refused_pod_is_loaded_once_it_is_complete(pod):
    """A key removed by a pod that refers to a missing certificate is refused once the certificate exists."""
    leaked, kept = LEDGER.mark("a leaked API key"), LEDGER.mark("an API key")
    keys = {"auth": {"api_key": {"keys": [f"{leaked}:rw", f"{kept}:rw"]}}}
    pod.yaml(tls=pod.write_pair(), runtime=keys)
    server = pod.serve()
    renewed = pod.ca.issue(common_name="renewed")
    files = {"certificate_file": "new.crt", "key_file": "new.key"}
    pod.yaml(tls=files, runtime={"auth": {"api_key": {"keys": [f"{kept}:rw"]}}})
    server.wait_for_log("ERROR", match="new.crt")
    for name, content in (("new.key", renewed.key_text), ("new.crt", renewed.certificate)):
        pod.write(name, content)
    eventually(lambda: clients.presented(server, "http") == renewed.der, "the new certificate", 60)
    assert clients.sql(server, "SELECT 1 AS x", "-H", f"X-API-Key: {leaked}").status == 401
    clients.sql(server, "SELECT 1 AS x", "-H", f"X-API-Key: {kept}").ok()


def test_an_expired_revocation_list_is_reported(pod):
    pod.write("ca.pem", pod.ca.pem)
    pod.write("clients.crl", pod.ca.crl(ends=datetime.timedelta(seconds=5)))
    asks = {"client_auth_mode": "request", "client_auth_ca_file": "ca.pem", "client_crl_files": ["clients.crl"]}
    pod.yaml(tls={**pod.write_pair(), **asks})
    server = pod.serve()
    shows = clients.as_client(pod.ca, pod.home)
    clients.get(server, "/health", *shows).ok()
    said = server.wait_for_log("ERROR", match="TLS-CRL-OUT-OF-DATE")
    assert said["fields"]["fix"]
    assert clients.get(server, "/health", *shows).exit != 0
    pod.write("clients.crl", pod.ca.crl(number=2))
    eventually(lambda: clients.get(server, "/health", *shows).status == 200, "the new list")


def test_a_certificate_is_loaded_when_it_becomes_valid(pod):
    pod.yaml(tls=pod.write_pair())
    server = pod.serve()
    early = pod.ca.issue(common_name="early", starts=datetime.timedelta(seconds=8))
    pod.write_pair(early)
    server.wait_for_log("ERROR", match="is not valid yet; it is loaded when it becomes valid")
    assert clients.presented(server, "http") == pod.pair.der
    eventually(lambda: clients.presented(server, "http") == early.der, "the certificate, in its time")
    assert datetime.datetime.now(datetime.timezone.utc) >= early.leaf.not_valid_before_utc
