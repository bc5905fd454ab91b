"""deploy/kubernetes and deploy/helm: rendered by kubectl and helm, validated by the schemas, and run as a kubelet
would."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time

import jsonschema
import pytest
import yaml
from pyarrow import flight

from harness import clients, kubernetes, pages
from harness.certificates import LOCAL
from harness.cluster import Cluster
from harness.kubernetes import BASE, CHART, Container, complaints, kustomized, only, templated
from harness.leak_scanner import LEDGER
from harness.pod import ENDPOINTS
from harness.server import binary
from harness.waiting import DEADLINE, eventually

COMPONENTS = sorted(folder.name for folder in (BASE / "components").iterdir())
VALUES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").iterdir())
RENDERED = {
    "kustomize": lambda folder: kustomized(folder),
    **{f"kustomize with {name}": lambda folder, name=name: kustomized(folder / "k", name) for name in COMPONENTS},
    "kustomize with all": lambda folder: kustomized(folder / "k", *COMPONENTS),
    "helm": lambda _: templated(),
    **{f"helm with {name}": lambda _, name=name: with_values(name) for name in VALUES},
}


def with_values(name: str) -> list[dict]:
    return templated("--values", CHART / f"ci/{name}-values.yaml", release="prod", namespace="data")


@pytest.fixture(params=RENDERED)
def manifests(request, tmp_path):
    return RENDERED[request.param](tmp_path)


def pod_file(manifests) -> dict:
    return yaml.safe_load(only(manifests, "ConfigMap")["data"]["spicepod.yaml"])


def pair_of(pair) -> dict[str, str]:
    return {"tls.crt": pair.certificate, "tls.key": pair.key_text}


@pytest.fixture
def leaf(pod):
    """A certificate with the Service's names."""
    return pod.ca.issue((*LOCAL, "spiced", "spiced.default.svc"))


@pytest.fixture
def secrets(pod, leaf):
    """The secrets that deploy/kubernetes requires."""
    names = ("SPICE_API_KEY_READONLY", "SPICE_API_KEY_READWRITE", "SESSION_TICKET_SECRET")
    return {
        "spiced-tls": pair_of(leaf),
        "spiced": {name: LEDGER.mark(name) for name in names},
        "spiced-client-ca": {"ca.crt": pod.ca.pem},
    }


def key(secrets, name: str = "READWRITE") -> tuple[str, ...]:
    return ("-H", "X-API-Key: " + secrets["spiced"][f"SPICE_API_KEY_{name}"])


# The manifests


def test_the_manifests_match_their_schemas(manifests):
    assert complaints(manifests) == []


