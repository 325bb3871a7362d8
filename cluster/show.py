"""The cluster's state for people (tables in the terminal) and for programs (JSON)."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from cluster.observe import Observed
from cluster.topology import Topology


def as_json(topology: Topology, seen: Observed, troubles: Sequence[str]) -> dict[str, Any]:
    """Everything seen, as plain values."""
    members = seen.members or ()
    values = asdict(seen)
    values["certificates"] = [
        {**asdict(each), "ends": each.ends.isoformat() if each.ends else None} for each in seen.certificates
    ]
    return {
        "cluster": topology.cluster,
        "version": topology.version,
        "primary": next((member.name for member in members if member.leads), None),
        "troubles": list(troubles),
        **values,
    }


def show(
    console: Console, topology: Topology, seen: Observed, troubles: Sequence[str], now: datetime
) -> None:
    """Print a line for each host and each tier, and what is wrong."""
    console.print(Group(_hosts(topology, seen), Text(_ceph(seen)), Text(_certificates(seen, now))))
    if topology.on("backup"):
        console.print(_backups(seen), highlight=False, markup=False)
    for trouble in troubles:
        console.print(trouble, style="red", highlight=False, markup=False, soft_wrap=True)
    if not troubles:
        console.print("all is well", style="green")


def _hosts(topology: Topology, seen: Observed) -> RenderableType:
    table = Table("host", "etcd", "PostgreSQL", "Ceph monitor", "node", "HAProxy", title=topology.cluster)
    for host in topology.hosts:
        name = host.name
        table.add_row(
            name,
            _etcd(seen, name) if "etcd" in host.tiers else "",
            _postgres(seen, name) if "postgres" in host.tiers else "",
            _monitor(seen, name) if "ceph-mon" in host.tiers else "",
            _node(seen, name) if "node" in host.tiers else "",
            _haproxy(seen, name) if "haproxy" in host.tiers else "",
        )
    return table


def _etcd(seen: Observed, name: str) -> str:
    status = seen.etcd.get(name)
    if status is None:
        return "no answer"
    return f"{status.version}{' leader' if status.leader else ''}"


def _postgres(seen: Observed, name: str) -> str:
    member = next((each for each in seen.members or () if each.name == name), None)
    if member is None:
        return "no answer"
    if member.leads:
        return f"primary, timeline {member.timeline}"
    lag = "lag unknown" if member.lag is None else f"{member.lag} bytes behind"
    return f"{member.role.replace('_', ' ')}, {member.state}, {lag}"


def _monitor(seen: Observed, name: str) -> str:
    if seen.ceph is None:
        return "unknown"
    manager = " manager" if seen.ceph.manager == name else ""
    return f"{'in quorum' if name in seen.ceph.monitors_up else 'out of quorum'}{manager}"


def _node(seen: Observed, name: str) -> str:
    if seen.nodes is None:
        return "unknown"
    node = next((each for each in seen.nodes if each.name == name), None)
    if node is None:
        return "not registered"
    count = seen.associations.get(name)
    associations = "" if count is None else f", {count} associations"
    return f"{node.version}{' draining' if node.draining else ''}{associations}"


def _haproxy(seen: Observed, name: str) -> str:
    up = "up" if seen.haproxies.get(name) else "no answer"
    return f"{up}, virtual IP" if seen.holder == name else up


def _ceph(seen: Observed) -> str:
    state = seen.ceph
    if state is None:
        return f"Ceph: no answer: {seen.ceph_trouble}"
    return (
        f"Ceph: {state.health}, {state.osds_up} of {state.osds} OSDs up, "
        f"{state.groups_clean} of {state.groups} placement groups clean, {state.used:.0%} full"
    )


def _backups(seen: Observed) -> str:
    if seen.backups is None:
        return "Backups: not known here"
    if not seen.backups:
        return "Backups: none"
    last = max(seen.backups, key=lambda each: each.ended)
    return f"Backups: {len(seen.backups)}, the last one ({last.kind}) of {last.at:%Y-%m-%d %H:%M} UTC"


def _certificates(seen: Observed, now: datetime) -> str:
    known = [(each.ends, each) for each in seen.certificates if each.ends is not None]
    if not known:
        return "Certificates: none could be looked at"
    ends, first = min(known, key=lambda each: each[0])
    return f"Certificates: the first to end is {first.service} of {first.host}, in {(ends - now).days} days"
