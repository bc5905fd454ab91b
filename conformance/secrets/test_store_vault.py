"""HashiCorp Vault, by a real OpenBao over TLS: engines, login methods, tokens that expire, and the report when it does
not answer."""

from __future__ import annotations

import json
import uuid

import pytest

from harness import clients, scripted_server, pages
from harness.cluster import Cluster, in_a_pod
from harness.leak_scanner import LEDGER
from harness.messages import plain
from harness.server import text_of
from harness.waiting import eventually

PAIR = {"certificate": "${vault:cert}", "key": "${vault:key}"}


def fields(pair) -> dict:
    return {"cert": pair.certificate, "key": pair.key_text}


@pytest.fixture
def mount():
    """The name of an engine that only this test uses."""
    return f"kv-{uuid.uuid4().hex[:8]}"


def store(bao, path: str, params: dict | None = None, **more) -> dict:
    """The declaration of a store; `params` have no prefix, and None omits one."""
    given = {"address": bao.url, "ca_file": bao.ca_file, **(params or {})}
    params = {f"hashicorp_vault_{key}": value for key, value in given.items() if value is not None}
    return {"name": "vault", "from": f"hashicorp_vault:{path}", "params": params, **more}


def reader(bao, path: str, **more) -> str:
    """A token with read access to this path of the API."""
    name = f"read-{uuid.uuid4().hex[:8]}"
    bao.policy(name, f'path "{path}" {{ capabilities = ["read"] }}', more.get("namespace", ""))
    return bao.token(name, **more)


# Values


def test_version_2_with_the_policy_of_the_page(pod, bao):
    """The path of docs/secrets/vault.md, and no other right."""
    bao.policy("spice", pages.blocks("secrets/vault.md", "hcl")[0])
    bao.put("secret", "spice", fields(pod.pair))
    pod.yaml(secrets=[store(bao, "secret/spice", {"token": "${env:TOKEN}"})], tls=PAIR)
    server = pod.serve(env={"TOKEN": bao.token("spice", no_default_policy=True)})
    clients.assert_serves(server, pod.pair)


def test_version_1(pod, bao, mount):
    bao.mount(mount, 1)
    bao.put(mount, "apps/spice", fields(pod.pair), 1)
    token = reader(bao, f"{mount}/apps/spice")
    pod.yaml(secrets=[store(bao, f"{mount}/apps/spice", {"token": "${env:TOKEN}"})], tls=PAIR)
    clients.assert_serves(pod.serve(env={"TOKEN": token}), pod.pair)


def test_fields_of_any_kind(pod, bao, mount):
    bao.mount(mount)
    bao.put(mount, "s", {**fields(pod.pair), "timeout": 90, "on": True})
    pod.yaml(
        secrets=[store(bao, f"{mount}/s", {"token": "${env:TOKEN}"})],
        tls={"enabled": "${vault:on}", **PAIR},
        runtime={"sql": {"timeout": "${vault:timeout}s"}},
    )
    clients.assert_serves(pod.serve(env={"TOKEN": reader(bao, f"{mount}/data/s")}), pod.pair)


def test_address_token_and_ca_by_vaults_own_variables(pod, bao, mount):
    bao.mount(mount)
    bao.put(mount, "s", fields(pod.pair))
    none = {"address": None, "ca_file": None}
    pod.yaml(secrets=[store(bao, f"{mount}/s", none)], tls=PAIR)
    token = reader(bao, f"{mount}/data/s")
    server = pod.serve(env={"VAULT_ADDR": bao.url, "VAULT_TOKEN": token, "BAO_CACERT": bao.ca_file})
    clients.assert_serves(server, pod.pair)


def test_namespace(pod, bao, mount):
    bao.ask("POST", f"sys/namespaces/ns-{mount}", {})
    namespace = f"ns-{mount}"
    bao.mount(mount, namespace=namespace)
    bao.put(mount, "s", fields(pod.pair), namespace=namespace)
    token = reader(bao, f"{mount}/data/s", namespace=namespace)
    pod.yaml(secrets=[store(bao, f"{mount}/s", {"token": "${env:TOKEN}", "namespace": namespace})], tls=PAIR)
    clients.assert_serves(pod.serve(env={"TOKEN": token}), pod.pair)