def test_the_schemas_are_not_blind(tmp_path):
    manifests = kustomized(tmp_path / "k", *COMPONENTS)
    container = only(manifests, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    container["readynessProbe"] = container.pop("readinessProbe")
    only(manifests, "Certificate", "spiced")["spec"]["privateKey"]["rotationPolicy"] = "Sometimes"
    only(manifests, "ServiceMonitor")["spec"]["endpoints"][0]["honourLabels"] = True
    del only(manifests, "Role")["rules"][0]["verbs"]
    said = "\n".join(complaints(manifests))
    for what in ("readynessProbe", "rotationPolicy", "honourLabels", "verbs"):
        assert what in said, said


def test_it_keeps_to_the_restricted_profile(manifests):
    """Kubernetes' Pod Security Standards, `restricted`; and a read-only root file system."""
    spec = only(manifests, "Deployment")["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == int(kubernetes.image()["user"])
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    for volume in spec["volumes"]:
        assert set(volume) - {"name"} <= {"configMap", "secret", "emptyDir", "projected"}, volume
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]


def test_the_manifests_match_each_other(manifests):
    deployment = only(manifests, "Deployment")["spec"]
    spec, labels = deployment["template"]["spec"], deployment["template"]["metadata"]["labels"]
    (container,) = spec["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    listen = dict(pod_file(manifests)["runtime"]["listen"])
    for said in container["env"]:
        if said["name"].startswith("SPICED_RUNTIME__LISTEN__"):
            listen[said["name"].removeprefix("SPICED_RUNTIME__LISTEN__").lower()] = said["value"]
    assert all(address.startswith(("0.0.0.0:", "[::]:")) for address in listen.values())
    assert {endpoint: int(address.rsplit(":", 1)[1]) for endpoint, address in listen.items()} == ports

    selectors = [deployment["selector"]["matchLabels"]]
    selectors += [o["spec"]["selector"]["matchLabels"] for o in manifests if o["kind"] == "PodDisruptionBudget"]
    selectors += [o["spec"]["selector"] for o in manifests if o["kind"] == "Service"]
    for selector in selectors:
        assert selector and selector.items() <= labels.items()
    (main,) = [o for o in manifests if o["kind"] == "Service" and not o["metadata"]["name"].endswith("-metrics")]
    assert {port["name"] for port in main["spec"]["ports"]} == set(ENDPOINTS), "the probe endpoint is for the kubelet"
    for service in (o for o in manifests if o["kind"] == "Service"):
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(ports)

    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["volumes"]}
    assert not any("subPath" in mount or "subPathExpr" in mount for mount in container["volumeMounts"])
    for monitor in (o["spec"] for o in manifests if o["kind"] == "ServiceMonitor"):
        service = only([o for o in manifests if o["metadata"]["name"].endswith("-metrics")], "Service")
        assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert service["metadata"]["labels"][monitor["jobLabel"]] == "spiced", "the job that the rules select"
        assert {endpoint["port"] for endpoint in monitor["endpoints"]} == {port["name"] for port in service["spec"]["ports"]}
        for certificate in (o["spec"] for o in manifests if o["kind"] == "Certificate" and not o["spec"].get("isCA")):
            assert monitor["endpoints"][0]["tlsConfig"]["serverName"] in certificate["dnsNames"]


def test_the_grace_period_is_long_enough(manifests):
    runtime = pod_file(manifests)["runtime"]
    delay, timeout = (int(runtime[f"shutdown_{name}"].removesuffix("s")) for name in ("delay", "timeout"))
    spec = only(manifests, "Deployment")["spec"]["template"]["spec"]
    assert delay + timeout < spec["terminationGracePeriodSeconds"] <= delay + timeout + 10


def test_the_pod_file_fits_its_schema(manifests):
    schema = json.loads(subprocess.run([binary(), "schema"], capture_output=True, timeout=DEADLINE, check=True).stdout)
    jsonschema.Draft202012Validator(schema).validate(pod_file(manifests))


def test_the_components_pod_file_matches_the_base(tmp_path):
    """components/secret-store replaces the pod file: except for the source of the certificate, both are the same."""
    base, other = pod_file(kustomized(tmp_path)), pod_file(kustomized(tmp_path / "k", "secret-store"))
    assert other["secrets"].pop() == {"name": "k8s", "from": "kubernetes:spiced-tls"}
    for one, names in ((base, ("certificate_file", "key_file")), (other, ("certificate", "key"))):
        for name in names:
            del one["runtime"]["tls"][name]
    assert base == other


def test_the_example_has_what_is_needed_and_does_not_start(pod, tmp_path):
    """With its empty values, nothing is served under a publicly known secret."""
    example = kubernetes.objects((BASE / "secrets.example.yaml").read_text())
    assert complaints(example) == []
    secrets = {o["metadata"]["name"]: o["stringData"] for o in example}
    assert not any(value for data in secrets.values() for value in data.values())
    container = Container(pod, kustomized(tmp_path), secrets)  # checks that each name and key that it refers to exists
    server = container.serve(wait=False)
    assert server.wait_for_exit() == 78, server.stderr


def shown(language: str, first: str) -> str:
    """Returns the block of docs/deploy.md that begins with this text."""
    (block,) = [block for block in pages.blocks("deploy.md", language) if block.startswith(first)]
    return block


def test_the_kustomization_of_the_page(tmp_path):
    """Pod file and image are the user's, and the name of the config map changes with the pod file; the issuer is
    another one.
    """
    own = yaml.safe_load(shown("yaml", "# kustomization.yaml"))
    own |= yaml.safe_load(shown("yaml", "# in the kustomization"))
    components = [path.removeprefix("spiced/deploy/kubernetes/components/") for path in own.pop("components")]
    assert own.pop("resources") == ["spiced/deploy/kubernetes"]
    (tmp_path / "k").mkdir()
    (tmp_path / "k/spicepod.yaml").write_text("name: mine\n")
    made = kustomized(tmp_path / "k", *components, **own)
    assert complaints(made) == []
    assert only(made, "ConfigMap")["data"] == {"spicepod.yaml": "name: mine\n"}
    spec = only(made, "Deployment")["spec"]["template"]["spec"]
    name = only(made, "ConfigMap")["metadata"]["name"]
    assert next(v for v in spec["volumes"] if v["name"] == "pod")["configMap"]["name"] == name
    assert name != only(kustomized(tmp_path), "ConfigMap")["metadata"]["name"]
    assert spec["containers"][0]["image"] == "ghcr.io/you/spiced:0.1.0"
    assert {o["metadata"].get("namespace") for o in made} == {"data"}
    certificate = only(made, "Certificate", "spiced")["spec"]
    assert certificate["issuerRef"]["kind"] == "ClusterIssuer" and certificate["dnsNames"] == ["db.example.com"]


def test_the_secrets_of_the_page_are_those_that_are_needed(pod, leaf, tmp_path):
    """`kubectl create` as the page shows it, and a container that runs with the result."""
    (lines,) = [block for block in pages.blocks("deploy.md", "") if "kubectl create secret generic" in block]
    (tmp_path / "fullchain.pem").write_text(leaf.certificate)
    (tmp_path / "privkey.pem").write_text(leaf.key_text)
    # Without a cluster: printed instead of sent.
    script = lines.replace("kubectl create", f"{kubernetes.tool('kubectl')} create --dry-run=client -o yaml")
    made = "---\n".join(
        subprocess.run(["sh", "-ec", part], cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE, check=True).stdout
        for part in script.replace("\\\n", " ").strip().splitlines()
    )
    secrets = kubernetes.objects(made)
    assert complaints(secrets) == []
    assert {o["metadata"]["name"]: o.get("type") for o in secrets} == {"spiced-tls": "kubernetes.io/tls", "spiced": None}
    server = Container(pod, [*kustomized(tmp_path), *secrets], {}).serve()
    given = base64.b64decode(only(secrets, "Secret", "spiced")["data"]["SPICE_API_KEY_READWRITE"]).decode()
    clients.assert_serves(server, leaf, "-H", f"X-API-Key: {given}")


def test_the_values_of_the_page(tmp_path):
    (tmp_path / "mine.yaml").write_text(shown("yaml", "# mine.yaml"))
    made = templated("--values", tmp_path / "mine.yaml")
    assert complaints(made) == []
    assert pod_file(made)["datasets"][0]["name"] == "events"
    assert pod_file(made)["runtime"]["auth"]["api_key"]["keys"][1] == "${keys:SPICE_API_KEY_READWRITE}:rw"


# Running containers


def test_the_container_serves(pod, secrets, leaf, tmp_path):
    container = Container(pod, kustomized(tmp_path), secrets)
    server = container.serve()
    clients.assert_serves(server, leaf, *key(secrets))
    assert clients.sql(server, "SELECT 1 AS x", *key(secrets, "READONLY")).ok().json() == [{"x": 1}]
    for kind in ("startup", "liveness", "readiness"):
        assert container.probe(server, kind) == 200, kind
    assert container.grpc_probe(server) == "SERVING"
    # A name of the Service, as used by another pod.
    port = server.port("http")
    by_name = f"spiced.default.svc:{port}:127.0.0.1"
    clients.curl(f"https://spiced.default.svc:{port}/health", "--resolve", by_name, ca=server.ca).ok()
    assert not server.logged("WARN", "ERROR"), server.stderr
    assert clients.sql(server, "SELECT 1 AS x").status == 401


def test_the_doctor_reports_nothing(pod, secrets, tmp_path):
    """Above all about the mounted key's mode: 0440, owned by root and the pod's group."""
    container = Container(pod, kustomized(tmp_path), secrets)
    found = json.loads(container.run("tls", "check", "--strict", "--json", "--name", "spiced.default.svc", "/pod"))["findings"]
    about = {finding["code"]: finding["severity"] for finding in found}
    # A private CA that signs leaves directly may be a missing intermediate; and the files are not root's unless the
    # tests run as root.
    allowed = {"TLS-INTERMEDIATE-MISSING"} | ({"TLS-KEY-PERMISSIONS"} if os.getuid() else set())
    assert set(about) <= allowed and set(about.values()) <= {"info"}, found
    settings = json.loads(container.run("config", "explain", "--json", "/pod"))["settings"]
    values = {setting["key"]: setting["value"] for setting in settings}
    assert values["runtime.tls.enabled"] == "true" and values["runtime.shutdown_delay"] == "5s"


def test_secrets_that_change_need_no_restart(pod, secrets, tmp_path):
    container = Container(pod, kustomized(tmp_path), secrets)
    server = container.serve()
    renewed, new = pod.ca.issue((*LOCAL, "spiced", "spiced.default.svc"), common_name="renewed"), LEDGER.mark("a new API key")
    container.update("spiced-tls", pair_of(renewed))
    for endpoint in ENDPOINTS:
        eventually(lambda endpoint=endpoint: clients.presented(server, endpoint) == renewed.der, f"the renewed one on the {endpoint} endpoint")
    old = key(secrets)
    container.update("spiced", {**secrets["spiced"], "SPICE_API_KEY_READWRITE": new})
    eventually(lambda: clients.sql(server, "SELECT 1 AS x", "-H", f"X-API-Key: {new}").status == 200, "the new key")
    assert clients.sql(server, "SELECT 1 AS x", *old).status == 401
    assert not server.logged("ERROR"), server.stderr


def test_replicas_accept_each_others_tickets(pod, secrets, tmp_path):
    manifests = kustomized(tmp_path)
    assert only(manifests, "Deployment")["spec"]["replicas"] > 1
    one, other = (Container(pod, manifests, secrets).serve() for _ in range(2))
    options = clients.call(headers=[(b"x-api-key", secrets["spiced"]["SPICE_API_KEY_READONLY"].encode())])
    with clients.flight_client(one) as first, clients.flight_client(other) as second:
        info = first.get_flight_info(flight.FlightDescriptor.for_command(b"SELECT 42 AS x"), options)
        assert second.do_get(info.endpoints[0].ticket, options).read_all().to_pylist() == [{"x": 42}]


def test_a_stop_as_the_kubelet_does_it(pod, secrets, tmp_path):
    """SIGTERM: readiness fails, liveness continues, new connections are still accepted, and the process ends in time.
    """
    container = Container(pod, kustomized(tmp_path), secrets)
    server = container.serve(delay=True)
    started = time.monotonic()
    server.signal(kubernetes.signal.SIGTERM)
    eventually(lambda: container.probe(server, "readiness") == 503, "it is not ready any more")
    assert container.probe(server, "liveness") == 200
    assert container.grpc_probe(server) == "NOT_SERVING"
    assert clients.sql(server, "SELECT 1 AS x", *key(secrets)).ok().json() == [{"x": 1}]
    assert server.wait_for_exit() == 0
    readiness = container.container["readinessProbe"]
    noticed = readiness["periodSeconds"] * readiness["failureThreshold"]
    assert noticed <= 5 <= time.monotonic() - started < container.spec["terminationGracePeriodSeconds"]


def test_client_certificates(pod, secrets, tmp_path):
    """No handshake succeeds without one, and the probes continue to work."""
    container = Container(pod, kustomized(tmp_path / "k", "client-certificates"), secrets)
    server = container.serve()
    for kind in ("startup", "liveness", "readiness"):
        assert container.probe(server, kind) == 200, kind
    assert container.grpc_probe(server) == "SERVING"
    assert clients.get(server, "/health").exit != 0
    mine = clients.as_client(pod.ca, pod.home)
    clients.get(server, "/health", *mine).ok()
    assert clients.sql(server, "SELECT 1 AS x", *mine, *key(secrets)).ok().json() == [{"x": 1}]


def test_monitoring(pod, secrets, tmp_path):
    """Scrapes as the ServiceMonitor configures it: its CA and its server name."""
    manifests = kustomized(tmp_path / "k", "monitoring")
    server = Container(pod, manifests, secrets).serve()
    (endpoint,) = only(manifests, "ServiceMonitor")["spec"]["endpoints"]
    name, port = endpoint["tlsConfig"]["serverName"], server.port("metrics")
    url = f"{endpoint['scheme']}://{name}:{port}{endpoint['path']}"
    text = clients.curl(url, "--resolve", f"{name}:{port}:127.0.0.1", ca=server.ca).ok().text
    assert "spiced_tls_certificate_not_after_timestamp_seconds" in text


def test_the_secret_store(pod, secrets, tmp_path):
    """Certificate and key through the API, with only the rights of the Role."""
    manifests = kustomized(tmp_path / "k", "secret-store")
    (rule,) = only(manifests, "Role")["rules"]
    account = only(manifests, "ServiceAccount")
    (subject,) = only(manifests, "RoleBinding")["subjects"]
    assert subject["name"] == account["metadata"]["name"] and account["automountServiceAccountToken"]
    cluster = Cluster(pod.ca.issue(), pod.ca.pem)
    try:
        cluster.tokens[cluster.token] = set(rule["verbs"])
        (name,) = rule["resourceNames"]
        cluster.put(name, secrets["spiced-tls"])
        container = Container(pod, manifests, secrets)
        assert container.spec["automountServiceAccountToken"] and "/etc/spice/tls" not in container.mounts
        container.env = cluster.service_account(tmp_path / "account")
        container.mounts["/var/run/secrets/kubernetes.io/serviceaccount"] = tmp_path / "account"
        server = container.serve()
        assert clients.sql(server, "SELECT 1 AS x", *key(secrets)).ok().json() == [{"x": 1}]
        cluster.wait_for_watch()
        renewed = pod.ca.issue((*LOCAL, "spiced", "spiced.default.svc"), common_name="renewed")
        cluster.put(name, pair_of(renewed))
        eventually(lambda: clients.presented(server) == renewed.der, "the renewed one, by watch")
        assert not server.logged("WARN", "ERROR"), server.stderr
    finally:
        cluster.close()


@pytest.mark.parametrize("component", ["", "cert-manager"])
def test_cert_manager_s_certificate_is_the_one_that_is_mounted(tmp_path, component):
    """In the manifests and in the chart: its secret, and each name of the Service."""
    if component:
        manifests = kustomized(tmp_path / "k", component)
        certificate = only(manifests, "Certificate", "spiced")
        issuers = {o["metadata"]["name"]: o["spec"] for o in manifests if o["kind"] == "Issuer"}
        ca = only(manifests, "Certificate", "spiced-ca")["spec"]
        assert issuers[certificate["spec"]["issuerRef"]["name"]] == {"ca": {"secretName": ca["secretName"]}}
        assert ca["isCA"] and issuers[ca["issuerRef"]["name"]] == {"selfSigned": {}}
    else:
        manifests = templated("--set", "tls.certManager.enabled=true", "--set", "tls.certManager.issuerRef.name=ca")
        certificate = only(manifests, "Certificate")
    spec = certificate["spec"]
    volumes = only(manifests, "Deployment")["spec"]["template"]["spec"]["volumes"]
    assert next(v for v in volumes if v["name"] == "tls")["secret"]["secretName"] == spec["secretName"]
    assert spec["dnsNames"] == ["spiced", "spiced.default.svc", "spiced.default.svc.cluster.local"]
    assert spec["privateKey"]["rotationPolicy"] == "Always" and spec["privateKey"]["algorithm"] == "ECDSA"
    hours = {name: int(spec[name].removesuffix("h")) for name in ("duration", "renewBefore")}
    assert 30 * 24 < hours["renewBefore"] < hours["duration"], "renewed before any warning"


# The chart


@pytest.mark.parametrize("name", ["", *VALUES])
def test_helm_lints_it(name):
    words = ["--values", CHART / f"ci/{name}-values.yaml"] if name else []
    assert "0 chart(s) failed" in kubernetes.run(kubernetes.tool("helm"), "lint", "--strict", CHART, *words).stdout


REFUSED = {
    "tls.certManager.enabled=true": "/tls/certManager/issuerRef/name",
    "clientCertificates.mode=required": "/clientCertificates/secret",
    "clientCertificates.mode=optional": "/clientCertificates/mode",
    "apiKeys.secret=keys": "/apiKeys/read",
    "metrics.serviceMonitor.enabled=true": "/metrics/enabled",
    "pod.runtime.listen.http=localhost:3000": "listen",
    "pod.runtime.shutdown_delay=60s": "shutdown_delay",
    "replica=1": "replica",
    "replicas=0": "/replicas",
}


@pytest.mark.parametrize("said", REFUSED)
def test_the_chart_refuses(said):
    done = kubernetes.run(kubernetes.tool("helm"), "template", "spiced", CHART, "--set", said, code=1)
    assert REFUSED[said] in done.stderr, done.stderr


def in_the_cluster(pod, manifests, leaf) -> dict[str, dict[str, str]]:
    """Every secret that a Deployment refers to and the manifests do not create."""
    spec = only(manifests, "Deployment")["spec"]["template"]["spec"]
    pod_yaml = only(manifests, "ConfigMap")["data"]["spicepod.yaml"]
    secrets: dict[str, dict[str, str]] = {}
    for volume in spec["volumes"]:
        name = volume.get("secret", {}).get("secretName")
        if volume["name"] == "tls":
            secrets[name] = pair_of(leaf)
        elif volume["name"] == "clients":
            file = pod_file(manifests)["runtime"]["tls"]["client_auth_ca_file"]
            secrets[name] = {file.rsplit("/", 1)[1]: pod.ca.pem}
        elif volume["name"] == "keys":
            words = [word.split("}")[0] for word in pod_yaml.split("${keys:")[1:]]
            secrets[name] = {word: LEDGER.mark(f"the API key {word}") for word in words}
    made = {o["metadata"]["name"] for o in manifests if o["kind"] == "Secret"}
    for said in spec["containers"][0]["env"]:
        source = said.get("valueFrom", {}).get("secretKeyRef")
        if source and source["name"] not in made:
            secrets.setdefault(source["name"], {})[source["key"]] = LEDGER.mark("session tickets")
    return secrets


@pytest.mark.parametrize("name", ["", *VALUES])
def test_the_chart_s_container_serves(pod, leaf, name, tmp_path):
    manifests = with_values(name) if name else templated()
    secrets = in_the_cluster(pod, manifests, leaf)
    container = Container(pod, manifests, secrets)
    cluster = None
    if name == "api":
        cluster = Cluster(pod.ca.issue(), pod.ca.pem)
        cluster.tokens[cluster.token] = set(only(manifests, "Role")["rules"][0]["verbs"])
        cluster.put(only(manifests, "Role")["rules"][0]["resourceNames"][0], pair_of(leaf), namespace="data")
        container.env = cluster.service_account(tmp_path / "account", "data")
        container.mounts["/var/run/secrets/kubernetes.io/serviceaccount"] = tmp_path / "account"
    try:
        container.run("tls", "check", "--strict", "--json", "/pod")
        explained = json.loads(container.run("config", "explain", "--json", "/pod"))["settings"]
        server = container.serve()
        for kind in ("startup", "liveness", "readiness"):
            assert container.probe(server, kind) == 200, kind
        for endpoint in ENDPOINTS:
            assert server.tls(endpoint)
        tls = pod_file(manifests)["runtime"]["tls"]
        words = clients.as_client(pod.ca, pod.home) if tls.get("client_auth_mode") else []
        health = clients.get(server, "/health", *words)
        assert health.ok()
        keys = next((data for secret, data in secrets.items() if secret in ("spiced", "reports")), {})
        given = [*words, "-H", f"X-API-Key: {next(iter(keys.values()))}"] if keys else words
        # Without configured access, every caller is refused.
        status = {"": 401, "mtls": 403}.get(name, 200)
        assert clients.sql(server, "SELECT 1 AS x", *given).status == status
        origins = {setting["key"]: setting["origin"] for setting in explained}
        assert origins["runtime.tls.session_ticket_secret"].startswith("spicepod.yaml"), origins
    finally:
        if cluster:
            cluster.close()


def test_the_chart_creates_a_long_ticket_secret():
    made = [base64.b64decode(only(templated(), "Secret")["data"]["SESSION_TICKET_SECRET"]) for _ in range(2)]
    assert len(made[0]) >= 32 and made[0] != made[1]
    assert not [o for o in templated("--set", "sessionTickets.secret=mine") if o["kind"] == "Secret"]


def test_an_upgrade_keeps_the_ticket_secret(fronts, tmp_path):
    """helm queries a simulated API that already has the secret; `SESSION_TICKET_SECRET` is unchanged."""
    kept = base64.b64encode(b"what was made the first time, and is kept").decode()
    owned = {
        "labels": {"app.kubernetes.io/managed-by": "Helm"},
        "annotations": {"meta.helm.sh/release-name": "spiced", "meta.helm.sh/release-namespace": "default"},
    }
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "spiced-tickets", "namespace": "default", **owned}}

    def kinds(version: str, *names: str) -> dict:
        verbs = ["get", "list", "create", "patch", "update", "delete"]
        resources = [{"name": f"{n.lower()}s", "singularName": "", "namespaced": True, "kind": n, "verbs": verbs} for n in names]
        return {"kind": "APIResourceList", "groupVersion": version, "resources": resources}

    groups = [
        {"name": name, "versions": [version], "preferredVersion": version}
        for name in ("apps", "policy")
        for version in [{"groupVersion": f"{name}/v1", "version": "v1"}]
    ]
    answers = {
        "/version": {"major": "1", "minor": "33", "gitVersion": "v1.33.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
        "/api/v1": kinds("v1", "Secret", "ConfigMap", "Service", "ServiceAccount"),
        "/apis/apps/v1": kinds("apps/v1", "Deployment"),
        "/apis/policy/v1": kinds("policy/v1", "PodDisruptionBudget"),
        "/api/v1/namespaces/default/secrets/spiced-tickets": {**secret, "data": {"SESSION_TICKET_SECRET": kept}},
    }

    def behave(asked):
        found = answers.get(asked.path.split("?")[0])
        asked.answer(200 if found else 404, json.dumps(found or {"kind": "Status", "code": 404, "reason": "NotFound"}).encode())

    api = fronts(behave)
    words = ["--dry-run=server", "--kube-apiserver", api.url, "--kube-token", "none", "--disable-openapi-validation"]
    done = kubernetes.run(kubernetes.tool("helm"), "template", "spiced", CHART, *words, HOME=str(tmp_path))
    assert only(kubernetes.objects(done.stdout), "Secret")["data"] == {"SESSION_TICKET_SECRET": kept}


def test_the_chart_s_pod_is_merged():
    pod = pod_file(with_values("keys"))
    assert pod["name"] == "my-app" and pod["datasets"][0]["name"] == "events"
    assert [store["name"] for store in pod["secrets"]] == ["keys", "more"]
    assert pod["runtime"]["sql"] == {"memory_limit": "1GiB", "timeout": "30s"}
    keys = ["${keys:REPORTS}:ro", "${keys:etl.nightly}:rw", "${keys:etl-hourly}:rw"]
    assert pod["runtime"]["auth"]["api_key"]["keys"] == keys


def test_the_chart_s_notes():
    """They state when every caller is refused, and how to create the secret."""
    install = ["install", "spiced", CHART, "--dry-run=client"]
    helm = kubernetes.tool("helm")
    done = kubernetes.run(helm, *install)
    assert "EVERY CALLER IS REFUSED" in done.stdout and "create secret tls spiced-tls" in done.stdout
    done = kubernetes.run(helm, *install, "--set", "allowAnonymous=ro,tls.certManager.enabled=true,tls.certManager.issuerRef.name=ca")
    assert "NOBODY" not in done.stdout and "create secret tls" not in done.stdout
