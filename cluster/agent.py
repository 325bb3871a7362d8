"""The agent beside each HAProxy: its configuration follows the nodes that are registered in etcd.

    read the registry ──► decide who serves ──► render ──► check ──► install ──► reload
         ▲                                                                          │
         └────────────── watch, up to RESYNC_SECONDS ◄──────────────────────────────┘

With etcd away nothing changes: HAProxy keeps its last good configuration and its health checks. What is wrong
(a registration that is none, a configuration that HAProxy refuses) is logged and counted, and the last good
state stays. `cluster.serving` says what becomes of an empty registry.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import structlog
from prometheus_client import Counter, Gauge

from cluster import registry
from cluster.etcd import Etcd, Refused, Snapshot, Unavailable
from cluster.haproxy import Haproxy, HaproxyFailed
from cluster.places import Places
from cluster.registry import Node, NotANode
from cluster.render import haproxy as haproxy_text
from cluster.serving import serving
from cluster.topology import Host, Topology

RESYNC_SECONDS = 5.0  # a watch at an endpoint cut off from the others stays silent
PAUSE_SECONDS = 1.0  # between two tries, and at least between two reloads: each leaves an old process behind

RELOADS = Counter("stele_agent_reloads_total", "Reloads of HAProxy", ["result"])
ETCD_UP = Gauge("stele_agent_etcd_up", "Whether the registry could be read lately")
NODES = Gauge("stele_agent_nodes", "Nodes in HAProxy's configuration", ["state"])
KEPT = Gauge("stele_agent_registry_empty", "1 while an empty registry is overruled by the last known nodes")
CURRENT = Gauge("stele_agent_config_current", "Whether HAProxy runs what the registry asks for")
HELD = Gauge("stele_agent_virtual_ip_held", "Whether this host has the virtual IP")

log = structlog.get_logger()


class Agent:
    """Keeps one HAProxy in step. Used by one thread; `stop` may be set by any."""

    def __init__(self, topology: Topology, host: Host, etcd: Etcd, haproxy: Haproxy, places: Places) -> None:
        self._topology = topology
        self._host = host
        self._etcd = etcd
        self._haproxy = haproxy
        self._places = places
        self._prefix = registry.nodes_prefix(topology.cluster)
        self._memory = Path(places.haproxy_config).with_name("nodes.json")
        self._last = self._remembered()
        self._loaded = ""  # the configuration that HAProxy has loaded since this agent runs
        self._told: dict[str, str] = {}

    def run(self, stop: threading.Event) -> None:
        """Follow the registry until `stop` is set."""
        while not stop.is_set():
            loaded = self._loaded
            snapshot = self.follow()
            if snapshot is None or self._loaded != loaded:
                stop.wait(PAUSE_SECONDS)
            if snapshot is None:
                continue
            try:
                self._etcd.watch(self._prefix, snapshot, RESYNC_SECONDS)
            except Unavailable as error:
                log.warning("watch ended", error=str(error))
                stop.wait(PAUSE_SECONDS)

    def follow(self) -> Snapshot | None:
        """Read the registry and bring HAProxy in step; None if the registry cannot be read."""
        try:
            snapshot = self._etcd.prefix(self._prefix)
        except (Unavailable, Refused) as error:
            ETCD_UP.set(0)
            self._tell("etcd", f"registry not read, the last configuration stays: {error}")
            return None
        ETCD_UP.set(1)
        self._tell("etcd", "")
        registered = [node for key, value in snapshot.values.items() if (node := self._node(key, value))]
        KEPT.set(not registered)
        self._tell("registry", "" if registered else "nobody is registered, the last nodes stay")
        self.apply(serving(registered, self._last))
        return snapshot

    def apply(self, nodes: Sequence[Node]) -> None:
        """Give HAProxy these nodes, if it has others."""
        text = haproxy_text.config(self._topology, self._host, nodes, self._places)
        NODES.labels("serving").set(sum(not node.draining for node in nodes))
        NODES.labels("draining").set(sum(node.draining for node in nodes))
        if text == self._loaded == self._haproxy.installed():
            return
        self._remember(nodes)
        begun = time.monotonic()
        try:
            self._haproxy.install(text)
        except HaproxyFailed as error:
            CURRENT.set(0)
            RELOADS.labels("failed").inc()
            self._tell("haproxy", f"configuration not loaded, the last one stays: {error}")
            return
        self._loaded = text
        CURRENT.set(1)
        RELOADS.labels("done").inc()
        self._tell("haproxy", "")
        seconds = round(time.monotonic() - begun, 3)
        names = [f"{node.name}{' (draining)' if node.draining else ''}" for node in nodes]
        log.info("reloaded", nodes=names, seconds=seconds)

    def _node(self, key: str, value: str) -> Node | None:
        try:
            node = registry.decode(key, value)
        except NotANode as error:
            self._tell(key, f"registration ignored: {error}")
            return None
        self._tell(key, "")
        return node

    def _remembered(self) -> tuple[Node, ...]:
        """The nodes of the last configuration, from before a restart; at first, those of the topology."""
        try:
            values = json.loads(self._memory.read_text())
            return tuple(registry.decode(name, value) for name, value in values.items())
        except (OSError, ValueError, AttributeError, NotANode):
            return haproxy_text.nodes_of(self._topology)

    def _remember(self, nodes: Sequence[Node]) -> None:
        self._last = tuple(nodes)
        new = self._memory.with_suffix(".new")
        with new.open("w") as stream:
            json.dump({node.name: registry.encode(node) for node in nodes}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(self._memory)

    def _tell(self, about: str, message: str) -> None:
        """Log a trouble when it begins or changes, not each time that it is met; empty when it is over."""
        if message and self._told.get(about) != message:
            log.warning(message)
        self._told[about] = message


def holds(address: str) -> bool:
    """Whether an IP address is one of this host's: a socket cannot be bound to any other (ip(7))."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as tried:
        try:
            tried.bind((address, 0))
        except OSError:
            return False
    return True
