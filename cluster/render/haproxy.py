"""HAProxy's configuration, from the topology and the nodes that are registered. Pure.

Health is the node's own readiness. Every node is in four backends: `dicom` and `web` as long as it is ready,
and `dicom_degraded` and `web_degraded` as long as it lives. The latter two serve only while no node at all is
ready (the catalog takes no writes, say): so clients get an honest A700 or 503 for what cannot be stored, and
reads go on, instead of a closed connection.
"""

from collections.abc import Sequence

from cluster.places import PKI_GROUP, PLACES, Places
from cluster.registry import Node
from cluster.render.text import File, endpoint, render
from cluster.topology import Host, Topology

ASSOCIATIONS_PER_WORKER = 100  # the node's own limit, dicom.max_associations
INSPECT_SECONDS = 10  # for the fixed part of an A-ASSOCIATE-RQ to come; the node's own patience


def _weight(node: Node) -> str:
    return " weight 0" if node.draining else ""


def config(topology: Topology, host: Host, nodes: Sequence[Node], places: Places = PLACES) -> str:
    """The whole configuration of the HAProxy on `host`. A draining node gets nothing new (weight 0)."""
    return render(
        "haproxy.cfg.j2",
        topology=topology,
        ports=topology.ports,
        host=host,
        everywhere=":::" if ":" in topology.virtual_ip else "*:",
        own=f"[{host.address}]" if ":" in host.address else host.address,
        nodes=sorted(nodes, key=lambda node: node.name),
        places=places,
        endpoint=endpoint,
        weight=_weight,
        inspect=f"{INSPECT_SECONDS}s",
        connections=topology.connections,
        associations=topology.dimse_workers * ASSOCIATIONS_PER_WORKER,
    )


def nodes_of(topology: Topology) -> tuple[Node, ...]:
    """The nodes as the topology has them, for the time before any has registered."""
    return tuple(
        Node(host.name, host.address, topology.ports.node_dicom, topology.ports.node_http, topology.version)
        for host in topology.on("node")
    )


def files(topology: Topology, host: Host) -> tuple[File, ...]:
    """HAProxy's files and those of the agent beside it."""
    places = PLACES
    values = {"topology": topology, "host": host, "places": places, "pki_group": PKI_GROUP}
    return (
        File(
            "/etc/default/haproxy", render("haproxy.default.j2", **values), "haproxy", restarts=("haproxy",)
        ),
        File(
            "/etc/systemd/system/haproxy.service.d/stele.conf",
            render("haproxy.service.conf.j2", **values),
            "haproxy",
            restarts=("haproxy",),
        ),
        File(
            places.haproxy_config,
            config(topology, host, nodes_of(topology)),
            "haproxy",
            owner="stele-agent",
            group="haproxy",
            mode="0640",
            once=True,
        ),
        File(
            "/etc/systemd/system/stele-agent.service",
            render("stele-agent.service.j2", **values),
            "haproxy",
            restarts=("stele-agent",),
        ),
    )
