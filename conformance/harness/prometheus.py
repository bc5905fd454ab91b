"""A Prometheus for one test, on a free port, which scrapes and evaluates its rules every second."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import yaml

from . import clients
from .server import Server
from .waiting import DEADLINE


class Prometheus:
    """`config` is the content of prometheus.yml; its paths are relative to the given directory."""

    def __init__(self, folder: Path, config: dict) -> None:
        pace = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        (folder / "prometheus.yml").write_text(yaml.dump({"global": pace, **config}))
        self._process = Server(
            [
                clients.tool("prometheus"),
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=tsdb",
                "--web.listen-address=127.0.0.1:0",
                "--log.format=json",
            ],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        )

    def __enter__(self) -> Prometheus:
        try:
            self.url = "http://" + self._process.wait_for_log(match=r'"msg": "Listening on"')["address"]
        except BaseException:
            self._process.close()
            raise
        return self

    def __exit__(self, *_) -> None:
        self._process.close()

    def ask(self, path: str, **parameters: str):
        """Calls the API and returns the data of the response; an error fails with its message."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def query(self, expression: str) -> list[dict]:
        """The series of an instant query."""
        return self.ask("query", query=expression)["result"]

    def firing(self) -> dict[str, list[dict]]:
        """The firing alerts, by name."""
        firing: dict[str, list[dict]] = {}
        for alert in self.ask("alerts")["alerts"]:
            if alert["state"] == "firing":
                firing.setdefault(alert["labels"]["alertname"], []).append(alert)
        return firing
