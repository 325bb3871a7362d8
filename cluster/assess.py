"""What is wrong with a cluster, from what was observed. Plain values in, sentences out."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from cluster import quorum
from cluster.backups import OVERDUE
from cluster.observe import Observed
from cluster.topology import Topology

SOON = timedelta(days=30)
HOUR = timedelta(hours=1)
_LAG_BYTES = 16 << 20


def troubles(topology: Topology, seen: Observed, now: datetime) -> tuple[str, ...]:
    """One sentence for each thing that an operator should look at; empty if all is well."""
    found = (_etcd, _postgres, _ceph, _front, _nodes)
    told = [sentence for part in found for sentence in part(topology, seen)]
    return (*told, *_backups(seen, now), *_certificates(seen, now))


def _etcd(_topology: Topology, seen: Observed) -> Iterator[str]:
    for name, status in seen.etcd.items():
        if status is None:
            yield f"etcd: {name} does not answer"
        elif status.errors:
            yield f"etcd: {name} says {', '.join(status.errors)}"
    if not any(status.leader for status in seen.etcd.values() if status):
        yield "etcd: no leader"


def _postgres(topology: Topology, seen: Observed) -> Iterator[str]:
    if seen.members is None:
        yield "postgres: no Patroni answers"
        return
    if not any(member.leads for member in seen.members):
        yield "postgres: no primary, so nothing can be stored"
    wanted = quorum.synchronous_standbys(len(topology.on("postgres")))
    standbys = sum(member.follows for member in seen.members)
    if standbys < wanted:
        yield f"postgres: {standbys} standbys follow, {wanted} needed, so nothing can be stored"
    known = {member.name for member in seen.members}
    for host in topology.on("postgres"):
        if host.name not in known:
            yield f"postgres: {host.name} is no member"
    for member in seen.members:
        if not (member.leads or member.follows):
            yield f"postgres: {member.name} is {member.role}, {member.state}"
        elif (member.lag or 0) > _LAG_BYTES:
            yield f"postgres: {member.name} is {(member.lag or 0) >> 20} MiB behind"


def _ceph(topology: Topology, seen: Observed) -> Iterator[str]:
    if seen.ceph is None:
        yield f"ceph: no answer: {seen.ceph_trouble}"
        return
    for host in topology.on("ceph-mon"):
        if host.name not in seen.ceph.monitors_up:
            yield f"ceph: monitor {host.name} is not in the quorum"
    if seen.ceph.health != "HEALTH_OK":
        yield f"ceph: {seen.ceph.health}: {'; '.join(seen.ceph.checks)}"


def _front(_topology: Topology, seen: Observed) -> Iterator[str]:
    for name, up in seen.haproxies.items():
        if not up:
            yield f"haproxy: {name} does not answer"
    if seen.holder is None:
        yield "virtual IP: nobody answers there"


def _nodes(topology: Topology, seen: Observed) -> Iterator[str]:
    if seen.nodes is None:
        return  # etcd's trouble, told already
    names = {node.name for node in seen.nodes}
    for host in topology.on("node"):
        if host.name not in names:
            yield f"node: {host.name} is not registered"
    for node in seen.nodes:
        if node.draining:
            yield f"node: {node.name} is draining"
    if len(versions := {node.version for node in seen.nodes}) > 1:
        yield f"node: different versions run: {', '.join(sorted(versions))}"


def _backups(seen: Observed, now: datetime) -> Iterator[str]:
    if seen.backups_trouble:
        yield f"backup: {seen.backups_trouble}"
    elif seen.backups is not None and not seen.backups:
        yield "backup: there is none"
    elif seen.backups:
        age = now - max(each.at for each in seen.backups)
        if age > OVERDUE:
            yield f"backup: the last one ended {age // HOUR} hours ago"


def _certificates(seen: Observed, now: datetime) -> Iterator[str]:
    for each in seen.certificates:
        if each.ends is not None and each.ends - now < SOON:
            days = (each.ends - now).days
            yield f"certificate: {each.service} of {each.host} ends in {days} days ({each.ends:%Y-%m-%d})"
