"""deploy/prometheus and deploy/grafana: promtool tests the rules, and a Prometheus that scrapes a real server tests
both."""

from __future__ import annotations

import datetime
import json
import re
import shutil
import signal
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from harness import clients, pages
from harness.access import Access
from harness.commands import endpoints, run
from harness.prometheus import Prometheus
from harness.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/prometheus/spiced.rules.yml"
TESTS = ROOT / "deploy/prometheus/spiced.rules.test.yml"
GROUPS = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]
RECORDED = {rule["record"]: rule["expr"] for group in GROUPS for rule in group["rules"] if "record" in rule}
DASHBOARD = json.loads((ROOT / "deploy/grafana/spiced.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
SHOWN = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]


# By promtool


def promtool(*words) -> None:
    # promtool evaluates once for each minute of a scenario: a day takes seconds.
    done = subprocess.run([clients.tool("promtool"), *words], capture_output=True, text=True, timeout=80)
    assert done.returncode == 0 and "FAILED" not in done.stdout, done.stdout + done.stderr


def test_the_rules_are_well_formed():
    promtool("check", "rules", RULES)


def test_each_alert_fires_when_it_should():
    promtool("test", "rules", TESTS)


def test_each_alert_has_a_firing_and_a_silent_scenario():
    checks = [check for story in yaml.safe_load(TESTS.read_text())["tests"] for check in story["alert_rule_test"]]
    for fires in (True, False):
        assert {c["alertname"] for c in checks if bool(c["exp_alerts"]) is fires} == {a["alert"] for a in ALERTS}


# Names


@dataclass
class Metric:
    kind: str
    labels: set[str]
    help: str


ROWS = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) ?\| (.+) \|$", (ROOT / "docs/reference/metrics.md").read_text(), re.M)
METRICS = {name: Metric(kind, set(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in ROWS}
OF_THE_SCRAPE = {"job", "instance"}
_SELECTOR = re.compile(r"\b(spiced[_:][a-z0-9_:]+|up)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"')
_LABELS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right) ?\(([^)]*)\)")


def metric(name: str) -> Metric:
    """Prometheus' own, one that a rule records, or one that the docs list; any other is a failure."""
    if name == "up":
        return Metric("gauge", set(), "")
    if name in RECORDED:
        return metric(next(n for n, _ in _SELECTOR.findall(RECORDED[name]) if n != name))
    series = re.fullmatch(r"(\w+)_(bucket|sum|count)", name)
    if series and METRICS.get(series[1], Metric("", set(), "")).kind == "histogram":
        return Metric("histogram", METRICS[series[1]].labels | ({"le"} if series[2] == "bucket" else set()), "")
    assert name in METRICS, f"docs/reference/metrics.md has no {name}"
    return METRICS[name]


def labels_of(expression: str) -> set[str]:
    """The labels that an expression may use; those that it does use are checked."""
    known = set(OF_THE_SCRAPE)
    for name, matchers in _SELECTOR.findall(expression):
        here = metric(name)
        known |= here.labels
        for label, value in _MATCHER.findall(matchers):
            assert label in here.labels | OF_THE_SCRAPE, f"{name} has no label {label}"
            if label in ("result", "reason"):
                missing = set(value.split("|")) - set(re.findall(r"\w+", here.help))
                assert not missing, f"{name} has no {label} {missing}: {here.help}"
    for names in _LABELS.findall(expression):
        assert set(re.findall(r"\w+", names)) <= known, f"{names} in {expression}"
    return known


@pytest.mark.parametrize("expression", [*RECORDED.values(), *(alert["expr"] for alert in ALERTS)])
def test_the_rules_use_existing_metrics(expression):
    labels_of(expression)


def test_the_dashboard_uses_every_metric():
    for title, target in SHOWN:
        known = labels_of(target["expr"])
        assert set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", ""))) <= known, title
    names = {re.sub(r"_bucket$", "", name) for _, target in SHOWN for name, _ in _SELECTOR.findall(target["expr"])}
    assert names == set(METRICS)


def test_the_dashboard_has_one_data_source_and_unique_ids():
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "instance"]
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert all(of["datasource"] == source for panel in PANELS for of in (panel, *panel["targets"]))
    assert max(Counter(panel["id"] for panel in DASHBOARD["panels"]).values()) == 1


# Words


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_has_a_fix(alert):
    """Everything that it names exists: labels, pages of the docs, commands."""
    assert alert["labels"]["severity"] in ("warning", "critical") and alert["for"]
    text = alert["annotations"]["summary"] + alert["annotations"]["description"]
    # An aggregation keeps the labels that it names.
    left = [set(re.findall(r"\w+", names)) for names in re.findall(r"\bby \(([^)]*)\)", alert["expr"])]
    assert set(re.findall(r"\$labels\.(\w+)", text)) <= set.intersection(labels_of(alert["expr"]), *left)
    pages = re.findall(r"docs/([\w/-]+\.md)(?:#([\w-]+))?", text)
    assert pages
    for page, anchor in pages:
        assert not anchor or anchor in anchors(ROOT / "docs" / page), f"{page}#{anchor}"
        assert (ROOT / "docs" / page).exists(), page
    reference = (ROOT / "docs/reference/command-line.md").read_text()
    commands = re.findall(r"^## spiced (.+)$", reference, re.M)
    for words in re.findall(r"`spiced ([^`]+)`", text):
        assert any(f"{words} ".startswith(f"{command} ") for command in commands), words


