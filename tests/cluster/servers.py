"""Real etcd and HAProxy for tests, from Debian's packages, on loopback; children of the test process."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
from pathlib import Path

import requests

from cluster.haproxy import HaproxyFailed, ask
from cluster.places import Places
from cluster.tls import Identity
from tests.cluster.pki import make_ca, make_certificate
from tests.support import wait_until

DIE_WITH_US = ("setpriv", "--pdeathsig", "KILL")  # however the test process dies
START_SECONDS = 20.0


_ports = itertools.count(20000 + os.getpid() % 8000)


def server_port() -> int:
    """A free port below those that clients get, so that a server that was stopped finds its own again."""
    for port in _ports:
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port")


class Pki:
    """Certificates in a folder: `host` for everybody of the cluster, `site` for clients, a stranger's."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        make_ca(folder)
        make_ca(folder, "clients")
        make_ca(folder, "stranger")
        loopback = [f"127.0.0.{last}" for last in (1, 2, 3, 100)]
        make_certificate(folder, "host", *loopback)
        make_certificate(folder, "site", *loopback)
        make_certificate(folder, "modality", ca="clients")
        make_certificate(folder, "intruder", ca="stranger")

    def for_addresses(self, *addresses: str) -> None:
        """A further certificate of the cluster's, `three`, for other addresses."""
        make_certificate(self.folder, "three", *addresses)

    def path(self, name: str) -> str:
        return str(self.folder / name)

    @property
    def identity(self) -> Identity:
        return Identity(self.path("ca.crt"), self.path("host.crt"), self.path("host.key"))


class EtcdServers:
    """A cluster of etcd members with mutual TLS."""

    def __init__(self, folder: Path, pki: Pki, members: int = 1) -> None:
        folder.mkdir()
        self._folder = folder
        self._pki = pki
        self._ports = [(server_port(), server_port()) for _ in range(members)]
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * members

    @property
    def client_ports(self) -> list[int]:
        return [client for client, _ in self._ports]

    @property
    def endpoints(self) -> list[str]:
        return [f"https://127.0.0.1:{client}" for client in self.client_ports]

    def start(self) -> None:
        """Start the members that do not run, and wait until they answer."""
        for number in range(len(self._ports)):
            if self._processes[number] is None:
                self._processes[number] = self._spawn(number)
        wait_until(self._healthy, START_SECONDS, "etcd is healthy")

    def stop(self, number: int, how: signal.Signals = signal.SIGKILL) -> None:
        """Kill a member; its data stay. SIGSTOP freezes it, SIGCONT lets it go on."""
        process = self._processes[number]
        assert process is not None
        process.send_signal(how)
        if how not in (signal.SIGSTOP, signal.SIGCONT):
            process.wait()
            self._processes[number] = None

    def close(self) -> None:
        for process in self._processes:
            if process is not None:
                process.kill()
                process.wait()

    def _spawn(self, number: int) -> subprocess.Popen[bytes]:
        client, peer = self._ports[number]
        cluster = ",".join(f"m{i}=https://127.0.0.1:{port}" for i, (_, port) in enumerate(self._ports))
        pki = self._pki
        options = {
            "name": f"m{number}",
            "data-dir": str(self._folder / f"m{number}"),
            "listen-client-urls": f"https://127.0.0.1:{client}",
            "advertise-client-urls": f"https://127.0.0.1:{client}",
            "listen-peer-urls": f"https://127.0.0.1:{peer}",
            "initial-advertise-peer-urls": f"https://127.0.0.1:{peer}",
            "initial-cluster": cluster,
            "cert-file": pki.path("host.crt"),
            "key-file": pki.path("host.key"),
            "trusted-ca-file": pki.path("ca.crt"),
            "peer-cert-file": pki.path("host.crt"),
            "peer-key-file": pki.path("host.key"),
            "peer-trusted-ca-file": pki.path("ca.crt"),
            "heartbeat-interval": "100",
            "election-timeout": "1000",
        }
        command = [*DIE_WITH_US, "etcd", "--client-cert-auth", "--peer-client-cert-auth"]
        command += [f"--{name}={value}" for name, value in options.items()]
        with (self._folder / f"m{number}.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def _healthy(self) -> bool:
        session = self._pki.identity.session()
        try:
            return all(
                session.get(f"{each}/health", timeout=2).json()["health"] == "true" for each in self.endpoints
            )
        except (requests.RequestException, KeyError, ValueError):
            return False


class HaproxyServer:
    """HAProxy as Debian's unit runs it: master and worker, the master's socket open."""

    def __init__(self, folder: Path, pki: Pki) -> None:
        folder.mkdir()
        self._folder = folder
        self.places = Places(
            ca=pki.path("ca.crt"),
            certificate=pki.path("host.crt"),
            key=pki.path("host.key"),
            site_certificate=pki.path("site.crt"),
            dicom_clients_ca=pki.path("clients.crt"),
            haproxy_config=str(folder / "haproxy.cfg"),
            haproxy_socket=str(folder / "admin.sock"),
            haproxy_master=str(folder / "master.sock"),
            haproxy_user="",
        )
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    def start(self, config: str) -> None:
        """Start with a configuration and wait until the master answers."""
        Path(self.places.haproxy_config).write_text(config)
        command = [*DIE_WITH_US, "haproxy", "-W", "-f", self.places.haproxy_config]
        command += ["-S", f"{self.places.haproxy_master},mode,600"]
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_until(self._answers, START_SECONDS, "HAProxy answers")

    def workers(self) -> set[str]:
        """Process ids of the workers, young and old."""
        wait_until(self._answers, 5, "HAProxy's master answers")  # an old one is away during a reload
        lines = ask(self.places.haproxy_master, "show proc").splitlines()
        return {line.split()[0] for line in lines if " worker " in line}

    def close(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        try:
            return "worker" in ask(self.places.haproxy_master, "show proc") and bool(
                ask(self.places.haproxy_socket, "show info")
            )
        except HaproxyFailed:
            return False
