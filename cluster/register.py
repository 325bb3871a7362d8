"""The registrar beside each node: it says in etcd that the node is there, as long as it lives.

A process of its own, not an adapter in the node, for two reasons. A node has several processes (DIMSE, web,
worker) of which none is "the node"; who registers should outlive and judge them all. And so the node needs
neither etcd nor knowledge of a cluster, and stays the same on one machine.

A node is registered once it has been ready, and stays registered while it lives, ready or not: who is ready
is for HAProxy's health checks to say, every second. If unready nodes left the registry, a catalog that takes
no writes for half a minute would empty it. When the node's process dies, its lease is not kept alive, and
after LEASE_SECONDS it is gone; a restart within that time changes nothing. At a stop the registration goes at
once.
"""

import threading
from collections.abc import Callable
from dataclasses import replace

import requests
import structlog
from prometheus_client import Counter, Gauge

from cluster import registry
from cluster.etcd import Etcd, Refused, Unavailable
from cluster.registry import Node

LEASE_SECONDS = 10
STEP_SECONDS = 1.0
HEALTH_SECONDS = 2.5  # the node's own patience with a check that hangs, and a little

REGISTERED = Gauge("stele_register_registered", "Whether this node is registered")
DRAINING = Gauge("stele_register_draining", "Whether this node is registered as draining")
FAILURES = Counter("stele_register_failures_total", "Steps in which etcd did not answer")

log = structlog.get_logger()


class Registrar:
    """Registers one node. `step` again and again, `leave` at the end; used by one thread.

    `healthy(path)`: whether the node answers 200 to that health path.
    """

    def __init__(self, etcd: Etcd, cluster: str, node: Node, healthy: Callable[[str], bool]) -> None:
        self._etcd = etcd
        self._key = registry.nodes_prefix(cluster) + node.name
        self._drain_key = registry.drain_key(cluster, node.name)
        self._node = node
        self._healthy = healthy
        self._was_ready = False
        self._lease = 0
        self._written: Node | None = None
        self._away = False

    def run(self, stop: threading.Event) -> None:
        """Keep the node registered until `stop` is set, then take it out."""
        while not stop.is_set():
            self.step()
            stop.wait(STEP_SECONDS)
        self.leave()

    def step(self) -> None:
        """Look at the node and do what its registration needs."""
        if not self._healthy("/health/live"):
            self._was_ready = False  # its lease runs out by itself
            REGISTERED.set(0)
            return
        self._was_ready = self._was_ready or self._healthy("/health/ready")
        if not self._was_ready:
            return
        try:
            self._keep()
        except (Unavailable, Refused) as error:
            FAILURES.inc()
            if not self._away:
                log.warning("etcd does not answer", error=str(error))
            self._away = True
        else:
            self._away = False

    def leave(self) -> None:
        """Take the registration back."""
        if self._lease:
            try:
                self._etcd.revoke(self._lease)
            except Unavailable as error:
                log.warning("not taken out, the lease runs out by itself", error=str(error))
        self._forget()

    def _keep(self) -> None:
        if self._lease and not self._etcd.keep_alive(self._lease):
            log.warning("the lease had ended")
            self._forget()
        if not self._lease:
            self._lease = self._etcd.grant(LEASE_SECONDS)
        node = replace(self._node, draining=self._etcd.get(self._drain_key) is not None)
        if node != self._written:
            self._etcd.put(self._key, registry.encode(node), self._lease)
            log.info("registered", node=node.name, draining=node.draining)
            self._written = node
        REGISTERED.set(1)
        DRAINING.set(node.draining)

    def _forget(self) -> None:
        self._lease = 0
        self._written = None
        REGISTERED.set(0)


def health_of(base_url: str, session: requests.Session) -> Callable[[str], bool]:
    """A `healthy` that asks the node at `base_url`, which listens on this host."""

    def healthy(path: str) -> bool:
        try:
            return session.get(f"{base_url}{path}", timeout=HEALTH_SECONDS).status_code == 200
        except requests.exceptions.RequestException:
            return False

    return healthy
