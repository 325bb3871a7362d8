"""Real nodes behind HAProxy: what the cluster does to them while images are stored."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from cluster import registry
from cluster.register import Registrar, health_of
from cluster.registry import Node
from node.domain.part10 import Meta, Part10Reader
from tests import corpus
from tests.cluster.front import Front
from tests.cluster.servers import DIE_WITH_US, server_port
from tests.integration.dimse_peer import CT, EXPLICIT, Peer, context
from tests.integration.test_dimse_roundtrip import get
from tests.support import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
OTHER_ADDRESS = "127.0.0.9"  # whom nodes ask for no PROXY header: HAProxy's is 127.0.0.1
START_SECONDS = 60.0


class _From(HTTPAdapter):
    """Requests from one of this host's addresses."""

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        super().init_poolmanager(*arguments, source_address=(OTHER_ADDRESS, 0), **named)


def direct() -> requests.Session:
    """A session that comes from another address than HAProxy."""
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", _From())
    return session


@dataclass
class Unit:
    """A systemd unit of a node: a `stele serve ROLE`."""

    process: subprocess.Popen[bytes]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


class RealNode:
    """A node of units, on a catalog and objects that others share. `start`, then `close`."""

    def __init__(self, name: str, folder: Path, dsn: str, objects: Path) -> None:
        self.name = name
        self.dicom_port, self.http_port = server_port(), server_port()
        self._folder = folder / name
        self._folder.mkdir()
        metrics = self._folder / "metrics"
        metrics.mkdir()
        self.environment = {
            **os.environ,
            "PROMETHEUS_MULTIPROC_DIR": str(metrics),
            "STELE_CATALOG__DSN": dsn,
            "STELE_OBJECTS__PATH": str(objects),
            "STELE_DICOM__HOST": "127.0.0.1",
            "STELE_DICOM__PROXIES": '["127.0.0.1/32"]',
            "STELE_DICOM__ANY_CALLING_AE": "true",
            "STELE_DICOM__WORKERS": "1",
            "STELE_HTTP__HOST": "127.0.0.1",
            "STELE_HTTP__PROXIES": '["127.0.0.1/32"]',
        }
        self.units: dict[str, Unit] = {}

    @property
    def node(self) -> Node:
        return Node(self.name, "127.0.0.1", self.dicom_port, self.http_port, "0.1.0")

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    def start(self) -> None:
        """Start its units and wait until it is ready."""
        for name, arguments in (
            ("dimse-1", ["dimse"]),
            ("dimse-2", ["dimse"]),
            ("web", ["web", "--with-dimse"]),
            ("worker", ["worker"]),
        ):
            self.start_unit(name, *arguments)
        wait_until(
            lambda: self.ask("/health/ready").startswith("200"), START_SECONDS, f"{self.name} is ready"
        )

    def start_unit(self, name: str, *arguments: str) -> None:
        command = [*DIE_WITH_US, sys.executable, "-m", "node.cli", "serve", *arguments]
        command += ["--data", str(self._folder / name)]
        command += ["--dicom-port", str(self.dicom_port), "--http-port", str(self.http_port)]
        with (self._folder / "log").open("ab") as log:
            process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        self.units[name] = Unit(process)

    def ask(self, path: str) -> str:
        """Status and body of a page, past HAProxy; "" if there is no answer."""
        try:
            answer = direct().get(f"http://127.0.0.1:{self.http_port}{path}", timeout=5)
        except requests.RequestException:
            return ""
        return f"{answer.status_code} {answer.text}"

    def gauge(self) -> int:
        """Open associations, as its metrics tell."""
        wanted = 'stele_associations{state="open"} '
        lines = [line for line in self.ask("/metrics").splitlines() if line.startswith(wanted)]
        return int(float(lines[0].removeprefix(wanted))) if lines else 0

    def close(self) -> None:
        for unit in self.units.values():
            if unit.process.poll() is None:
                unit.process.terminate()
        for unit in self.units.values():
            try:
                unit.process.wait(60)
            except subprocess.TimeoutExpired:
                unit.process.kill()
                unit.process.wait()


@pytest.fixture
def real_nodes(tmp_path: Path, postgres_dsn: str) -> Iterator[tuple[RealNode, RealNode]]:
    """Two nodes of one archive, not started."""
    objects = tmp_path / "objects"
    first, second = (RealNode(name, tmp_path, postgres_dsn, objects) for name in ("n1", "n2"))
    yield first, second
    first.close()
    second.close()


def image(number: int) -> tuple[str, bytes]:
    """A small CT slice: (SOP Instance UID, dataset bytes)."""
    study = corpus.Study(corpus.Person("PHANTOM^CLUSTER", "CLUSTER"), number)
    (ds,) = corpus.ct_series(1, 128, study=study)
    return str(ds.SOPInstanceUID), bytes(Part10Reader().feed(corpus.encode(ds)))


