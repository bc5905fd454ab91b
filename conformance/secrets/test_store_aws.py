"""AWS Secrets Manager, by moto: its values, their changes, and the report when it does not answer."""

from __future__ import annotations

import json
import uuid

import pytest

from harness import clients, scripted_server, pages
from harness.leak_scanner import LEDGER
from harness.messages import plain
from harness.server import text_of
from harness.stores import REGION, Moto, aws_environment
from harness.tables import NEAREST, reference
from harness.waiting import eventually


@pytest.fixture
def name(request):
    """The name of a secret that only this test uses."""
    return f"spice/{request.node.originalname}/{uuid.uuid4().hex[:8]}"


def store(url: str, secret: str | None = None, params: dict | None = None, **more) -> dict:
    """The declaration of a store."""
    kind = "aws_secrets_manager" + (f":{secret}" if secret else "")
    return {"name": "aws", "from": kind, "params": {"aws_endpoint_url": url, **(params or {})}, **more}


def fields(pair) -> dict:
    return {"tls-certificate": pair.certificate, "tls-private-key": pair.key_text}


PAIR = {"certificate": "${aws:tls-certificate}", "key": "${aws:tls-private-key}"}


# Values


@reference("AWS Secrets Manager", answer=NEAREST)
def test_the_references_example_as_one_json_secret(pod, moto, name):
    """The reference stores two names and reads two others from a third; docs/errata.md has this form of the example."""
    moto.create(name, fields(pod.pair))
    pod.yaml(secrets=[store(moto.url, name, {"aws_region": REGION})], tls={"enabled": True, **PAIR})
    server = pod.serve(env=aws_environment(AWS_REGION=""))
    clients.assert_serves(server, pod.pair)


@reference("AWS Secrets Manager", answer=NEAREST)
def test_the_references_example_by_the_names_it_stores(pod, moto, name):
    """The other form: each KEY is the name of a secret, and the whole string is the value."""
    moto.create(f"{name}/certificate", pod.pair.certificate)
    moto.create(f"{name}/private-key", pod.pair.key_text)
    pod.yaml(
        secrets=[store(moto.url)],
        tls={"certificate": "${aws:%s/certificate}" % name, "key": "${ aws:%s/private-key }" % name},
    )
    server = pod.serve(env=aws_environment())
    clients.assert_serves(server, pod.pair)


def test_binary_secret(pod, moto, name):
    moto.create(f"{name}/certificate", pod.pair.certificate.encode())
    moto.create(f"{name}/private-key", pod.pair.key_text.encode())
    pod.yaml(
        secrets=[store(moto.url)],
        tls={"certificate": "${aws:%s/certificate}" % name, "key": "${aws:%s/private-key}" % name},
    )
    clients.assert_serves(pod.serve(env=aws_environment()), pod.pair)


def test_a_json_secret_is_asked_for_once_however_many_references(pod, moto, name, fronts):
    moto.create(name, {**fields(pod.pair), "file": "people.csv", "TICKETS": LEDGER.mark("a ticket secret")})
    counting = fronts(scripted_server.pass_on(moto.url))
    pod.write("people.csv", "id,name\n1,Ada\n")
    pod.yaml(
        secrets=[store(counting.url, name)],
        tls={**PAIR, "session_ticket_secret": "${secrets:TICKETS}"},
        datasets=[{"from": "file:${aws:file}", "name": "people"}],
    )
    server = pod.serve(env=aws_environment())
    clients.assert_serves(server, pod.pair)
    assert clients.rows(server, "SELECT name FROM people") == [{"name": "Ada"}]
    assert len(counting.requests) == 1, counting.requests


def test_credentials_by_params_that_refer_to_other_stores(pod, moto, name):
    moto.create(name, fields(pod.pair))
    params = {
        "aws_region": REGION,
        "aws_access_key_id": "${env:MY_KEY_ID}",
        "aws_secret_access_key": "${env:MY_SECRET_KEY}",
    }
    pod.yaml(secrets=[store(moto.url, name, params)], tls=PAIR)
    secret_key = LEDGER.mark("an AWS secret key by params")
    server = pod.serve(env={"MY_KEY_ID": "AKIDTEST", "MY_SECRET_KEY": secret_key, "AWS_EC2_METADATA_DISABLED": "true"})
    clients.assert_serves(server, pod.pair)


