"""deploy/certbot: the hook alone, with a server that runs as another user, and run by certbot against Pebble."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import stat
import subprocess
import threading
from pathlib import Path

import pytest
from cryptography import x509

from harness import clients
from harness.acme import Pebble
from harness.pod import ENDPOINTS
from harness.server import binary
from harness.waiting import DEADLINE, eventually

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
HOOK = DEPLOY / "certbot/spiced-deploy-hook.sh"
NAME = "db.example.com"


class Host:
    """/etc/letsencrypt, /etc/spiced/tls and spiced's user: nobody if the tests run as root, otherwise the user that
    runs them.
    """

    def __init__(self, root: Path) -> None:
        self.user = "nobody" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        self.uid, self.gid = pwd.getpwnam(self.user).pw_uid, pwd.getpwnam(self.user).pw_gid
        self.letsencrypt = root / "letsencrypt"
        self.folder = root / "etc/spiced/tls"
        self.configuration = root / "spiced-certbot"
        self.files = {
            "certificate_file": str(self.folder / "fullchain.pem"),
            "key_file": str(self.folder / "privkey.pem"),
        }
        # Only their owner can enter pytest's directories, and the server runs as another user.
        for folder in (root, *root.parents):
            if folder != Path("/") and folder.stat().st_uid == os.getuid():
                os.chmod(folder, folder.stat().st_mode | 0o055)

    def issue(self, pair, name: str = NAME) -> Path:
        """As certbot stores it: `live` has links into `archive`, and only root can enter either."""
        live, archive = self.letsencrypt / "live" / name, self.letsencrypt / "archive" / name
        for folder in (live, archive):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
        number = len(list(archive.glob("privkey*"))) + 1
        for stem, text, mode in (("fullchain", pair.certificate, 0o644), ("privkey", pair.key_text, 0o600)):
            (archive / f"{stem}{number}.pem").write_text(text)
            (archive / f"{stem}{number}.pem").chmod(mode)
            (live / f"{stem}.pem").unlink(missing_ok=True)
            (live / f"{stem}.pem").symlink_to(archive / f"{stem}{number}.pem")
        return live

    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "SPICED_CERTBOT_CONF": str(self.configuration),
            "SPICED_CERT_DIR": str(self.folder),
            "SPICED_CERT_OWNER": self.user,
        }

    def hook(self, *words, code: int = 0, **env: str) -> str:
        """Runs it; returns its standard output or, if it failed, its standard error."""
        done = subprocess.run(
            [HOOK, *words],
            env={**self.environment(), **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert done.returncode == code, f"the hook ended with {done.returncode}: {done.stderr}{done.stdout}"
        assert "PRIVATE KEY" not in done.stdout + done.stderr
        return done.stderr if code else done.stdout

    def renew(self, pair, name: str = NAME) -> str:
        """Does what certbot does: writes a new certificate and runs the hook."""
        live = self.issue(pair, name)
        return self.hook(RENEWED_LINEAGE=str(live), RENEWED_DOMAINS=f"{name} www.{name}")

    @property
    def wrap(self) -> list[str]:
        """The prefix of a command that runs it as that user."""
        words = ["setpriv", "--reuid", self.uid, "--regid", self.gid, "--clear-groups", "--no-new-privs"]
        return [str(word) for word in words] if os.getuid() == 0 else []

    def write_pod(self, pod) -> None:
        pod.yaml(tls=self.files)
        os.chmod(pod.folder / "spicepod.yaml", 0o644)

    def serve(self, pod):
        self.write_pod(pod)
        return pod.serve(wrap=self.wrap)

    def state(self):
        """Everything in the directory, for comparison."""
        return {
            path.relative_to(self.folder): (os.readlink(path) if path.is_symlink() else path.lstat().st_mtime_ns)
            for path in sorted(self.folder.rglob("*"))
        }


@pytest.fixture
def host(pod):
    return Host(pod.home.parent)


# The script


def test_shellcheck_reports_nothing():
    done = subprocess.run([clients.optional_tool("shellcheck"), HOOK], capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stdout
    assert HOOK.read_text().startswith("#!/bin/sh\n") and os.access(HOOK, os.X_OK)


def test_the_first_time_by_hand(host, pod):
    """It creates both files as links, the key readable only by its owner."""
    assert f"{host.folder} has {NAME} now" in host.hook(host.issue(pod.pair))
    assert (host.folder / "fullchain.pem").read_text() == pod.pair.certificate
    assert (host.folder / "privkey.pem").read_text() == pod.pair.key_text
    for name, mode in (("fullchain.pem", 0o644), ("privkey.pem", 0o600)):
        assert os.readlink(host.folder / name) == f"..data/{name}"
        found = (host.folder / name).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (mode, host.uid, host.gid), name
    assert stat.S_IMODE(host.folder.stat().st_mode) == stat.S_IMODE(host.folder.parent.stat().st_mode) == 0o755
    version = host.folder / os.readlink(host.folder / "..data")
    assert (version.stat().st_uid, stat.S_IMODE(version.stat().st_mode)) == (os.getuid(), 0o755)


def test_a_server_of_another_user_loads_each_renewal(host, pod):
    host.hook(host.issue(pod.pair))
    server = host.serve(pod)
    if os.getuid() == 0:
        assert Path(f"/proc/{server.process.pid}").stat().st_uid == host.uid
    clients.assert_serves(server, pod.pair)
    for turn in range(1, 4):
        renewed = pod.ca.issue(common_name=f"renewed-{turn}")
        assert f"({NAME} www.{NAME})" in host.renew(renewed)
        for endpoint in ENDPOINTS:
            eventually(lambda endpoint=endpoint: clients.presented(server, endpoint) == renewed.der, f"turn {turn} on the {endpoint} endpoint")
    assert not server.logged("WARN", "ERROR"), server.stderr
    assert len(list(host.folder.glob("..version.*"))) == 1, "old keys are gone"


def test_a_second_run_changes_nothing(host, pod):
    live = host.issue(pod.pair)
    host.hook(live)
    before = host.state()
    assert "has it already" in host.hook(RENEWED_LINEAGE=f"{live}/")
    assert host.state() == before
    # A mode that was changed is restored.
    (host.folder / "privkey.pem").chmod(0o644)
    host.hook(live)
    assert stat.S_IMODE((host.folder / "privkey.pem").stat().st_mode) == 0o600


def test_the_pair_always_matches(host, pod):
    """A reader that follows `..data` always sees a matching pair, and every file always exists."""
    host.hook(host.issue(pod.pair))
    pairs = {pair.certificate: pair.key_text for pair in [pod.pair, *(pod.ca.issue() for _ in range(12))]}
    end, seen, wrong = threading.Event(), set(), []

    def look():
        while not end.is_set():
            version = os.readlink(host.folder / "..data")
            try:
                texts = [(host.folder / version / name).read_text() for name in ("fullchain.pem", "privkey.pem")]
            except FileNotFoundError:  # an old version, removed during the read: not a mismatched pair
                continue
            seen.add(texts[0])
            if pairs.get(texts[0]) != texts[1]:
                wrong.append(texts)

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for certificate, key in pairs.items():
            live = host.letsencrypt / "live" / NAME
            (live / "fullchain.pem").resolve().write_text(certificate)
            (live / "privkey.pem").resolve().write_text(key)
            host.hook(live)
    finally:
        end.set()
        looker.join()
    assert not wrong and len(seen) > 3


def _nothing_said(host, pod):
    return (), {}, "RENEWED_LINEAGE is not set"


def _no_file(host, pod):
    (host.letsencrypt / "live" / NAME / "privkey.pem").unlink()
    return (host.letsencrypt / "live" / NAME,), {}, "privkey.pem is not there"


def _empty(host, pod):
    (host.letsencrypt / "live" / NAME / "fullchain.pem").resolve().write_text("")
    return (host.letsencrypt / "live" / NAME,), {}, "or empty"


def _no_pair(host, pod):
    (host.letsencrypt / "live" / NAME / "privkey.pem").resolve().write_text(pod.ca.issue().key_text)
    return (host.letsencrypt / "live" / NAME,), {}, "privkey.pem is not the key of fullchain.pem"


def _no_certificate(host, pod):
    (host.letsencrypt / "live" / NAME / "fullchain.pem").resolve().write_text("nothing")
    return (host.letsencrypt / "live" / NAME,), {}, "fullchain.pem is no certificate"


def _no_user(host, pod):
    return (host.letsencrypt / "live" / NAME,), {"SPICED_CERT_OWNER": "nobody-of-that-name"}, "useradd"


def _no_group(host, pod):
    return (host.letsencrypt / "live" / NAME,), {"SPICED_CERT_GROUP": "no-group-of-that-name"}, "group"


def _open_mode(host, pod):
    return (host.letsencrypt / "live" / NAME,), {"SPICED_KEY_MODE": "0644"}, "0600 or 0640"


def _group_s_key(host, pod):
    return (host.letsencrypt / "live" / NAME,), {"SPICED_KEY_MODE": "0640"}, "SPICED_CERT_OWNER=root"


def _another(host, pod):
    return (host.issue(pod.ca.issue(), "other.example.com"),), {}, "SPICED_CERT_NAME=other.example.com"


FAILS = [_nothing_said, _no_file, _empty, _no_pair, _no_certificate, _no_user, _no_group, _open_mode, _group_s_key, _another]


@pytest.mark.parametrize("fail", FAILS, ids=lambda fail: fail.__name__.strip("_").replace("_", "-"))
def test_it_reports_failures_and_keeps_the_old_files(host, pod, fail):
    host.hook(host.issue(pod.pair))
    before = host.state()
    words, env, said = fail(host, pod)
    assert said in host.hook(*words, code=1, **env)
    assert host.state() == before


def test_other_certificates_are_left_alone(host, pod):
    """With a name in the configuration, which is a shell script."""
    host.configuration.write_text(f"SPICED_CERT_NAME={NAME}\n")
    host.hook(host.issue(pod.pair))
    before = host.state()
    assert "left alone" in host.renew(pod.ca.issue(), "other.example.com")
    assert host.state() == before
    # Once it is configured, another name takes over.
    host.configuration.write_text("SPICED_CERT_NAME=other.example.com\n")
    other = pod.ca.issue()
    host.renew(other, "other.example.com")
    assert (host.folder / "privkey.pem").read_text() == other.key_text


def test_earlier_files_are_replaced(host, pod):
    """Plain files that were copied by hand, and the remains of a run that was killed."""
    host.folder.mkdir(parents=True)
    for name in ("fullchain.pem", "privkey.pem"):
        (host.folder / name).write_text("old")
    (host.folder / "..version.killed").mkdir()
    (host.folder / "..version.killed/privkey.pem").write_text("half")
    host.hook(host.issue(pod.pair))
    assert (host.folder / "privkey.pem").read_text() == pod.pair.key_text
    assert (host.folder / "fullchain.pem").is_symlink()
    assert not (host.folder / "..version.killed").exists()


def test_the_doctor_reports_nothing(host, pod):
    """Including the key's mode: 0600 for its owner, and 0640 for root with a group."""
    host.write_pod(pod)
    ways = [{}]
    if os.getuid() == 0:
        ways += [{"SPICED_CERT_OWNER": "root", "SPICED_CERT_GROUP": grp.getgrgid(host.gid).gr_name, "SPICED_KEY_MODE": "0640"}]
    live = host.issue(pod.pair)
    for env in ways:
        host.hook(live, **env)
        words = [*host.wrap, binary(), "tls", "check", "--strict", "--json", str(pod.folder)]
        done = subprocess.run(words, cwd=pod.cwd, env=pod.environment(), capture_output=True, text=True, timeout=DEADLINE)
        found = json.loads(done.stdout)["findings"]
        assert {finding["code"] for finding in found} <= {"TLS-INTERMEDIATE-MISSING"}, found
    server = host.serve(pod)  # in the second case by its group
    clients.assert_serves(server, pod.pair)


