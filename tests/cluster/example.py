"""Topologies that tests share."""

from typing import Any

from cluster.parse import parse
from cluster.topology import Topology


def three_hosts(**changed: Any) -> dict[str, Any]:
    """The mapping of three hosts that run everything; `changed` replaces top-level values."""
    hosts = {
        name: {"address": f"198.18.0.1{number}", "osd_devices": ["/dev/vdb", "/dev/vdc"]}
        for number, name in enumerate("abc", 1)
    }
    return {
        "cluster": "example",
        "version": "0.1.0",
        "server_name": "pacs.example.org",
        "virtual_ip": "198.18.0.100/24",
        "interface": "host0",
        "hosts": hosts,
        **changed,
    }


def eleven_hosts() -> dict[str, Any]:
    """A larger site: tiers on hosts of their own, backups, DICOM without TLS, IPv6."""
    tiers = {
        "db1": ["etcd", "postgres"],
        "db2": ["etcd", "postgres"],
        "db3": ["etcd", "postgres"],
        "osd1": ["ceph-osd", "ceph-mon", "ceph-mgr"],
        "osd2": ["ceph-osd", "ceph-mon", "ceph-mgr"],
        "osd3": ["ceph-osd", "ceph-mon"],
        "osd4": ["ceph-osd"],
        "osd5": ["ceph-osd"],
        "osd6": ["ceph-osd"],
        "front1": ["node", "haproxy"],
        "front2": ["node", "haproxy", "monitoring", "backup"],
    }
    hosts: dict[str, Any] = {}
    for number, (name, own) in enumerate(tiers.items(), 1):
        hosts[name] = {"address": f"2001:db8::{number}", "tiers": own}
        if "ceph-osd" in own:
            hosts[name]["osd_devices"] = [f"/dev/nvme{disk}n1" for disk in range(4)]
    return {
        "cluster": "large",
        "version": "0.1.0",
        "server_name": "images.example.org",
        "virtual_ip": "2001:db8::100/64",
        "virtual_router_id": 7,
        "interface": "bond0",
        "ae_title": "ARCHIVE",
        "memory_gib": 64,
        "ports": {"dicom": 11112, "node_dicom": 11113, "dicom_tls": 0},
        "watchdog": True,
        "dimse_workers": 4,
        "alert_webhook": "https://alerts.example.org/stele",
        "ceph_options": {"bluestore_block_size": "10737418240"},
        "hosts": hosts,
    }


def topology(mapping: dict[str, Any] | None = None) -> Topology:
    """The topology of a mapping, or of three hosts."""
    return parse(mapping or three_hosts())
