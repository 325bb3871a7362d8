"""`stele-cluster topology --explain`: what may fail, in sentences. Pure."""

from collections.abc import Iterator

from cluster import quorum
from cluster.topology import Topology

_NAMES = {
    "haproxy": "HAProxy and virtual IP",
    "node": "nodes",
    "etcd": "etcd",
    "postgres": "PostgreSQL",
    "ceph-mon": "Ceph monitors",
    "ceph-mgr": "Ceph managers",
    "ceph-osd": "hosts with OSDs",
}
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
_SHOWN = 12  # of many equal sentences


def explain(topology: Topology) -> str:
    """What may fail in this cluster, per tier and in all, and what after that; lines of text."""
    return "\n".join(_lines(topology)) + "\n"


def _lines(topology: Topology) -> Iterator[str]:
    may = quorum.tolerance(topology)
    yield f"{topology.cluster}: {len(topology.hosts)} hosts, {topology.erasure.name} erasure coding"
    yield ""
    yield f"In all: any {_hosts(may)} may fail at once, and images go on being stored and read."
    yield from _fatal(topology, may + 1)
    yield ""
    yield "By tier:"
    for verdict in quorum.verdicts(topology):
        spare = verdict.members - verdict.needs
        yield (
            f"  {_NAMES[verdict.tier]}: {verdict.members}, of which {verdict.needs} must be up: "
            f"any {_number(spare)} may fail"
        )
    yield f"  OSDs: {_osds(topology)}"
    yield ""
    yield "Then, while one host is down:"
    for host in topology.hosts[:_SHOWN]:
        yield f"  without {host.name}: {_then(topology, host.name)}"
    if len(topology.hosts) > _SHOWN:
        yield f"  and so on for {len(topology.hosts) - _SHOWN} more"
    yield from _side(topology)


def _fatal(topology: Topology, size: int) -> Iterator[str]:
    fatal = quorum.fatal_sets(topology, size)
    for down in fatal[:_SHOWN]:
        names = [host.name for host in topology.hosts if host.name in down]
        stopped = [_told(verdict) for verdict in quorum.verdicts(topology, down) if not verdict.works]
        yield f"  {' and '.join(names)} together stop it: {'; '.join(stopped)}"
    if len(fatal) > _SHOWN:
        yield f"  and so do {len(fatal) - _SHOWN} other sets of {_number(size)}"


def _told(verdict: quorum.Verdict) -> str:
    return f"{_NAMES[verdict.tier]} {verdict.up} of {verdict.members} up, {verdict.needs} needed"


def _then(topology: Topology, down: str) -> str:
    more = quorum.may_also_fail(topology, {down})
    others = len(topology.hosts) - 1
    if not quorum.works(topology, {down}):
        return "it has stopped already"
    if not more:
        return "no other may fail until it is back"
    if len(more) == others:
        return "any other may fail, too"
    return f"one of {', '.join(more)} may fail, too"


def _osds(topology: Topology) -> str:
    erasure = topology.erasure
    spare = erasure.k + erasure.m - erasure.min_size
    down = quorum.tolerated_osd_hosts(erasure)
    left = quorum.shards_up(erasure, down) - erasure.min_size
    return (
        f"any {_number(spare)} may fail, or with {_hosts(down)} down {_number(left)} more; "
        f"reads and writes need {erasure.min_size} of {erasure.k + erasure.m} shards, "
        f"and no object is lost before {erasure.m + 1} are"
    )


def _side(topology: Topology) -> Iterator[str]:
    yield ""
    watchers = topology.on("monitoring")
    names = " and ".join(host.name for host in watchers)
    yield f"Nobody is alarmed while {names} {_are(len(watchers))} down."
    backup = topology.on("backup")
    if backup:
        yield f"While {backup[0].name} is down no transaction log is archived; it is kept and archived later."
        if {"postgres", "ceph-osd"} & backup[0].tiers:
            name = backup[0].name
            yield f"{name} keeps the backups and serves as well: they help against mistakes, not a fire."
    else:
        yield "No host keeps backups (tier backup): what is lost by mistake, or everywhere at once, is gone."


def _are(count: int) -> str:
    return "is" if count == 1 else "are all"


def _number(count: int) -> str:
    return _NUMBERS[count] if count < len(_NUMBERS) else str(count)


def _hosts(count: int) -> str:
    return f"{_number(count)} host" if count == 1 else f"{_number(count)} hosts"
