"""Precedence: command line, environment, a pod value with a reference, a plain value; a file before inline text."""

from __future__ import annotations

import itertools

import pytest

from harness import clients
from harness.certificates import Pair
from harness.pod import ENDPOINTS, Pod
from harness.tables import reference

# Highest precedence first. A pod cannot contain the same key twice, so two of the pairs cannot occur.
SOURCES = ["cli-file", "cli-inline", "env-file", "env-inline", "ref-file", "ref-inline", "plain-file", "plain-inline"]
CANNOT_MEET = {("ref-file", "plain-file"), ("ref-inline", "plain-inline")}
MEETINGS = [pair for pair in itertools.combinations(SOURCES, 2) if pair not in CANNOT_MEET]


class Layers:
    """Collects the values of each source for one start."""

    def __init__(self, pod: Pod) -> None:
        self.pod, self.args, self.env, self.tls = pod, [], {}, {}

    def give(self, source: str, certificate: str, key: str, *, only: str | None = None) -> None:
        """`certificate` and `key` are PEM text; for a file source they are written first."""
        layer, _, form = source.partition("-")
        for what, text in (("certificate", certificate), ("key", key)):
            if only in (None, what):
                self._give(layer, what, form, text)

    def _give(self, layer: str, what: str, form: str, text: str) -> None:
        value, suffix = text, ""
        if form == "file":
            suffix = "_file"
            value = str(self.pod.write(f"{layer}/{what}.pem", text)) if text is not MISSING else "/nowhere/at-all.pem"
        if layer == "cli":
            self.args += [f"--tls-{what}{suffix.replace('_', '-')}", value]
        elif layer == "env":
            self.env[f"SPICED_RUNTIME__TLS__{what.upper()}{suffix.upper()}"] = value
        elif layer == "ref":
            self.env[f"REFERRED_{what}{suffix}".upper()] = value
            self.tls[f"{what}{suffix}"] = "${env:REFERRED_%s}" % f"{what}{suffix}".upper()
        else:
            self.tls[f"{what}{suffix}"] = value

    def serve(self):
        self.pod.yaml(tls=self.tls or None)
        return self.pod.serve(*self.args, env=self.env)

    def refuse(self):
        self.pod.yaml(tls=self.tls or None)
        return self.pod.refuse(*self.args, env=self.env)


MISSING = "-----BEGIN NOTHING-----\n"  # as a file: one that does not exist; as text: PEM without meaning


def named(pod: Pod, name: str) -> Pair:
    return pod.ca.issue(common_name=name)


@reference("Configuration priority")
@pytest.mark.parametrize("winner, loser", MEETINGS, ids=lambda source: source)
def test_effective_value(pod, winner, loser):
    layers = Layers(pod)
    first, second = named(pod, winner), named(pod, loser)
    layers.give(winner, first.certificate, first.key_text)
    layers.give(loser, second.certificate, second.key_text)
    server = layers.serve()
    assert clients.presented(server) == first.der, f"not that of {winner}"


def test_all_layers_at_once(pod):
    layers = Layers(pod)
    sources = [s for s in SOURCES if s not in ("plain-file", "plain-inline")]
    pairs = {source: named(pod, source) for source in sources}
    for source, pair in pairs.items():
        layers.give(source, pair.certificate, pair.key_text)
    server = layers.serve()
    for endpoint in ENDPOINTS:
        assert clients.presented(server, endpoint) == pairs["cli-file"].der


BROKEN = [
    ("cli-file", "cli-inline"),
    ("cli-file", "env-file"),
    ("cli-inline", "plain-file"),
    ("env-file", "env-inline"),
    ("env-inline", "ref-file"),
    ("ref-file", "ref-inline"),
    ("ref-inline", "plain-file"),
    ("plain-file", "plain-inline"),
]


@pytest.mark.parametrize("winner, loser", BROKEN, ids=lambda source: source)
def test_broken_overridden_value_does_no_harm(pod, winner, loser):
    layers = Layers(pod)
    layers.give(winner, pod.pair.certificate, pod.pair.key_text)
    layers.give(loser, MISSING, MISSING)
    assert clients.presented(layers.serve()) == pod.pair.der