def test_private_ca_by_aws_ca_bundle(pod, moto, name, fronts):
    moto.create(name, fields(pod.pair))
    secured = fronts(scripted_server.pass_on(moto.url), pod.ca.issue())
    pod.yaml(secrets=[store(secured.url, name)], tls=PAIR)
    clients.assert_serves(pod.serve(env=aws_environment(AWS_CA_BUNDLE=pod.ca_file)), pod.pair)


def test_private_ca_by_ssl_cert_file(pod, moto, name, fronts):
    moto.create(name, fields(pod.pair))
    secured = fronts(scripted_server.pass_on(moto.url), pod.ca.issue())
    pod.yaml(secrets=[store(secured.url, name)], tls=PAIR)
    clients.assert_serves(pod.serve(env=aws_environment(SSL_CERT_FILE=pod.ca_file)), pod.pair)


def test_throttled_requests_are_retried(pod, moto, name, fronts):
    moto.create(name, fields(pod.pair))
    on = scripted_server.pass_on(moto.url)

    def busy_twice(asked):
        if len(asked.server.front.requests) <= 2:
            return throttled(asked)
        return on(asked)

    pod.yaml(secrets=[store(fronts(busy_twice).url, name)], tls=PAIR)
    clients.assert_serves(pod.serve(env=aws_environment()), pod.pair)


def throttled(asked) -> None:
    asked.answer(400, b'{"__type": "ThrottlingException", "message": "Rate exceeded"}', "application/x-amz-json-1.1")


# Changes


def test_a_new_version_reaches_every_endpoint_by_interval(pod, moto, name):
    moto.create(name, fields(pod.pair))
    pod.yaml(secrets=[store(moto.url, name, refresh_interval="1s")], tls=PAIR)
    server = pod.serve("--metrics", "localhost:0", env=aws_environment())
    clients.assert_serves(server, pod.pair)
    renewed = pod.ca.issue(common_name="renewed")
    moto.put(name, fields(renewed))
    for endpoint in ("http", "flight", "grpc", "metrics"):
        eventually(lambda endpoint=endpoint: clients.presented(server, endpoint) == renewed.der, f"the new certificate on {endpoint}")
    metrics = clients.get(server, "/metrics", endpoint="metrics").ok().text
    assert 'spiced_secret_refresh_total{store="aws",result="changed"} 1' in metrics, metrics
    assert 'spiced_tls_reload_total{result="swapped"} 1' in metrics, metrics
    assert clients.get(server, "/v1/status").ok().json()["stores"][0] == {
        "name": "aws",
        "kind": "aws_secrets_manager",
        "refresh": "every 1s",
        "state": "ok",
        "last_read": clients.get(server, "/v1/status").ok().json()["stores"][0]["last_read"],
        "trouble": None,
    }


def test_sighup_reads_the_store_again(pod, moto, name):
    moto.create(name, fields(pod.pair))
    pod.yaml(secrets=[store(moto.url, name)], tls=PAIR)
    server = pod.serve(env=aws_environment())
    renewed = pod.ca.issue(common_name="renewed")
    moto.put(name, fields(renewed))
    server.signal(clients.signal.SIGHUP)
    for endpoint in ("http", "flight", "grpc"):
        eventually(lambda endpoint=endpoint: clients.presented(server, endpoint) == renewed.der, f"the new certificate on {endpoint}")
    assert len(server.logged(match="was reloaded")) == 1, server.tail()