class Sender:
    """A modality that stores some images a second, on associations of some seconds."""

    def __init__(self, port: int, number: int) -> None:
        self._port = port
        self._number = number * 100_000
        self.acknowledged: list[str] = []
        self.failures: list[str] = []
        self.over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self.over.is_set():
            try:
                peer = Peer.associated(self._port, context(1, CT, EXPLICIT), calling="MODALITY")
                for _ in range(40):
                    uid, dataset = image(self._number)
                    self._number += 1
                    status = peer.store(1, uid, [dataset]).status
                    if status != 0:
                        self.failures.append(f"{status:04x}")
                    self.acknowledged.append(uid)
                    self.over.wait(0.05)
                peer.close()
            except (OSError, AssertionError) as error:
                self.failures.append(repr(error))

    def stop(self) -> None:
        self.over.set()
        self._thread.join(60)


def keep_registered(front: Front, node: RealNode) -> tuple[threading.Thread, threading.Event]:
    stop = threading.Event()
    healthy = health_of(f"http://127.0.0.1:{node.http_port}", direct())
    registrar = Registrar(front.client(), front.topology.cluster, node.node, healthy)
    thread = threading.Thread(target=registrar.run, args=(stop,), daemon=True)
    thread.start()
    return thread, stop


def test_a_rolling_restart_fails_no_store(front: Front, real_nodes: tuple[RealNode, RealNode]) -> None:
    """Under load a node joins, the other is drained, stopped, started and given back: nothing fails."""
    first, second = real_nodes
    port = front.topology.ports.dicom
    first.start()
    registrars = [keep_registered(front, first)]
    wait_until(lambda: front.has("n1"), 10, "n1 is in HAProxy's configuration")
    wait_until(lambda: _associates(port), 10, "n1 takes associations")
    senders = [Sender(port, number) for number in (1, 2)]
    try:
        second.start()
        begun = time.monotonic()
        registrars.append(keep_registered(front, second))
        wait_until(lambda: second.gauge() > 0, 10, "n2 takes associations")
        assert time.monotonic() - begun < 10, "associations last some seconds themselves"

        front.etcd.put(registry.drain_key(front.topology.cluster, "n1"), "{}")
        wait_until(lambda: first.gauge() == 0, 60, "n1 has finished what it had")
        for name in ("dimse-1", "dimse-2"):
            assert first.units[name].stop() == 0
            first.start_unit(name, "dimse")
        wait_until(lambda: first.ask("/health/ready").startswith("200"), START_SECONDS, "n1 is ready")
        front.etcd.delete(registry.drain_key(front.topology.cluster, "n1"))
        wait_until(lambda: first.gauge() > 0, 30, "n1 takes associations again")
    finally:
        for sender in senders:
            sender.stop()
        for thread, stop in registrars:
            stop.set()
            thread.join(15)
    assert [sender.failures for sender in senders] == [[], []], first.log[-3000:] + second.log[-3000:]
    acknowledged = [uid for sender in senders for uid in sender.acknowledged]
    assert len(acknowledged) > 100
    print(f"{len(acknowledged)} stored")
    received, status = get(port, [Meta(CT, uid, EXPLICIT) for uid in acknowledged])
    assert status.Status == 0
    assert set(received) == set(acknowledged)


def _associates(port: int) -> bool:
    try:
        Peer.associated(port, context(1, CT, EXPLICIT)).close()
    except (OSError, AssertionError):
        return False
    return True


def test_units_of_one_node_are_ready_and_counted_together(real_nodes: tuple[RealNode, RealNode]) -> None:
    node, _ = real_nodes
    node.environment["STELE_DICOM__PROXIES"] = "[]"
    node.start()
    peers = [Peer.associated(node.dicom_port, context(1, CT, EXPLICIT)) for _ in range(6)]
    wait_until(lambda: node.gauge() == 6, 5, "associations of both DIMSE units are counted")
    for name in ("dimse-1", "dimse-2"):
        node.units[name].process.kill()  # its child ends, too, and nobody is left to count it out
        node.units[name].process.wait()
    for peer in peers:
        peer.close()
    wait_until(lambda: node.ask("/health/ready").startswith("503"), 30, "no DICOM port, not ready")
    for name in ("dimse-1", "dimse-2"):
        node.start_unit(name, "dimse")
    wait_until(lambda: node.ask("/health/ready").startswith("200"), START_SECONDS, "ready again")
    wait_until(lambda: node.gauge() == 0, 10, "associations of dead processes are forgotten")