def test_overridden_value_with_a_missing_secret_does_no_harm(pod):
    pod.yaml(tls={"certificate": "${env:NOWHERE_TO_BE_FOUND}", "key": "${env:NOWHERE_TO_BE_FOUND}"})
    paths = pod.write_pair()
    server = pod.serve("--tls-certificate-file", paths["certificate_file"], "--tls-key-file", paths["key_file"])
    assert clients.presented(server) == pod.pair.der


APART = [
    ("cli-file", "plain-file"),
    ("env-inline", "ref-inline"),
    ("ref-file", "env-file"),
    ("plain-inline", "cli-inline"),
]


@pytest.mark.parametrize("certificate_from, key_from", APART, ids=lambda source: source)
def test_certificate_and_key_are_chosen_separately(pod, certificate_from, key_from):
    layers = Layers(pod)
    layers.give(certificate_from, pod.pair.certificate, "", only="certificate")
    layers.give(key_from, "", pod.pair.key_text, only="key")
    assert clients.presented(layers.serve()) == pod.pair.der


MISMATCHES = [
    ("cli-file", "plain-file", ["--tls-certificate-file", "spicepod.yaml: runtime.tls.key_file"]),
    ("plain-inline", "cli-inline", ["spicepod.yaml: runtime.tls.certificate", "--tls-key"]),
    ("env-inline", "ref-file", ["SPICED_RUNTIME__TLS__CERTIFICATE", "spicepod.yaml: runtime.tls.key_file"]),
    ("ref-inline", "env-file", ["spicepod.yaml: runtime.tls.certificate", "SPICED_RUNTIME__TLS__KEY_FILE"]),
]


