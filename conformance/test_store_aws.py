"""AWS Secrets Manager, by moto: what it gives, its changes, and what is said when it does not answer."""

from __future__ import annotations

import json
import uuid

import pytest

from harness import clients, front
from harness.ledger import LEDGER
from harness.stores import REGION, Moto, aws_environment
from harness.waiting import eventually


@pytest.fixture
def name(request):
    """A secret's name that no other test has."""
    return f"spice/{request.node.originalname}/{uuid.uuid4().hex[:8]}"


def store(moto_url: str, secret: str | None = None, **more) -> dict:
    """The declaration of a store."""
    kind = "aws_secrets_manager" + (f":{secret}" if secret else "")
    params = {"aws_endpoint_url": moto_url, **more.pop("params", {})}
    return {"name": "aws", "from": kind, "params": params, **more}


# What it gives


def test_the_references_example_as_one_json_secret(pod, moto, name):
    """The reference stores two names and reads two others from a third; docs/errata.md has this form of it."""
    moto.create(name, {"tls-certificate": pod.pair.certificate, "tls-private-key": pod.pair.key_text})
    pod.yaml(
        secrets=[store(moto.url, name, params={"aws_region": REGION})],
        tls={"enabled": True, "certificate": "${aws:tls-certificate}", "key": "${aws:tls-private-key}"},
    )
    server = pod.serve(env=aws_environment(AWS_REGION=""))
    clients.assert_serves(server, pod.pair)


def test_the_references_example_by_the_names_it_stores(pod, moto, name):
    """The other form: each KEY is a secret's name, and its whole string the value."""
    moto.create(f"{name}/certificate", pod.pair.certificate)
    moto.create(f"{name}/private-key", pod.pair.key_text)
    pod.yaml(
        secrets=[store(moto.url)],
        tls={"certificate": "${aws:%s/certificate}" % name, "key": "${ aws:%s/private-key }" % name},
    )
    server = pod.serve(env=aws_environment())
    clients.assert_serves(server, pod.pair)
