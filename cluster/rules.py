"""What no cluster should be built as: rules about a whole topology, each with its reason and its remedy."""

from collections import Counter
from collections.abc import Iterator

from cluster import memory
from cluster.topology import GIB, Problem, Topology

_VOTING = ("etcd", "ceph-mon")
_AT_LEAST = {
    "etcd": 3,
    "postgres": 3,
    "ceph-mon": 3,
    "ceph-mgr": 2,
    "ceph-osd": 3,
    "node": 2,
    "haproxy": 2,
    "monitoring": 1,
}
_WHY = {
    "etcd": "a majority must survive the loss of one",
    "postgres": "writes need a synchronous standby after the loss of one",
    "ceph-mon": "a majority must survive the loss of one",
    "ceph-osd": "no layout on fewer survives the loss of one",
}
_MOST_VOTERS = 7


def broken(topology: Topology) -> list[Problem]:
    """Every rule that the topology breaks."""
    rules = (_counts, _addresses, _ports, _erasure, _disks, _memory, _backup)
    return [problem for rule in rules for problem in rule(topology)]


def _counts(topology: Topology) -> Iterator[Problem]:
    if len(topology.hosts) < 3:
        reason = f"{len(topology.hosts)} hosts cannot outvote a failed one"
        yield Problem("hosts", reason, "use three, or `stele serve` on a single machine")
        return
    for tier, least in _AT_LEAST.items():
        count = len(topology.on(tier))
        if count < least:
            why = _WHY.get(tier, "one must be left when another fails")
            remedy = f"put the tier on {least} hosts or more"
            yield Problem(f"tier {tier}", f"on {count} hosts only, but {why}", remedy)
        elif tier in _VOTING and count % 2 == 0:
            reason = f"{count} voters survive no more failures than {count - 1} and need one more to agree"
            yield Problem(f"tier {tier}", reason, f"list `tiers` so that {count - 1} or {count + 1} have it")
        elif tier in _VOTING and count > _MOST_VOTERS:
            reason = f"{count} voters make every decision slow"
            yield Problem(f"tier {tier}", reason, f"use {_MOST_VOTERS} at most; others need not vote")


def _addresses(topology: Topology) -> Iterator[Problem]:
    for address, count in Counter(host.address for host in topology.hosts).items():
        if count > 1:
            names = ", ".join(host.name for host in topology.hosts if host.address == address)
            yield Problem("hosts", f"{names} share the address {address}", "give each its own")
    for host in topology.hosts:
        if host.address == topology.virtual_ip:
            reason = f"{topology.virtual_ip} is the address of {host.name}"
            yield Problem("virtual_ip", reason, "use a free address of the same network")
        if (":" in host.address) != (":" in topology.virtual_ip):
            reason = f"{host.address} and the virtual IP are of different families"
            yield Problem(f"hosts.{host.name}.address", reason, "use IPv4 or IPv6 for all of them")


def _ports(topology: Topology) -> Iterator[Problem]:
    ports = topology.ports
    names = [name for name in type(ports).__slots__ if getattr(ports, name)]
    for port, count in Counter(getattr(ports, name) for name in names).items():
        if count > 1:
            same = ", ".join(name for name in names if getattr(ports, name) == port)
            yield Problem("ports", f"{same} are all {port}", "give each its own: hosts may run every tier")


def _erasure(topology: Topology) -> Iterator[Problem]:
    erasure, hosts = topology.erasure, topology.on("ceph-osd")
    if len(hosts) < erasure.hosts:
        reason = f"{erasure.name} needs {erasure.hosts} hosts with OSDs, there are {len(hosts)}"
        yield Problem("erasure", reason, "leave it to auto, or add hosts")
    for host in hosts:
        if len(host.osd_devices) < erasure.shards_per_host:
            reason = (
                f"{len(host.osd_devices)} OSDs, but {erasure.name} puts {erasure.shards_per_host} shards here"
            )
            yield Problem(f"hosts.{host.name}.osd_devices", reason, "name as many disks")


def _disks(topology: Topology) -> Iterator[Problem]:
    for host in topology.hosts:
        where = f"hosts.{host.name}.osd_devices"
        if host.osd_devices and "ceph-osd" not in host.tiers:
            yield Problem(where, "disks without the tier ceph-osd", "add the tier or drop the disks")
        if len(set(host.osd_devices)) < len(host.osd_devices):
            yield Problem(where, "a disk is named twice", "name each once")


def _memory(topology: Topology) -> Iterator[Problem]:
    for host in topology.hosts:
        least = memory.least_bytes(host)
        if host.memory_bytes < least:
            reason = f"{host.memory_bytes / GIB:.0f} GiB, but its tiers take {least / GIB:.1f}"
            yield Problem(
                f"hosts.{host.name}.memory_gib", reason, "give it more memory, fewer OSDs or fewer tiers"
            )


def _backup(topology: Topology) -> Iterator[Problem]:
    hosts = topology.on("backup")
    if len(hosts) > 1:
        reason = f"{', '.join(host.name for host in hosts)} would each keep a part of the backups"
        yield Problem("tier backup", reason, "put it on one host")
