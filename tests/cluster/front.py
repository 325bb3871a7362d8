"""An etcd, a HAProxy, the agent beside it, and stand-in nodes with their registrars, for tests."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.agent import Agent
from cluster.etcd import Etcd
from cluster.haproxy import Haproxy
from cluster.parse import parse
from cluster.register import Registrar, health_of
from cluster.render import haproxy as haproxy_text
from cluster.tls import plain
from cluster.topology import Topology
from tests.cluster.example import three_hosts
from tests.cluster.servers import EtcdServers, HaproxyServer, Pki, server_port
from tests.cluster.standin import StandIn


def loopback_mapping(etcd_port: int = 2379) -> dict[str, Any]:
    """Three hosts on loopback with free ports; where their nodes should be, nobody listens."""
    names = ("dicom", "dicom_tls", "https", "http", "node_dicom", "node_http", "haproxy_internal")
    ports = {name: server_port() for name in (*names, "haproxy_alive", "agent", "register")}
    mapping = three_hosts(
        interface="lo",
        virtual_ip="127.0.0.100/8",
        connections=500,  # a test may open fewer files
        ports={**ports, "etcd_client": etcd_port},
    )
    for number, host in enumerate(mapping["hosts"].values(), 1):
        host["address"] = f"127.0.0.{number}"
    return mapping


class Front:
    """The running whole. `topology.ports` are where clients go."""

    def __init__(self, etcd_servers: EtcdServers, haproxy: HaproxyServer, pki: Pki) -> None:
        self.servers = etcd_servers
        self.haproxy = haproxy
        self.pki = pki
        self.topology: Topology = parse(loopback_mapping())
        self.etcd = self.client()
        self._stop = threading.Event()
        self._registrars: dict[str, tuple[threading.Thread, threading.Event]] = {}
        self._agent: threading.Thread | None = None

    def client(self) -> Etcd:
        return Etcd(self.servers.endpoints, self.pki.identity.session())

    def start(self) -> None:
        host = self.topology.hosts[0]
        nodes = haproxy_text.nodes_of(self.topology)
        self.haproxy.start(haproxy_text.config(self.topology, host, nodes, self.haproxy.places))
        self.start_agent()

    def start_agent(self) -> None:
        places = self.haproxy.places
        agent = Agent(self.topology, self.topology.hosts[0], self.client(), Haproxy(places), places)
        self._stop = threading.Event()
        self._agent = threading.Thread(target=agent.run, args=(self._stop,), daemon=True)
        self._agent.start()

    def stop_agent(self) -> None:
        """Stop the agent as systemd would."""
        self._stop.set()
        if self._agent is not None:
            self._agent.join(15)

    def register(self, standin: StandIn) -> None:
        """Start the registrar of a stand-in."""
        stop = threading.Event()
        healthy = health_of(standin.base_url, plain())
        registrar = Registrar(self.client(), self.topology.cluster, standin.node, healthy)
        thread = threading.Thread(target=registrar.run, args=(stop,), daemon=True)
        thread.start()
        self._registrars[standin.name] = (thread, stop)

    def unregister(self, name: str) -> None:
        """Stop a registrar as systemd would."""
        thread, stop = self._registrars.pop(name)
        stop.set()
        thread.join(15)

    def config(self) -> str:
        return Path(self.haproxy.places.haproxy_config).read_text()

    def has(self, name: str) -> bool:
        """Whether HAProxy's configuration has a node."""
        return f"server {name} " in self.config()

    def close(self) -> None:
        self.stop_agent()
        for name in list(self._registrars):
            self.unregister(name)


@contextmanager
def running_front(etcd_servers: EtcdServers, haproxy: HaproxyServer, pki: Pki) -> Iterator[Front]:
    """A Front, started; stopped at the end."""
    front = Front(etcd_servers, haproxy, pki)
    try:
        front.start()
        yield front
    finally:
        front.close()