def app_role(bao, mount: str, **settings) -> dict[str, str]:
    """A role with read access to the engine's secret `s`; returns its role id and secret id."""
    bao.policy(mount, f'path "{mount}/data/s" {{ capabilities = ["read"] }}')
    if "approle/" not in bao.ask("GET", "sys/auth"):
        bao.ask("POST", "sys/auth/approle", {"type": "approle"})
    bao.ask("POST", f"auth/approle/role/{mount}", {"token_policies": [mount], **settings})
    role = bao.ask("GET", f"auth/approle/role/{mount}/role-id")["data"]["role_id"]
    secret = LEDGER.mark("a secret_id of Vault")
    bao.ask("POST", f"auth/approle/role/{mount}/custom-secret-id", {"secret_id": secret})
    return {"role_id": role, "secret_id": secret}


def test_app_role_and_its_token_ends(pod, bao, mount):
    """The token lasts two seconds and cannot be renewed: reads continue with a new one."""
    bao.mount(mount)
    bao.put(mount, "s", fields(pod.pair))
    halves = app_role(bao, mount, token_ttl="2s", token_max_ttl="2s")
    pod.yaml(
        secrets=[
            store(
                bao,
                f"{mount}/s",
                {"role_id": halves["role_id"], "secret_id": "${env:SECRET_ID}"},
                refresh_interval="1s",
            )
        ],
        tls=PAIR,
    )
    server = pod.serve("--metrics", "localhost:0", env={"SECRET_ID": halves["secret_id"]})
    clients.assert_serves(server, pod.pair)

    def readings() -> int:
        metrics = clients.get(server, "/metrics", endpoint="metrics").ok().text
        counted = [line for line in metrics.splitlines() if 'store="vault",result="unchanged"' in line]
        return int(counted[0].rsplit(" ", 1)[1]) if counted else 0

    eventually(lambda: readings() >= 4, "four readings, over more than the life of a token")
    renewed = pod.ca.issue(common_name="renewed")
    bao.put(mount, "s", fields(renewed))
    for endpoint in ("http", "flight", "grpc"):
        eventually(lambda endpoint=endpoint: clients.presented(server, endpoint) == renewed.der, f"the new certificate on {endpoint}")
    assert not server.logged("WARN", "ERROR"), server.tail()


def test_kubernetes_login(pod, bao, mount, tmp_path):
    """OpenBao asks the cluster's API to identify the token's owner."""
    cluster = Cluster(pod.ca.issue(), pod.ca.pem)
    try:
        wrap = in_a_pod(tmp_path / "account")
        cluster.service_account(tmp_path / "account")
        bao.mount(mount)
        bao.put(mount, "s", fields(pod.pair))
        bao.policy(mount, f'path "{mount}/data/s" {{ capabilities = ["read"] }}')
        if "kubernetes/" not in bao.ask("GET", "sys/auth"):
            bao.ask("POST", "sys/auth/kubernetes", {"type": "kubernetes"})
        bao.ask(
            "POST",
            "auth/kubernetes/config",
            {"kubernetes_host": cluster.url, "kubernetes_ca_cert": pod.ca.pem, "token_reviewer_jwt": cluster.token},
        )
        bound = {"bound_service_account_names": ["spice"], "bound_service_account_namespaces": ["default"]}
        bao.ask("POST", f"auth/kubernetes/role/{mount}", {**bound, "token_policies": [mount]})
        pod.yaml(secrets=[store(bao, f"{mount}/s", {"kubernetes_role": mount})], tls=PAIR)
        clients.assert_serves(pod.serve(wrap=wrap), pod.pair)
    finally:
        cluster.close()


# Changes and tokens


def test_a_change_reaches_every_endpoint_by_interval(pod, bao, mount):
    bao.mount(mount)
    bao.put(mount, "s", fields(pod.pair))
    token = reader(bao, f"{mount}/data/s")
    pod.yaml(secrets=[store(bao, f"{mount}/s", {"token": "${env:TOKEN}"}, refresh_interval="1s")], tls=PAIR)
    server = pod.serve(env={"TOKEN": token})
    clients.assert_serves(server, pod.pair)
    renewed = pod.ca.issue(common_name="renewed")
    bao.put(mount, "s", fields(renewed))
    for endpoint in ("http", "flight", "grpc"):
        eventually(lambda endpoint=endpoint: clients.presented(server, endpoint) == renewed.der, f"the new certificate on {endpoint}")


