"""The hosts' firewall: each port of each tier open to those tiers only that talk to it. Pure."""

from collections.abc import Iterable

from cluster.render.text import File, render
from cluster.topology import Host, Topology

EVERYBODY: tuple[str, ...] = ()
_CEPH = ("ceph-mon", "ceph-mgr", "ceph-osd")
_OPERATORS = ("ceph-mon", "haproxy", "node")  # hosts with `stele-cluster`, which asks every tier
CEPH_MONITOR_PORT = 3300
CEPH_DAEMON_PORTS = "6800-7568"  # Ceph's ms_bind_port_min and _max
CEPH_METRICS_PORT = 9283
HOST_METRICS_PORT = 9100
ALERTMANAGER_PEER_PORT = 9094


def openings(topology: Topology, host: Host) -> list[tuple[str, tuple[str, ...]]]:
    """What a host's tiers listen on: TCP port or range, and the tiers that may come (EVERYBODY: anyone)."""
    ports = topology.ports
    table: dict[str, list[tuple[object, tuple[str, ...]]]] = {
        "etcd": [
            (ports.etcd_client, ("etcd", "postgres", "monitoring", *_OPERATORS)),
            (ports.etcd_peer, ("etcd",)),
        ],
        "postgres": [
            (ports.postgres, ("postgres", "node")),
            (ports.patroni, ("postgres", "monitoring", *_OPERATORS)),
            (ports.backup, ("backup",)),
        ],
        "backup": [(ports.backup, ("postgres",))],
        "ceph-mon": [(CEPH_MONITOR_PORT, (*_CEPH, "node"))],
        "ceph-mgr": [(CEPH_DAEMON_PORTS, (*_CEPH, "node")), (CEPH_METRICS_PORT, ("monitoring",))],
        "ceph-osd": [(CEPH_DAEMON_PORTS, (*_CEPH, "node"))],
        "node": [
            (ports.node_dicom, ("haproxy",)),
            (ports.node_http, ("haproxy", "monitoring")),
            (ports.register, ("monitoring",)),
        ],
        "haproxy": [
            *((port, EVERYBODY) for port in (ports.dicom, ports.dicom_tls, ports.https, ports.http) if port),
            (ports.haproxy_internal, ("monitoring", *_OPERATORS)),
            (ports.agent, ("monitoring",)),
        ],
        "monitoring": [
            (ports.prometheus, ("monitoring",)),
            (ports.alertmanager, ("monitoring",)),
            (ALERTMANAGER_PEER_PORT, ("monitoring",)),
        ],
    }
    opened: dict[str, tuple[str, ...]] = {str(HOST_METRICS_PORT): ("monitoring",)}
    for tier in sorted(host.tiers):
        for port, callers in table[tier]:
            opened[str(port)] = (*opened.get(str(port), ()), *callers)
    return sorted(opened.items())


def files(topology: Topology, host: Host) -> tuple[File, ...]:
    """nftables' rules. SSH stays open: who may log in is for the site's own rules."""
    family = "ip6" if ":" in host.address else "ip"
    rules = [(port, sorted(_addresses(topology, callers))) for port, callers in openings(topology, host)]
    text = render(
        "nftables.conf.j2",
        family=family,
        rules=rules,
        vrrp=[each.address for each in topology.on("haproxy") if "haproxy" in host.tiers and each != host],
    )
    return (File("/etc/nftables.conf", text, "host", mode="0755", reloads=("nftables",)),)


def _addresses(topology: Topology, tiers: Iterable[str]) -> set[str]:
    """Addresses of the tiers' hosts, and the virtual IP where a load balancer may speak from it."""
    found = {host.address for tier in tiers for host in topology.on(tier)}
    return found | {topology.virtual_ip} if "haproxy" in tiers else found