def test_a_pair_that_changes_one_after_the_other_is_read_again_within_seconds(pod, moto, name, fronts):
    """Not at the next interval, which is five minutes away."""
    certificate, key = f"{name}/certificate", f"{name}/private-key"
    moto.create(certificate, pod.pair.certificate)
    moto.create(key, pod.pair.key_text)
    counting = fronts(scripted_server.pass_on(moto.url))
    pod.yaml(secrets=[store(counting.url)], tls={"certificate": "${aws:%s}" % certificate, "key": "${aws:%s}" % key})
    server = pod.serve(env=aws_environment())
    renewed = pod.ca.issue(common_name="renewed")
    moto.put(certificate, renewed.certificate)
    server.signal(clients.signal.SIGHUP)
    rejected = text_of(server.wait_for_log("ERROR", match="is rejected"))
    assert "is not the key of the certificate" in rejected
    assert clients.presented(server) == pod.pair.der
    looks = len(counting.requests)
    eventually(lambda: len(counting.requests) >= looks + 4, "two more looks at both secrets")
    moto.put(key, renewed.key_text)
    for endpoint in ("http", "flight", "grpc"):
        eventually(lambda endpoint=endpoint: clients.presented(server, endpoint) == renewed.der, f"the new certificate on {endpoint}")
    assert len(server.logged("ERROR", match="is rejected")) == 1, "it is logged once, not at each poll"


def test_a_store_that_goes_down_keeps_the_values_and_is_logged_once(pod, moto, name, fronts):
    moto.create(name, fields(pod.pair))
    up = scripted_server.pass_on(moto.url)
    between = fronts(up)
    pod.yaml(secrets=[store(between.url, name, refresh_interval="1s")], tls=PAIR)
    server = pod.serve("--metrics", "localhost:0", env=aws_environment())
    between.behave = denied
    failed = text_of(server.wait_for_log("WARN", match="the last good values are kept"))
    assert "AccessDeniedException" in failed and "secretsmanager:GetSecretValue" in failed

    def failures() -> int:
        metrics = clients.get(server, "/metrics", endpoint="metrics").ok().text
        lines = [line for line in metrics.splitlines() if 'store="aws",result="failed"' in line]
        return int(lines[0].rsplit(" ", 1)[1]) if lines else 0

    eventually(lambda: failures() >= 3, "three failed readings")
    status = clients.get(server, "/v1/status").ok().json()["stores"][0]
    assert status["state"] == "failing" and "AccessDeniedException" in status["trouble"]["problem"], status
    assert len(server.logged(match="the last good values are kept")) == 1, server.tail()
    clients.assert_serves(server, pod.pair)
    between.behave = up
    server.wait_for_log("INFO", match="the secret store can be read again")
    assert clients.get(server, "/v1/status").ok().json()["stores"][0]["state"] == "ok"


def denied(asked) -> None:
    body = {
        "__type": "AccessDeniedException",
        "Message": "User: arn:aws:iam::123456789012:user/spice is not authorized to perform: "
        "secretsmanager:GetSecretValue because no identity-based policy allows the action",
    }
    asked.answer(400, json.dumps(body).encode(), "application/x-amz-json-1.1")


def test_a_broken_candidate_is_rejected_and_the_next_good_one_loaded(pod, moto, name):
    moto.create(name, fields(pod.pair))
    pod.yaml(secrets=[store(moto.url, name, refresh_interval="1s")], tls=PAIR)
    server = pod.serve(env=aws_environment())
    moto.put(name, {**fields(pod.pair), "tls-certificate": "half a certifi"})
    server.wait_for_log("ERROR", match="is rejected")
    assert clients.presented(server) == pod.pair.der
    renewed = pod.ca.issue(common_name="renewed")
    moto.put(name, fields(renewed))
    eventually(lambda: clients.presented(server) == renewed.der, "the good one")


# The minimal policy


def test_the_least_policy_suffices_and_without_it_access_is_denied(pod, tmp_path):
    """The policy of docs/secrets/aws.md, on a separate AWS, which enforces policies for all callers. moto compares
    actions but not resources: the documented resource is replaced by a wildcard.
    """
    policy = json.loads(pages.blocks("secrets/aws.md", "json")[0])
    assert policy["Statement"][0]["Resource"].startswith("arn:aws:secretsmanager:")
    policy["Statement"][0]["Resource"] = "*"
    moto = Moto(tmp_path)
    try:
        moto.create("spice-secrets", fields(pod.pair))
        iam = moto.client("iam")
        keys = {}
        for user in ("with", "without"):
            iam.create_user(UserName=user)
            keys[user] = iam.create_access_key(UserName=user)["AccessKey"]
        iam.put_user_policy(UserName="with", PolicyName="spice", PolicyDocument=json.dumps(policy))
        moto.enforce_policies()

        def environment(key, secret=None):
            more = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": secret or key["SecretAccessKey"]}
            return aws_environment(**more)

        pod.yaml(secrets=[store(moto.url, "spice-secrets")], tls=PAIR)
        clients.assert_serves(pod.serve(env=environment(keys["with"])), pod.pair)
        for wrong in (environment(keys["without"]), environment(keys["with"], LEDGER.mark("a wrong AWS secret key"))):
            refused = pod.refuse(env=wrong)
            refused.names("secret store `aws`", moto.url, "refuses: HTTP 403", "allow secretsmanager:GetSecretValue")
    finally:
        moto.stop()


