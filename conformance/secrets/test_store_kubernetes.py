"""Kubernetes secrets, by a simulated API: how the API is found, the watch, tokens that change, roles that are too
narrow, and the error messages."""

from __future__ import annotations

import pytest
import yaml

from harness import clients, scripted_server, pages
from harness.cluster import Cluster, in_a_pod
from harness.leak_scanner import LEDGER
from harness.messages import plain
from harness.server import text_of
from harness.waiting import eventually

PAIR = {"certificate": "${k8s:tls.crt}", "key": "${k8s:tls.key}"}


def fields(pair) -> dict:
    return {"tls.crt": pair.certificate, "tls.key": pair.key_text}


@pytest.fixture
def cluster(pod):
    cluster = Cluster(pod.ca.issue(), pod.ca.pem)
    yield cluster
    cluster.close()


def store(secret: str = "spice-tls-cert", **more) -> dict:
    return {"name": "k8s", "from": f"kubernetes:{secret}", **more}


def env(pod, cluster, **more) -> dict[str, str]:
    return {"KUBECONFIG": cluster.kubeconfig(pod.home, **more)}


# Access to the API


def test_kubeconfig(pod, cluster):
    """The reference's secret, created as by `kubectl create secret tls spice-tls-cert`, without a mount."""
    cluster.put("spice-tls-cert", fields(pod.pair))
    pod.yaml(secrets=[store()], tls=PAIR)
    clients.assert_serves(pod.serve(env=env(pod, cluster)), pod.pair)


def test_service_account_of_a_pod(pod, cluster, tmp_path):
    wrap = in_a_pod(tmp_path / "account")
    cluster.put("spice-tls-cert", fields(pod.pair), namespace="prod")
    pod.yaml(secrets=[store()], tls=PAIR)
    server = pod.serve(env=cluster.service_account(tmp_path / "account", "prod"), wrap=wrap)
    clients.assert_serves(server, pod.pair)


def test_namespace_param_overrides_the_kubeconfig(pod, cluster):
    cluster.put("spice-tls-cert", fields(pod.pair), namespace="prod")
    pod.yaml(secrets=[store(params={"namespace": "prod"})], tls=PAIR)
    clients.assert_serves(pod.serve(env=env(pod, cluster, namespace="dev")), pod.pair)


def test_the_role_of_the_page_is_the_one_that_is_used(pod, cluster):
    """The verbs of docs/secrets/kubernetes.md, and no other."""
    documents = [d for block in pages.blocks("secrets/kubernetes.md", "yaml") for d in yaml.safe_load_all(block)]
    role = next(document for document in documents if document.get("kind") == "Role")
    assert role["rules"][0]["resources"] == ["secrets"] and role["rules"][0]["resourceNames"] == ["spice-tls-cert"]
    cluster.tokens[cluster.token] = set(role["rules"][0]["verbs"])
    cluster.put("spice-tls-cert", fields(pod.pair))
    pod.yaml(secrets=[store()], tls=PAIR)
    server = pod.serve(env=env(pod, cluster))
    cluster.wait_for_watch()
    renewed = pod.ca.issue(common_name="renewed")
    cluster.put("spice-tls-cert", fields(renewed))
    eventually(lambda: clients.presented(server) == renewed.der, "the change, by watch")
    assert not server.logged("WARN", "ERROR"), server.tail()
    # No request needs more than the Role grants: no list, and no other secret.
    asked = {path.split("?")[0].rsplit("/", 1)[1] for _, path in cluster.front.requests}
    assert asked <= {"spice-tls-cert", "secrets"}, asked
    assert all("metadata.name%3Dspice-tls-cert" in path for _, path in cluster.front.requests if "watch=1" in path)


# The watch


def test_a_change_reaches_every_endpoint_at_once(pod, cluster):
    cluster.put("spice-tls-cert", fields(pod.pair))
    pod.yaml(secrets=[store()], tls=PAIR)
    server = pod.serve(env=env(pod, cluster))
    clients.assert_serves(server, pod.pair)
    assert clients.get(server, "/v1/status").ok().json()["stores"][0]["refresh"] == "watch"
    cluster.wait_for_watch()
    renewed = pod.ca.issue(common_name="renewed")
    cluster.put("spice-tls-cert", fields(renewed))
    for endpoint in ("http", "flight", "grpc"):
        eventually(lambda endpoint=endpoint: clients.presented(server, endpoint) == renewed.der, f"the change on {endpoint}", deadline=10)


LOSSES = {"lost-connection": Cluster.drop_watches, "410-gone": Cluster.expire_watches}


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES.keys())
def test_a_lost_watch_is_opened_again_and_misses_nothing(pod, cluster, lose):
    cluster.put("spice-tls-cert", fields(pod.pair))
    pod.yaml(secrets=[store()], tls=PAIR)
    server = pod.serve(env=env(pod, cluster))
    for turn in range(1, 3):
        cluster.wait_for_watch(turn)
        before = cluster.watches
        lose(cluster)
        # This change happens while no watch is open.
        renewed = pod.ca.issue(common_name=f"renewed-{turn}")
        cluster.put("spice-tls-cert", fields(renewed))
        eventually(lambda: clients.presented(server) == renewed.der, f"the change of turn {turn}")
        cluster.wait_for_watch(before + 1)
    assert not server.logged("WARN", "ERROR"), server.tail()


