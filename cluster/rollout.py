"""Changing a running cluster host by host: in which order, and whether the next one may go down now. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from cluster import quorum
from cluster.topology import Topology


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about a cluster. None where it could not be found out.

    `down`: hosts of which some tier does not answer. `draining`: nodes that take nothing new. `standbys`: how
    many standbys a commit may count on now. `clean`: whether every placement group has all its shards.
    """

    down: frozenset[str] = frozenset()
    draining: frozenset[str] = frozenset()
    primary: str | None = None
    holder: str | None = None
    standbys: int | None = None
    clean: bool | None = None


def order(topology: Topology, facts: Facts) -> tuple[str, ...]:
    """The hosts in the order in which to change them: who leads in something comes last.

    So each role moves once at most: the virtual IP's holder goes last but one, and PostgreSQL's primary,
    whose move makes writes wait for seconds, last, when all others run the new version. But a host that is
    aside already, down or draining, comes first: a change that broke off there goes on there, and while it
    is aside no other may be.
    """

    def rank(name: str) -> tuple[bool, int]:
        aside = name in facts.down or name in facts.draining
        return not aside, (name == facts.holder) + 2 * (name == facts.primary)

    return tuple(sorted((host.name for host in topology.hosts), key=rank))


def missing(topology: Topology, facts: Facts) -> tuple[str, ...]:
    """What a whole cluster has and this one has not; empty if it is whole. A node that drains is no lack."""
    return tuple(_missing(topology, facts))


def _missing(topology: Topology, facts: Facts) -> Iterator[str]:
    for name in sorted(facts.down):
        yield f"{name}: some tier does not answer"
    if facts.primary is None:
        yield "postgres: no primary"
    standbys = len(topology.on("postgres")) - 1
    if (facts.standbys or 0) < standbys:
        yield f"postgres: {facts.standbys or 'no'} standbys follow, {standbys} there are"
    if facts.clean is not True:
        yield "ceph: not every placement group is known to have all its shards"
    if facts.holder is None:
        yield "virtual IP: nobody answers there"


def objections(topology: Topology, facts: Facts, host: str) -> tuple[str, ...]:
    """Why `host` may not be taken down now; empty if it may."""
    return tuple(_objections(topology, facts, host))


def _objections(topology: Topology, facts: Facts, host: str) -> Iterator[str]:
    down = facts.down | {host}
    others = sorted(facts.down - {host})
    for verdict in quorum.verdicts(topology, down):
        if not verdict.works:
            told = f"{verdict.tier}: {verdict.up} of {verdict.members} would be up, {verdict.needs} needed"
            yield f"{told} ({', '.join(others)} in trouble)" if others else told
    tiers = topology.host(host).tiers
    if "ceph-osd" in tiers and facts.clean is not True:
        yield "ceph: not every placement group is known to have all its shards"
    if "postgres" in tiers and (facts.standbys or 0) <= quorum.synchronous_standbys(
        len(topology.on("postgres"))
    ):
        yield f"postgres: {facts.standbys or 'no'} standbys follow, and one more than a commit waits for must"
    if "node" in tiers and all(
        each.name in facts.draining | down for each in topology.on("node") if each.name != host
    ):
        yield "node: no other takes new work"
