"""What may fail: which tiers still work when some hosts are down. Pure; plain values in, verdicts out.

The invariant behind every number here: whatever was acknowledged before a failure is known to whoever
decides after it. So a tier works only while enough members are up for any two deciding groups to overlap.

* etcd and Ceph's monitors decide by majority: `n // 2 + 1` of n members.
* PostgreSQL commits on the primary and `s = (n - 1) // 2` of its `n - 1` standbys (quorum commit). After the
  primary's loss a standby may be promoted only when it sees `n - s` members' positions, one of which is then
  sure to have every acknowledged transaction; strict mode takes no writes without a standby. Both come to
  `n - s`, which is a majority, too. Its leader lease needs etcd.
* A placement group takes writes while `min_size` of its `k + m` shards are up. Which hosts it lies on is
  CRUSH's choice, so the verdict is about the worst group: the one that lies on all the hosts that failed.
* Nodes, HAProxy (with keepalived) and managers have no state: one is enough.

A tier that an image's way does not touch (monitoring, backup) may be down without anybody's noticing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from cluster.topology import Erasure, Topology

SERVING = ("haproxy", "node", "etcd", "postgres", "ceph-mon", "ceph-mgr", "ceph-osd")
_ONE_IS_ENOUGH = ("haproxy", "node", "ceph-mgr")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a tier works: so many members up of so many, and how many it needs."""

    tier: str
    members: int
    up: int
    needs: int

    @property
    def works(self) -> bool:
        """Whether images are stored and read as far as this tier is concerned."""
        return self.up >= self.needs


def majority(members: int) -> int:
    """The smallest number of members of which any two groups overlap."""
    return members // 2 + 1


def synchronous_standbys(members: int) -> int:
    """On how many standbys a commit waits, of a PostgreSQL cluster with so many members."""
    return (members - 1) // 2


def needed(tier: str, members: int, erasure: Erasure) -> int:
    """How many of a tier's members must be up."""
    if tier in _ONE_IS_ENOUGH:
        return 1
    if tier == "ceph-osd":
        return members - tolerated_osd_hosts(erasure)
    if tier == "postgres":
        return members - synchronous_standbys(members)
    return majority(members)


def tolerated_osd_hosts(erasure: Erasure) -> int:
    """How many OSD hosts may be down at once before the worst placement group stops."""
    return (erasure.k + erasure.m - erasure.min_size) // erasure.shards_per_host


def shards_up(erasure: Erasure, hosts_down: int, osds_down: int = 0) -> int:
    """Shards of the worst placement group that are up; `osds_down` are further disks on hosts that are up."""
    shards = erasure.k + erasure.m
    return max(0, shards - min(hosts_down, erasure.hosts) * erasure.shards_per_host - osds_down)


def verdicts(topology: Topology, down: Iterable[str] = ()) -> tuple[Verdict, ...]:
    """Each serving tier's verdict while the hosts named `down` are."""
    gone = frozenset(down)
    result = []
    for tier in SERVING:
        members = topology.on(tier)
        up = sum(host.name not in gone for host in members)
        result.append(Verdict(tier, len(members), up, needed(tier, len(members), topology.erasure)))
    return tuple(result)


def works(topology: Topology, down: Iterable[str] = ()) -> bool:
    """Whether images are still stored and read while the hosts named `down` are."""
    return all(verdict.works for verdict in verdicts(topology, down))


def tolerance(topology: Topology) -> int:
    """The largest number such that any so many hosts may be down at once."""
    return min(verdict.members - verdict.needs for verdict in verdicts(topology))


def may_also_fail(topology: Topology, down: Iterable[str] = ()) -> tuple[str, ...]:
    """The hosts of which any one may go down, too, while those named `down` are."""
    gone = frozenset(down)
    return tuple(
        host.name for host in topology.hosts if host.name not in gone and works(topology, gone | {host.name})
    )


def fatal_sets(topology: Topology, size: int) -> tuple[frozenset[str], ...]:
    """Sets of `size` hosts whose loss stops the archive though that of no smaller part of them does."""
    found: list[frozenset[str]] = []
    names = [host.name for host in topology.hosts]
    for count in range(1, size + 1):
        for chosen in combinations(names, count):
            down = frozenset(chosen)
            if not any(smaller <= down for smaller in found) and not works(topology, down):
                found.append(down)
    return tuple(each for each in found if len(each) == size)