def test_an_unavailable_api_is_retried(pod, cluster):
    cluster.put("spice-tls-cert", fields(pod.pair))
    pod.yaml(secrets=[store()], tls=PAIR)
    server = pod.serve(env=env(pod, cluster))
    cluster.wait_for_watch()
    behave, cluster.front.behave = cluster.front.behave, lambda asked: asked.answer(503, b"")
    cluster.drop_watches()
    asked = len(cluster.front.requests)
    eventually(lambda: len(cluster.front.requests) >= asked + 2, "it asks, and asks again")
    renewed = pod.ca.issue(common_name="renewed")
    cluster.put("spice-tls-cert", fields(renewed))
    assert clients.presented(server) == pod.pair.der
    cluster.front.behave = behave
    eventually(lambda: clients.presented(server) == renewed.der, "the change, once the API is there again")


def test_a_secret_that_is_deleted_keeps_the_last_good_values(pod, cluster):
    cluster.put("spice-tls-cert", fields(pod.pair))
    pod.yaml(secrets=[store()], tls=PAIR)
    server = pod.serve(env=env(pod, cluster))
    cluster.wait_for_watch()
    cluster.delete("spice-tls-cert")
    failed = text_of(server.wait_for_log("WARN", match="the last good values are kept"))
    assert "there is no secret `spice-tls-cert` in the namespace `default`" in failed, failed
    clients.assert_serves(server, pod.pair)
    renewed = pod.ca.issue(common_name="renewed")
    cluster.put("spice-tls-cert", fields(renewed))
    eventually(lambda: clients.presented(server) == renewed.der, "the secret that is there again")
    server.wait_for_log("INFO", match="can be read again")


def test_a_removed_key_keeps_its_last_value(pod, cluster):
    cluster.put("spice-tls-cert", fields(pod.pair))
    pod.yaml(secrets=[store()], tls=PAIR)
    server = pod.serve(env=env(pod, cluster))
    cluster.wait_for_watch()
    cluster.put("spice-tls-cert", {"tls.crt": pod.pair.certificate})
    failed = text_of(server.wait_for_log("WARN", match="the last good values are kept"))
    assert "`tls.key` no longer exists" in failed, failed
    clients.assert_serves(server, pod.pair)


def test_without_the_right_to_watch_it_is_logged_and_polled(pod, cluster):
    cluster.tokens[cluster.token] = {"get"}
    cluster.put("spice-tls-cert", fields(pod.pair))
    pod.yaml(secrets=[store(refresh_interval="1s")], tls=PAIR)
    server = pod.serve(env=env(pod, cluster))
    said = text_of(server.wait_for_log("WARN", match="may be read but not watched"))
    assert "verbs: [get, watch]" in said
    renewed = pod.ca.issue(common_name="renewed")
    cluster.put("spice-tls-cert", fields(renewed))
    eventually(lambda: clients.presented(server) == renewed.der, "the change, by interval")
    assert len(server.logged("WARN")) == 1, server.tail()


# Tokens


def test_a_token_that_the_kubelet_replaces_is_read_again(pod, cluster):
    cluster.put("spice-tls-cert", fields(pod.pair))
    pod.yaml(secrets=[store()], tls=PAIR)
    server = pod.serve(env=env(pod, cluster))
    cluster.wait_for_watch()
    cluster.rotate_token(pod.home / "token")
    cluster.drop_watches()
    renewed = pod.ca.issue(common_name="renewed")
    cluster.put("spice-tls-cert", fields(renewed))
    eventually(lambda: clients.presented(server) == renewed.der, "a change that only the new token may see")
    assert not server.logged("WARN", "ERROR"), server.tail()


# Messages


def _missing_secret(pod, cluster):
    return store("gone")


def _missing_key(pod, cluster):
    cluster.put("half", {"tls.crt": pod.pair.certificate})
    return store("half")


def _other_namespace(pod, cluster):
    cluster.put("spice-tls-cert", fields(pod.pair))
    return store(params={"namespace": "prod"})


def _no_name(pod, cluster):
    return store("Spice/../x")


def _no_secret_named(pod, cluster):
    return {"name": "k8s", "from": "kubernetes"}


def _forbidden(pod, cluster):
    cluster.tokens[cluster.token] = set()
    return store()


def _unauthorized(pod, cluster):
    cluster.tokens.clear()
    return store()


def _front(behave):
    def case(pod, cluster):
        cluster.front.behave = behave
        return store()

    return case


def _down(pod, cluster):
    cluster.front.close()
    return store()


def _unknown_ca(pod, cluster):
    from harness.certificates import Authority

    cluster.ca_pem = Authority("Another Root").pem
    return store()