@pytest.mark.parametrize(
    "certificate_from, key_from, origins", MISMATCHES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_mismatch_names_both_origins(pod, certificate_from, key_from, origins):
    layers = Layers(pod)
    layers.give(certificate_from, pod.pair.certificate, "", only="certificate")
    layers.give(key_from, "", pod.ca.issue().key_text, only="key")
    layers.refuse().names(*origins)


# `enabled`


def _paths(pod: Pod) -> list[str]:
    paths = pod.write_pair()
    return ["--tls-certificate-file", paths["certificate_file"], "--tls-key-file", paths["key_file"]]


def _variables(pod: Pod) -> dict[str, str]:
    paths = pod.write_pair()
    return {
        "SPICED_RUNTIME__TLS__CERTIFICATE_FILE": paths["certificate_file"],
        "SPICED_RUNTIME__TLS__KEY_FILE": paths["key_file"],
    }


OFF = {
    "pod-turns-off-its-own": lambda pod: (dict(enabled=False, **pod.write_pair()), [], {}),
    "env-turns-off-the-pods": lambda pod: (pod.write_pair(), [], {"SPICED_RUNTIME__TLS__ENABLED": "false"}),
    "env-turns-off-its-own": lambda pod: (None, [], {"SPICED_RUNTIME__TLS__ENABLED": "false", **_variables(pod)}),
    "cli-turns-off-the-pods": lambda pod: (pod.write_pair(), ["--tls-enabled=false"], {}),
    "cli-turns-off-its-own": lambda pod: (None, ["--tls-enabled=false", *_paths(pod)], {}),
    "cli-turns-off-the-variables": lambda pod: (None, ["--tls-enabled=false"], _variables(pod)),
    "cli-false-over-pod-true": lambda pod: (dict(enabled=True, **pod.write_pair()), ["--tls-enabled=false"], {}),
}


@pytest.mark.parametrize("case", OFF.values(), ids=OFF.keys())
def test_false_turns_off_with_a_warning(pod, case):
    tls, args, env = case(pod)
    pod.yaml(tls=tls)
    server = pod.serve(*args, env=env)
    assert not any(server.tls(endpoint) for endpoint in ENDPOINTS)
    assert server.logged("WARN", match="enabled|TLS"), server.stderr
    assert clients.rows(server, "SELECT 1 AS x") == [{"x": 1}]


ABOVE = {
    "pod-false-cli-material": (False, {}, _paths, None, ["runtime.tls.enabled", "--tls-certificate-file"]),
    "pod-false-env-material": (
        False,
        {},
        None,
        _variables,
        ["runtime.tls.enabled", "SPICED_RUNTIME__TLS__CERTIFICATE_FILE"],
    ),
    "env-false-cli-material": (
        None,
        {"SPICED_RUNTIME__TLS__ENABLED": "false"},
        _paths,
        None,
        ["SPICED_RUNTIME__TLS__ENABLED", "--tls-certificate-file"],
    ),
}


@pytest.mark.parametrize("enabled, env, args, variables, names", ABOVE.values(), ids=ABOVE.keys())
def test_material_above_a_false_is_an_error_that_names_both(pod, enabled, env, args, variables, names):
    pod.yaml(tls=None if enabled is None else {"enabled": enabled})
    more = variables(pod) if variables else {}
    pod.refuse(*(args(pod) if args else []), env={**env, **more}).names(*names)


ON = {
    "cli-true-over-pod-false": lambda pod: ({"enabled": False}, ["--tls-enabled", *_paths(pod)], {}),
    "env-true-over-pod-false": lambda pod: (
        {"enabled": False},
        [],
        {"SPICED_RUNTIME__TLS__ENABLED": "true", **_variables(pod)},
    ),
    "cli-true-over-env-false": lambda pod: (
        None,
        ["--tls-enabled=true", *_paths(pod)],
        {"SPICED_RUNTIME__TLS__ENABLED": "false"},
    ),
    "cli-true-with-the-pods-material": lambda pod: (pod.write_pair(), ["--tls-enabled"], {}),
}


@pytest.mark.parametrize("case", ON.values(), ids=ON.keys())
def test_true_of_a_higher_layer(pod, case):
    tls, args, env = case(pod)
    pod.yaml(tls=tls)
    server = pod.serve(*args, env=env)
    for endpoint in ENDPOINTS:
        assert server.tls(endpoint)
        assert clients.presented(server, endpoint) == pod.pair.der


WITHOUT_MATERIAL = {
    "pod": ({"enabled": True}, [], {}),
    "flag": (None, ["--tls-enabled"], {}),
    "variable": (None, [], {"SPICED_RUNTIME__TLS__ENABLED": "true"}),
}


@pytest.mark.parametrize("tls, args, env", WITHOUT_MATERIAL.values(), ids=WITHOUT_MATERIAL.keys())
def test_enabled_without_material_lists_the_ways_to_give_it(pod, tls, args, env):
    pod.yaml(tls=tls)
    pod.refuse(*args, env=env).names("certificate_file", "--tls-self-signed")


BESIDE = {
    "pod-beside-pod": lambda pod: (dict(self_signed=True, **pod.write_pair()), []),
    "flag-beside-flag": lambda pod: (None, ["--tls-self-signed", *_paths(pod)]),
}


@pytest.mark.parametrize("case", BESIDE.values(), ids=BESIDE.keys())
def test_self_signed_beside_material_is_an_error(pod, case):
    tls, args = case(pod)
    pod.yaml(tls=tls)
    refusal = pod.refuse(*args)
    assert "self_signed" in refusal.stderr or "--tls-self-signed" in refusal.stderr, refusal.stderr
    assert not (pod.folder / ".spice").exists(), "a refused start creates no files"


def test_variables_are_literal(pod):
    """Command-line and environment values are literal: references in them are not resolved."""
    refusal = pod.refuse(
        env={
            "SPICED_RUNTIME__TLS__CERTIFICATE_FILE": "${env:CERT_PATH}",
            "SPICED_RUNTIME__TLS__KEY_FILE": "${env:KEY_PATH}",
            "CERT_PATH": pod.write_pair()["certificate_file"],
            "KEY_PATH": pod.write_pair()["key_file"],
        }
    )
    refusal.names("SPICED_RUNTIME__TLS__CERTIFICATE_FILE")


def test_variable_sets_other_settings(pod):
    """`SPICED_RUNTIME__…` reaches every setting of `runtime`."""
    server = pod.serve(env={"SPICED_RUNTIME__HTTP__BODY_LIMIT": "1KiB"})
    assert clients.sql(server, "SELECT 1 -- " + "x" * 4096).status == 413
    clients.sql(server, "SELECT 1").ok()


def test_listen_addresses_of_the_pod_and_the_flag_above_them(pod):
    """The pod's `listen` applies unless a flag overrides it: its port 1 could not be opened."""
    pod.yaml(runtime={"listen": {"http": "127.0.0.1:0", "flight": "localhost:1", "grpc": "localhost:1"}})
    server = pod.serve(endpoints=("flight", "grpc"))
    assert [a.rsplit(":", 1)[0] for a in server.addresses("http")] == ["127.0.0.1"]
    clients.get(server, "/health").ok()