# Messages


def _missing_secret(pod, moto, fronts, name):
    pod.yaml(secrets=[store(moto.url, "spice-secrets-gone")], tls=PAIR)


def _missing_field(pod, moto, fronts, name):
    moto.create(name, {"tls-certificate": pod.pair.certificate})
    pod.yaml(secrets=[store(moto.url, name)], tls=PAIR)


def _missing_name(pod, moto, fronts, name):
    pod.yaml(secrets=[store(moto.url)], tls={"certificate": "${aws:spice/gone}", "key": pod.pair.key_text})


def _empty_field(pod, moto, fronts, name):
    moto.create(name, {**fields(pod.pair), "tls-private-key": ""})
    pod.yaml(secrets=[store(moto.url, name)], tls=PAIR)


def _no_json(pod, moto, fronts, name):
    moto.create(name, LEDGER.mark("a secret that is no JSON"))
    pod.yaml(secrets=[store(moto.url, name)], tls=PAIR)


def _unreachable(pod, moto, fronts, name):
    pod.yaml(secrets=[store(f"https://localhost:{scripted_server.refused_port()}", "s")], tls=PAIR)


def _slow(pod, moto, fronts, name):
    pod.yaml(secrets=[store(fronts(scripted_server.slow).url, "s")], tls=PAIR)


def _endless(pod, moto, fronts, name):
    pod.yaml(secrets=[store(fronts(scripted_server.endless).url, "s")], tls=PAIR)


def _nonsense(pod, moto, fronts, name):
    pod.yaml(secrets=[store(fronts(scripted_server.nonsense).url, "s")], tls=PAIR)


def _unknown_ca(pod, moto, fronts, name):
    pod.yaml(secrets=[store(fronts(scripted_server.nonsense, pod.pair).url, "s")], tls=PAIR)


def _throttled(pod, moto, fronts, name):
    pod.yaml(secrets=[store(fronts(throttled).url, "s")], tls=PAIR)


def _no_region(pod, moto, fronts, name):
    pod.yaml(secrets=[store(moto.url, "s")], tls=PAIR)
    return aws_environment(AWS_REGION="")


def _no_credentials(pod, moto, fronts, name):
    pod.yaml(secrets=[store(moto.url, "s")], tls=PAIR)
    return {"AWS_REGION": REGION, "AWS_EC2_METADATA_DISABLED": "true"}


def _half_a_key(pod, moto, fronts, name):
    pod.yaml(secrets=[store(moto.url, "s", {"aws_access_key_id": "AKIDTEST"})], tls=PAIR)


def _no_url(pod, moto, fronts, name):
    pod.yaml(secrets=[store("localhost:5000", "s")], tls=PAIR)


def _password_in_url(pod, moto, fronts, name):
    pod.yaml(secrets=[store("https://user:" + LEDGER.mark("a password") + "@localhost:1", "s")], tls=PAIR)


def _bundle_without_certificates(pod, moto, fronts, name):
    pod.yaml(secrets=[store(moto.url, "s")], tls=PAIR)
    return aws_environment(AWS_CA_BUNDLE=str(pod.write("bundle.pem", "nothing")))


def _unknown_param(pod, moto, fronts, name):
    pod.yaml(secrets=[store(moto.url, "s", {"aws_regoin": "x"})], tls=PAIR)


STORE = "error: spicepod.yaml: secrets[0]: secret store `aws`: "
ASKED = " (needed by spicepod.yaml: runtime.tls.certificate and 1 more)"