def test_a_given_token_is_renewed(pod, bao, mount):
    """The token stays valid while it is renewed; nothing else reads the store meanwhile (the interval is an hour)."""
    bao.mount(mount)
    bao.put(mount, "s", fields(pod.pair))
    token = reader(bao, f"{mount}/data/s", period="3s", ttl="3s")
    pod.yaml(secrets=[store(bao, f"{mount}/s", {"token": "${env:TOKEN}"}, refresh_interval="1h")], tls=PAIR)
    server = pod.serve(env={"TOKEN": token})

    def renewals() -> int:
        found = bao.ask("POST", "auth/token/lookup", {"token": token})["data"]
        return found["last_renewal_time"] - found["creation_time"] if "last_renewal_time" in found else 0

    eventually(lambda: renewals() >= 4, "a renewal after the token's first life")
    clients.assert_serves(server, pod.pair)


def test_an_expired_token_keeps_the_values_and_is_logged_once(pod, bao, mount):
    bao.mount(mount)
    bao.put(mount, "s", fields(pod.pair))
    token = reader(bao, f"{mount}/data/s", ttl="2s", explicit_max_ttl="2s")
    pod.yaml(secrets=[store(bao, f"{mount}/s", {"token": "${env:TOKEN}"}, refresh_interval="1s")], tls=PAIR)
    server = pod.serve(env={"TOKEN": token})
    failed = text_of(server.wait_for_log("WARN", match="the last good values are kept"))
    eventually(
        lambda: clients.get(server, "/v1/status").ok().json()["stores"][0]["state"] == "failing", "it is in the status"
    )
    assert "HTTP 403" in failed or "cannot be renewed" in failed, failed
    clients.assert_serves(server, pod.pair)
    server.stays_up(2)
    assert len(server.logged(match="a secret store cannot be read")) == 1, server.tail()


def test_a_token_that_another_store_holds_is_followed(pod, bao, mount):
    """The parameters of a store change with the store that they refer to."""
    bao.mount(mount)
    bao.put(mount, "s", fields(pod.pair))
    first, second = reader(bao, f"{mount}/data/s"), reader(bao, f"{mount}/data/s")
    pod.write("mounted/TOKEN", first)
    pod.yaml(
        secrets=[
            {"name": "mounted", "from": "file:mounted", "refresh_interval": "1s"},
            store(bao, f"{mount}/s", {"token": "${mounted:TOKEN}"}, refresh_interval="1s"),
        ],
        tls=PAIR,
    )
    server = pod.serve()
    pod.write("mounted/TOKEN", second)
    server.wait_for_log("INFO", match="it is reopened")
    bao.ask("POST", "auth/token/revoke", {"token": first})
    renewed = pod.ca.issue(common_name="renewed")
    bao.put(mount, "s", fields(renewed))
    eventually(lambda: clients.presented(server) == renewed.der, "a change that the second token sees")
    assert not server.logged("WARN", "ERROR"), server.tail()


# Messages


def _missing_secret(pod, bao, fronts):
    return store(bao, "secret/gone", {"token": "${env:ROOT}"})


def _missing_field(pod, bao, fronts):
    bao.put("secret", "half", {"cert": pod.pair.certificate})
    return store(bao, "secret/half", {"token": "${env:ROOT}"})


def _data_in_the_path(pod, bao, fronts):
    return store(bao, "secret/data/gone", {"token": "${env:ROOT}"})


def _no_mount_in_the_path(pod, bao, fronts):
    return store(bao, "spice", {"token": "${env:ROOT}"})


def _wrong_token(pod, bao, fronts):
    return store(bao, "secret/spice", {"token": LEDGER.mark("a wrong token")})


def _no_right(pod, bao, fronts):
    return store(bao, "secret/spice", {"token": reader(bao, "secret/data/other")})