def _not_base64(pod, cluster):
    cluster.put("spice-tls-cert", fields(pod.pair))
    cluster._secrets["default", "spice-tls-cert"]["data"]["tls.crt"] = LEDGER.mark("a value that is not base64") + "!"
    return store()


STORE = "error: spicepod.yaml: secrets[0]: secret store `k8s`: "
ASKED = " (needed by spicepod.yaml: runtime.tls.certificate and 1 more)"
NOT_IT = "hint: check that the address is that of the store itself, not of a proxy or a login page"

SAID = {
    "missing-secret": (
        _missing_secret,
        f"""\
{STORE}there is no secret `gone` in the namespace `default` at https://localhost:PORT{ASKED}
hint: kubectl -n default create secret generic gone --from-literal=KEY=VALUE""",
    ),
    "missing-key": (
        _missing_key,
        """\
error: spicepod.yaml: runtime.tls.key: ${k8s:tls.key}: there is no `tls.key`
hint: set it in one of: the key tls.key of the secret default/half""",
    ),
    "other-namespace": (
        _other_namespace,
        f"""\
{STORE}there is no secret `spice-tls-cert` in the namespace `prod` at https://localhost:PORT{ASKED}
hint: kubectl -n prod create secret generic spice-tls-cert --from-literal=KEY=VALUE""",
    ),
    "no-name": (
        _no_name,
        f"""\
{STORE}SECRET must be a Kubernetes name: lower-case letters, digits, `-` and `.`
hint: change `from` or `params`, or remove the store""",
    ),
    "no-secret-named": (
        _no_secret_named,
        f"""\
{STORE}write `from: kubernetes:SECRET`
hint: change `from` or `params`, or remove the store""",
    ),
    "forbidden": (
        _forbidden,
        f"""\
{STORE}https://localhost:PORT refuses: HTTP 403: secrets "spice-tls-cert" is forbidden: User "system:serviceaccount:default:spice" cannot get resource "secrets" in API group "" in the namespace "default"{ASKED}
hint: let the service account get and watch the secret: a Role with resources: [secrets], resourceNames: [spice-tls-cert], verbs: [get, watch] in the namespace default, and a RoleBinding""",
    ),
    "unauthorized": (
        _unauthorized,
        f"""\
{STORE}https://localhost:PORT refuses: HTTP 401: Unauthorized{ASKED}
hint: check that the token (or certificate) belongs to this cluster and has not expired""",
    ),
    "down": (
        _down,
        f"""\
{STORE}cannot reach https://localhost:PORT: Connection refused (os error N){ASKED}
hint: check that this machine reaches the API server""",
    ),
    "unknown-ca": (
        _unknown_ca,
        f"""\
{STORE}cannot reach https://localhost:PORT: invalid peer certificate: UnknownIssuer{ASKED}
hint: check that the kubeconfig (or the service account's ca.crt) has the CA of this server""",
    ),
    "slow": (
        _front(scripted_server.slow),
        f"""\
{STORE}no answer within 4s from https://localhost:PORT{ASKED}
hint: check that the server is healthy and that nothing on the network path drops packets""",
    ),
    "endless": (
        _front(scripted_server.endless),
        f"{STORE}the answer of https://localhost:PORT cannot be used: it is larger than 4194304 bytes{ASKED}\n{NOT_IT}",
    ),
    "nonsense": (
        _front(scripted_server.nonsense),
        f"{STORE}the answer of https://localhost:PORT cannot be used: it is not a Kubernetes secret{ASKED}\n{NOT_IT}",
    ),
    "not-base64": (
        _not_base64,
        f"{STORE}the answer of https://localhost:PORT cannot be used: the value of `tls.crt` is not base64{ASKED}\n{NOT_IT}",
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_messages(pod, cluster, case):
    declare, said = SAID[case]
    pod.yaml(secrets=[declare(pod, cluster)], tls=PAIR)
    refused = pod.refuse(env=env(pod, cluster))
    assert plain(refused.report, pod.folder) == said


def test_message_without_any_configuration(pod):
    pod.yaml(secrets=[store()], tls=PAIR)
    assert plain(pod.refuse().report) == (
        f"{STORE}there is neither a pod's service account nor a kubeconfig{ASKED}\n"
        "hint: run it in a pod with a service account, or name a kubeconfig with KUBECONFIG"
    )


def test_a_kubeconfig_that_is_broken_is_not_repeated(pod):
    token = LEDGER.mark("a token in a broken kubeconfig")
    path = pod.write("broken", f"users: [{{name: u, user: {{token: {token}: [}}}}]\n")
    pod.yaml(secrets=[store()], tls=PAIR)
    pod.refuse(env={"KUBECONFIG": str(path)}).names("the kubeconfig is not YAML, or has the wrong form")
    gone = pod.refuse(env={"KUBECONFIG": str(pod.folder / "gone")})
    gone.names(f"KUBECONFIG: cannot read {pod.folder}/gone: No such file")