def test_the_docs_list_each_alert():
    rows = re.findall(r"^\| `(Spiced\w+)` \| (\w+) \|", (ROOT / "docs/monitoring.md").read_text(), re.M)
    assert dict(rows) == {alert["alert"]: alert["labels"]["severity"] for alert in ALERTS} and len(rows) == len(ALERTS)


# By a Prometheus


def hurried(rules: str) -> str:
    """The rules, but without waiting, and with seconds in place of minutes where a rule looks back."""
    for pattern, instead in ((r"\bfor: \w+", "for: 0s"), (r"\binterval: 1m\b", "interval: 1s"), (r"\boffset 1m\b", "offset 1s")):
        rules, changed = re.subn(pattern, instead, rules)
        assert changed, pattern
    return rules


@pytest.fixture
def watched(pod):
    """A server whose certificate has 3 days left and that has known callers of all kinds, with a Prometheus that
    scrapes it as `connect` prints.
    """
    access = Access(pod)
    pod.write_pair(pod.ca.issue(ends=datetime.timedelta(days=3)), "secrets/tls")
    pod.write("clients-ca.pem", access.clients.pem)
    tls = {"certificate": "${mounted:tls.crt}", "key": "${mounted:tls.key}"}
    pod.yaml(
        secrets=[{"name": "mounted", "from": "file:secrets", "refresh_interval": "1s"}],
        tls={**tls, "client_auth_mode": "request", "client_auth_ca_file": "clients-ca.pem"},
        runtime={"auth": {"api_key": access.api_key, "mtls": access.mtls}},
    )
    server = pod.serve("--metrics", "localhost:0", env=access.environment)
    assert access.ro.curl(server, "/v1/status").status == 200
    assert access.ro.wire(server).query("SELECT 1").code == "OK"
    telemetry = "INSERT INTO otel.logs (body, flags) VALUES ('by hand', 0)"
    assert access.rw.curl(server, "/v1/sql", "-d", telemetry).status == 200
    (pod.cwd / "rules.yml").write_text(hurried(RULES.read_text()))
    shutil.copy(pod.ca_file, pod.cwd / "ca.pem")
    said = run(pod, "connect", "prometheus", pod.folder, *endpoints(server), env=access.environment)
    with Prometheus(pod.cwd, {**yaml.safe_load(said.stdout), "rule_files": ["rules.yml"]}) as prometheus:
        yield pod, server, prometheus


def test_alerts_come_and_go(watched):
    pod, server, prometheus = watched
    ends, failing, rejected = "SpicedCertificateEndsWithin7Days", "SpicedSecretRefreshFailing", "SpicedTlsReloadRejected"

    def fire(*names: str) -> dict[str, list[dict]]:
        """Returns the alerts of these names, once they fire and no other does."""
        return eventually(lambda: (now := prometheus.firing()).keys() == set(names) and now, f"{names} and no other")

    # One alert for the certificate, whatever the number of endpoints, with its text filled in.
    [alert] = fire(ends)[ends]
    fingerprint = alert["labels"].pop("fingerprint")
    assert alert["labels"] == {
        "alertname": ends,
        "severity": "critical",
        "job": "spiced",
        "instance": f"localhost:{server.port('metrics')}",
        "subject": "CN=localhost",
        "origin": "spicepod.yaml: runtime.tls.certificate",
    }
    assert "expires in 2d 23h" in alert["annotations"]["summary"] and fingerprint in alert["annotations"]["description"], alert

    # The rule for short lifetimes does not fire for a certificate that has most of its lifetime left.
    [expression] = pages.blocks("monitoring.md", "promql")
    assert prometheus.query(expression) == [] and len(prometheus.query(expression.replace("/ 3", "/ 1"))) == 1

    # Its key is removed: the finding names the store, and the current certificate stays in use.
    key = pod.folder / "secrets/tls.key"
    key.rename(pod.folder / "tls.key")
    [alert] = fire(ends, failing)[failing]
    assert alert["labels"]["store"] == "mounted"

    # The store works again, but its value is rejected, because it is the first new one.
    (pod.folder / "tls.key").rename(key)
    pod.write("secrets/tls.crt", "no certificate")
    [alert] = fire(ends, rejected)[rejected]
    assert re.search(r"At \d{4}-\d\d-\d\d \d\d:", alert["annotations"]["description"]), alert

    # A valid certificate resolves all of them.
    pod.write_pair(pod.ca.issue(), "secrets/tls")
    eventually(lambda: prometheus.firing() == {}, "no alert after a good certificate")

    # No rule failed meanwhile, for example by finding two series where it expects one.
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(ALERTS) + len(RECORDED)
    assert {rule["health"] for rule in rules} == {"ok"}, [rule.get("lastError") for rule in rules]


def test_the_dashboard_shows_something_in_each_panel(watched):
    pod, server, prometheus = watched
    assert clients.sql(server, "SELECT 1", "-H", "X-API-Key: wrong").status == 401
    server.signal(signal.SIGHUP)

    instances = DASHBOARD["templating"]["list"][1]["query"]["query"]
    everything, label = re.fullmatch(r"label_values\((.+), (\w+)\)", instances).groups()
    found = eventually(lambda: prometheus.ask(f"label/{label}/values", **{"match[]": everything}), instances)
    assert found == [f"localhost:{server.port('metrics')}"]

    for title, target in SHOWN:
        expression = target["expr"].replace("$instance", found[0]).replace("$__rate_interval", "1m")
        assert "$" not in expression, title
        eventually(lambda: prometheus.query(expression), f"a series in {title}: {expression}")