SAID = {
    _missing_secret: f"""\
{STORE}there is no secret `spice-secrets-gone` at http://127.0.0.1:PORT{ASKED}
hint: aws secretsmanager create-secret --name spice-secrets-gone --secret-string '{{"KEY": "VALUE"}}'""",
    _missing_field: """\
error: spicepod.yaml: runtime.tls.key: ${aws:tls-private-key}: there is no `tls-private-key`
hint: set it in one of: the field tls-private-key of the secret NAME at http://127.0.0.1:PORT""",
    _missing_name: """\
error: spicepod.yaml: runtime.tls.certificate: ${aws:spice/gone}: there is no `spice/gone`
hint: set it in one of: the secret spice/gone at http://127.0.0.1:PORT""",
    _empty_field: """\
error: spicepod.yaml: runtime.tls.key: ${aws:tls-private-key}: its value in store `aws` is empty
hint: give it a value there, or remove it; searched: the field tls-private-key of the secret NAME at http://127.0.0.1:PORT""",
    _no_json: f"""\
{STORE}the secret `NAME` is not a JSON object (it is not JSON); for whole secrets write `from: aws_secrets_manager`, and the secret's name as the KEY{ASKED}
hint: change `from` or `params`, or remove the store""",
    _unreachable: f"""\
{STORE}cannot reach https://localhost:PORT: Connection refused (os error N){ASKED}
hint: check that this machine reaches it, and aws_endpoint_url if it is set""",
    _slow: f"""\
{STORE}no answer within 4s from http://localhost:PORT{ASKED}
hint: check that the server is healthy and that nothing on the network path drops packets""",
    _endless: f"""\
{STORE}the answer of http://localhost:PORT cannot be used: it is larger than 4194304 bytes{ASKED}
hint: check that the address is that of the store itself, not of a proxy or a login page""",
    _nonsense: f"""\
{STORE}the answer of http://localhost:PORT cannot be used: it is not a response of Secrets Manager{ASKED}
hint: check that the address is that of the store itself, not of a proxy or a login page""",
    _unknown_ca: f"""\
{STORE}cannot reach https://localhost:PORT: invalid peer certificate: UnknownIssuer{ASKED}
hint: put the CA that signed its certificate into the file that AWS_CA_BUNDLE names""",
    _throttled: f"""\
{STORE}http://localhost:PORT refuses: ThrottlingException: Rate exceeded{ASKED}
hint: query it less often: a longer refresh_interval, or one JSON secret with all keys""",
    _no_region: f"""\
{STORE}the AWS region of the secrets is not set{ASKED}
hint: set the param aws_region, or AWS_REGION, or a region in the AWS profile""",
    _no_credentials: f"""\
{STORE}cannot query http://127.0.0.1:PORT: no credentials found in chain{ASKED}
hint: provide credentials: the params aws_access_key_id and aws_secret_access_key, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role of the machine or the pod""",
    _half_a_key: f"""\
{STORE}aws_access_key_id and aws_secret_access_key go together
hint: change `from` or `params`, or remove the store""",
    _no_url: f"""\
{STORE}aws_endpoint_url is not a URL; write https://HOST[:PORT]
hint: change `from` or `params`, or remove the store""",
    _password_in_url: f"""\
{STORE}aws_endpoint_url is not a URL; write https://HOST[:PORT]
hint: change `from` or `params`, or remove the store""",
    _bundle_without_certificates: f"""\
{STORE}AWS_CA_BUNDLE: POD/bundle.pem holds no certificate in PEM
hint: put the CA certificates there, or unset the variable""",
    _unknown_param: f"""\
{STORE}`aws_secrets_manager` has no param `aws_regoin` (spicepod.yaml: secrets[0].params.aws_regoin); did you mean `aws_region`
hint: change `from` or `params`, or remove the store""",
}


@pytest.mark.parametrize("case", SAID, ids=lambda case: case.__name__.strip("_"))
def test_messages(pod, moto, fronts, name, case):
    env = case(pod, moto, fronts, name) or aws_environment()
    refused = pod.refuse(env=env)
    assert plain(refused.report, pod.folder).replace(name, "NAME") == SAID[case]
