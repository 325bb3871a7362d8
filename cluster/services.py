"""The cluster's two services, wired: the agent beside HAProxy and the registrar beside the node."""

import importlib.metadata
import signal
import threading

from prometheus_client import start_http_server

from cluster import expiry, log
from cluster.agent import HELD, Agent, holds
from cluster.clients import etcd_of, places
from cluster.haproxy import Haproxy
from cluster.register import Registrar, health_of
from cluster.registry import Node
from cluster.render.text import endpoint
from cluster.tls import plain
from cluster.topology import Host, Topology


def run_agent(topology: Topology, host: Host) -> None:
    """Serve as the agent of `host` until SIGTERM."""
    log.set_up()
    HELD.set_function(lambda: holds(topology.virtual_ip))
    start_http_server(topology.ports.agent, host.address)
    where, stop = places(), _until_told()
    threading.Thread(target=expiry.run, args=(topology, stop), name="expiry", daemon=True).start()
    Agent(topology, host, etcd_of(topology), Haproxy(where), where).run(stop)


def run_registrar(topology: Topology, host: Host) -> None:
    """Serve as the registrar of `host` until SIGTERM."""
    log.set_up()
    start_http_server(topology.ports.register, host.address)
    ports = topology.ports
    node = Node(
        host.name, host.address, ports.node_dicom, ports.node_http, importlib.metadata.version("stele")
    )
    loopback = "::1" if ":" in host.address else "127.0.0.1"  # from where the node wants no PROXY header
    healthy = health_of(f"http://{endpoint(loopback, ports.node_http)}", plain())
    Registrar(etcd_of(topology), topology.cluster, node, healthy).run(_until_told())


def _until_told() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    return stop