def test_the_drop_in_fits_the_unit(tmp_path):
    """deploy/systemd with the drop-in: systemd accepts both, and the hardening is unchanged."""
    unit = tmp_path / "spiced.service"
    (tmp_path / "spiced.service.d").mkdir()
    for source, target in (("systemd/spiced.service", unit), ("certbot/spiced.service.conf", tmp_path / "spiced.service.d/certbot.conf")):
        target.write_text((DEPLOY / source).read_text().replace("/usr/local/bin/spiced", binary()))
    words = [clients.tool("systemd-analyze"), "verify", "--man=no", "--recursive-errors=no", str(unit)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0 and unit.name not in done.stderr, done
    # Shows that the drop-in was read: an invalid directive in it is reported.
    drop_in = tmp_path / "spiced.service.d/certbot.conf"
    drop_in.write_text(drop_in.read_text().replace(f"ExecStart={binary()}", "ExecStart=/nowhere/spiced"))
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode != 0 and "/nowhere/spiced" in done.stderr, done
    settings = dict(line.split("=", 1) for line in drop_in.read_text().splitlines() if "=" in line and not line.startswith("#"))
    assert settings["LoadCredential"] == "" and settings["User"] == "spiced"


# certbot


def test_certbot_runs_the_hook(host, pod):
    """Issue, serve, renew: http-01 against Pebble, the hook as certbot runs it, no restart."""
    for name in ("certbot", "pebble", "pebble-challtestsrv"):
        clients.optional_tool(name)
    pebble = Pebble(pod.home / "acme", pod.ca)
    try:
        challenge = ["--standalone", "--http-01-port", str(pebble.challenges)]
        contact = ["--agree-tos", "--register-unsafely-without-email"]
        pebble.certbot("certonly", "-d", "db.example.com", "-d", "www.db.example.com", *challenge, *contact)
        config = pebble.folder / "config"
        host.hook(config / "live" / NAME)

        first = x509.load_pem_x509_certificate((host.folder / "fullchain.pem").read_bytes())
        server = host.serve(pod)
        root = pod.home / "pebble-root.pem"
        root.write_text(pebble.root)
        at = f"db.example.com:{server.port('http')}"
        words = ["--resolve", f"{at}:127.0.0.1"]
        clients.curl(f"https://{at}/health", *words, ca=str(root)).ok()

        # As installed, for every later renewal; its settings are in the configuration.
        hooks = config / "renewal-hooks/deploy"
        hooks.mkdir(parents=True, exist_ok=True)
        shutil.copy(HOOK, hooks / "spiced")
        host.configuration.write_text("".join(f"{k}={v}\n" for k, v in host.environment().items() if k.startswith("SPICED_CERT_")))
        said = pebble.certbot("renew", "--force-renewal", "--no-random-sleep-on-renew", SPICED_CERTBOT_CONF=str(host.configuration))
        assert "has db.example.com now (" in said and "www.db.example.com" in said, said

        second = x509.load_pem_x509_certificate((host.folder / "fullchain.pem").read_bytes())
        assert second.serial_number != first.serial_number

        def serves() -> bool:
            return x509.load_der_x509_certificate(clients.presented(server)).serial_number == second.serial_number

        eventually(serves, "the renewed certificate")
        clients.curl(f"https://{at}/health", *words, ca=str(root)).ok()
        assert not server.logged("ERROR"), server.stderr
    finally:
        pebble.stop()