def _missing_token_variable(pod, bao, fronts):
    return store(bao, "secret/spice", {"token": "${env:NO_SUCH_TOKEN}"})


def _no_login(pod, bao, fronts):
    return store(bao, "secret/spice")


def _two_logins(pod, bao, fronts):
    return store(bao, "secret/spice", {"token": "${env:ROOT}", "kubernetes_role": "spice"})


def _wrong_app_role(pod, bao, fronts):
    app_role(bao, f"kv-{uuid.uuid4().hex[:8]}")
    return store(bao, "secret/spice", {"role_id": "nobody", "secret_id": LEDGER.mark("a wrong secret_id")})


def _no_service_account(pod, bao, fronts):
    return store(bao, "secret/spice", {"kubernetes_role": "spice"})


def _no_address(pod, bao, fronts):
    return store(bao, "secret/spice", {"token": "${env:ROOT}", "address": None})


def _password_in_address(pod, bao, fronts):
    return store(bao, "secret/spice", {"token": "${env:ROOT}", "address": f"https://u:{LEDGER.mark('a password')}@x:1"})


def _unknown_ca(pod, bao, fronts):
    return store(bao, "secret/spice", {"token": "${env:ROOT}", "ca_file": pod.ca_file})


def _no_ca_file(pod, bao, fronts):
    return store(bao, "secret/spice", {"token": "${env:ROOT}", "ca_file": "nowhere.pem"})


def _unreachable(pod, bao, fronts):
    address = f"https://localhost:{scripted_server.refused_port()}"
    return store(bao, "secret/spice", {"token": "${env:ROOT}", "address": address})


def _front(behave):
    def case(pod, bao, fronts):
        made = fronts(behave, pod.ca.issue())
        return store(bao, "secret/spice", {"token": "${env:ROOT}", "address": made.url, "ca_file": pod.ca_file})

    return case


def sealed(asked) -> None:
    asked.answer(503, b'{"errors": ["Vault is sealed"]}')


def out_of_tls(asked) -> None:
    asked.answer(307, b"", Location="http://localhost:1/v1/x")


def echo(asked) -> None:
    """Returns the request's token in an error."""
    asked.answer(403, json.dumps({"errors": [f"no such token: {asked.headers.get('X-Vault-Token')}"]}).encode())


STORE = "error: spicepod.yaml: secrets[0]: secret store `vault`: "
ASKED = " (needed by spicepod.yaml: runtime.tls.certificate and 1 more)"
CHANGE = "hint: change `from` or `params`, or remove the store"
RIGHTS = (
    "hint: check that the token is valid, that `secret/spice` names an engine and a secret of the server, and that the "
    "token's policy may read it"
)

