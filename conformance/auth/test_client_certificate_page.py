"""docs/client-certificates.md, command by command as printed: a CA, a certificate, a server that requires it, its
revocation."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pyarrow.flight as flight

from harness import clients, pages
from harness.server import binary
from harness.waiting import DEADLINE, eventually

PAGE = "client-certificates.md"


def shell(script: str, folder: Path) -> str:
    path = f"{folder}/bin:{os.environ['PATH']}"
    words = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(
        words, cwd=folder, env={"PATH": path, "HOME": str(folder)}, capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_page(pod):
    pod.write_pair()
    pod.write("ca.pem", pod.ca.pem)
    (pod.folder / "bin").mkdir()
    (pod.folder / "bin/spiced").symlink_to(binary())
    authority, certificate, renewed = pages.blocks(PAGE, "sh")
    shell(authority, pod.folder)
    shell(certificate, pod.folder)
    [text] = pages.pods(PAGE)
    pod.write("spicepod.yaml", text)
    assert "nothing is wrong" in shell("spiced tls check --ca ca.pem", pod.folder)
    server = pod.serve()

    def here(text: str) -> str:
        places = {"localhost:3000": "http", "localhost:50051": "flight"}
        for place, endpoint in places.items():
            text = text.replace(place, f"localhost:{server.port(endpoint)}")
        return text

    [connect] = pages.blocks(PAGE, "sh connect")
    connect = connect.replace("spiced sql", f"spiced sql --endpoint grpc+tls://localhost:{server.port('flight')}")
    assert shell(here(connect), pod.folder).startswith('[{"one":1}]')
    [code] = pages.blocks(PAGE, "python")
    names: dict = {}
    exec(here(code).replace('open("', f'open("{pod.folder}/'), names)
    with names["client"] as client:
        assert client.get_flight_info(clients.command("SELECT 1"), clients.call()).endpoints
    assert isinstance(client, flight.FlightClient)

    shown = ["--cert", str(pod.folder / "etl.pem"), "--key", str(pod.folder / "etl.key")]
    shell(renewed, pod.folder)
    assert clients.get(server, "/health", *shown).status == 200
    [revoke] = pages.blocks(PAGE, "sh revoke")
    shell(revoke, pod.folder)
    eventually(lambda: clients.get(server, "/health", *shown).status == 0, "the revoked certificate is refused")
