"""The only owner of configuration text: what each host's files are, from the topology alone. Pure."""

import json
from dataclasses import asdict

from cluster.places import PKI_GROUP, PLACES
from cluster.render import backup, ceph, etcd, firewall, haproxy, keepalived, monitoring, node, postgres
from cluster.render.text import File, render
from cluster.topology import Host, Topology

_READERS = {"haproxy": "stele-agent", "node": "stele-register"}


def files(topology: Topology, host: Host, source: str) -> tuple[File, ...]:
    """Every file of a host, those of each of its tiers.

    `source`: the topology as it was read, which its own services read, too.
    """
    readers = tuple(_READERS[tier] for tier in sorted(host.tiers & _READERS.keys()))
    found = [
        File(PLACES.topology, source, "host", restarts=readers),
        File(
            "/etc/sysusers.d/stele.conf",
            render("stele.sysusers.j2", host=host, pki_group=PKI_GROUP),
            "host",
        ),
        *firewall.files(topology, host),
    ]
    tiers = host.tiers
    if "etcd" in tiers:
        found += etcd.files(topology, host)
    if "postgres" in tiers:
        found += postgres.files(topology, host)
    if "postgres" in tiers or "backup" in tiers:
        found += backup.files(topology, host)
    if tiers & {"ceph-mon", "ceph-mgr", "ceph-osd", "node"}:
        found += ceph.files(topology, host)
    if "node" in tiers:
        found += node.files(topology, host)
    if "haproxy" in tiers:
        found += haproxy.files(topology, host)
        found += keepalived.files(topology, host)
    if "monitoring" in tiers:
        found += monitoring.files(topology, host)
    return tuple(found)


def manifest(found: tuple[File, ...]) -> str:
    """What deployment needs to know about files beside their text: JSON, a list of objects."""
    return (
        json.dumps([{k: v for k, v in asdict(each).items() if k != "text"} for each in found], indent=2)
        + "\n"
    )