SAID = {
    "missing-secret": (
        _missing_secret,
        f"""\
{STORE}there is no secret `secret/gone` at https://127.0.0.1:PORT{ASKED}
hint: put it there: bao kv put secret/gone KEY=VALUE""",
    ),
    "missing-field": (
        _missing_field,
        """\
error: spicepod.yaml: runtime.tls.key: ${vault:key}: there is no `key`
hint: set it in one of: the field key of the secret secret/half at https://127.0.0.1:PORT""",
    ),
    "data-in-the-path": (
        _data_in_the_path,
        f"""\
{STORE}there is no secret `secret/data/gone` at https://127.0.0.1:PORT{ASKED}
hint: PATH is written without `data`: hashicorp_vault:secret/gone""",
    ),
    "no-mount-in-the-path": (
        _no_mount_in_the_path,
        f"{STORE}PATH must be mount and secret, such as `secret/spice`\n{CHANGE}",
    ),
    "wrong-token": (
        _wrong_token,
        f"{STORE}https://127.0.0.1:PORT refuses: HTTP 403: permission denied{ASKED}\n{RIGHTS}",
    ),
    "no-right": (
        _no_right,
        f"""\
{STORE}https://127.0.0.1:PORT refuses: HTTP 403: 1 error occurred: * permission denied{ASKED}
hint: check that the token is valid, and that its policy has: path "secret/data/spice" {{ capabilities = ["read"] }}""",
    ),
    "missing-token-variable": (
        _missing_token_variable,
        """\
error: spicepod.yaml: secrets[0].params.hashicorp_vault_token: ${env:NO_SUCH_TOKEN}: there is no `NO_SUCH_TOKEN`
hint: set it in one of: the variables NO_SUCH_TOKEN, SPICE_NO_SUCH_TOKEN of the process, and of POD/.env.local and POD/.env""",
    ),
    "no-login": (
        _no_login,
        f"""\
{STORE}no credentials for the server are set
hint: set hashicorp_vault_token (or VAULT_TOKEN), or hashicorp_vault_role_id and hashicorp_vault_secret_id, or hashicorp_vault_kubernetes_role""",
    ),
    "two-logins": (
        _two_logins,
        f"{STORE}there is more than one of hashicorp_vault_token, hashicorp_vault_role_id and "
        f"hashicorp_vault_kubernetes_role\n{CHANGE}",
    ),
    "wrong-app-role": (
        _wrong_app_role,
        f"""\
{STORE}https://127.0.0.1:PORT refuses: HTTP 400: invalid role or secret ID{ASKED}
hint: check that hashicorp_vault_role_id and hashicorp_vault_secret_id are right, and that neither is used up""",
    ),
    "no-service-account": (
        _no_service_account,
        f"""\
{STORE}there is no service account token at /var/run/secrets/kubernetes.io/serviceaccount/token{ASKED}
hint: hashicorp_vault_kubernetes_role is for pods of Kubernetes; elsewhere log in with a token or an AppRole""",
    ),
    "no-address": (
        _no_address,
        f"""\
{STORE}the server's address is not set
hint: set the param hashicorp_vault_address, or VAULT_ADDR, to https://HOST:8200""",
    ),
    "password-in-address": (
        _password_in_address,
        f"{STORE}hashicorp_vault_address holds more than a scheme, a host and a port\n{CHANGE}",
    ),
    "unknown-ca": (
        _unknown_ca,
        f"""\
{STORE}cannot reach https://127.0.0.1:PORT: invalid peer certificate: UnknownIssuer{ASKED}
hint: name the CA that signed the server's certificate with the param hashicorp_vault_ca_file""",
    ),
    "no-ca-file": (
        _no_ca_file,
        f"""\
{STORE}cannot read "POD/nowhere.pem": there is no such file
hint: check the path""",
    ),
    "unreachable": (
        _unreachable,
        f"""\
{STORE}cannot reach https://localhost:PORT: Connection refused (os error N){ASKED}
hint: check that the server runs and that hashicorp_vault_address is its address""",
    ),
    "slow": (
        _front(scripted_server.slow),
        f"""\
{STORE}no answer within 4s from https://localhost:PORT{ASKED}
hint: check that the server is healthy and that nothing on the network path drops packets""",
    ),
    "endless": (
        _front(scripted_server.endless),
        f"""\
{STORE}the answer of https://localhost:PORT cannot be used: it is larger than 4194304 bytes{ASKED}
hint: check that the address is that of the store itself, not of a proxy or a login page""",
    ),
    "nonsense": (
        _front(scripted_server.nonsense),
        f"""\
{STORE}the answer of https://localhost:PORT cannot be used: it is not a response of Vault{ASKED}
hint: check that the address is that of the store itself, not of a proxy or a login page""",
    ),
    "sealed": (
        _front(sealed),
        f"""\
{STORE}https://localhost:PORT refuses: HTTP 503: Vault is sealed{ASKED}
hint: see the server's log""",
    ),
    "out-of-tls": (
        _front(out_of_tls),
        f"""\
{STORE}cannot reach https://localhost:PORT: the server redirects from https to http{ASKED}
hint: check that the server runs and that hashicorp_vault_address is its address""",
    ),
    "repeats-the-token": (
        _front(echo),
        f"{STORE}https://localhost:PORT refuses: HTTP 403: (its message is omitted: it repeats the credentials of "
        f"the request){ASKED}\n{RIGHTS}",
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_messages(pod, bao, fronts, case):
    declare, said = SAID[case]
    pod.yaml(secrets=[declare(pod, bao, fronts)], tls=PAIR)
    refused = pod.refuse(env={"ROOT": bao.root_token})
    assert plain(refused.report, pod.folder) == said
