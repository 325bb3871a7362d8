"""Hosts that come and go: whether they may, and what the cluster has to be told. Pure.

The invariant: no step takes away what is still needed. So what answers is never forgotten; whoever is
forgotten has left enough others to decide, and placement groups that all serve; and a host gets a vote, or
data, as a new member only, never as the one whose data it has lost (etcd and Ceph would take it at its word).

A member without data on its host is dead, whatever its name: that tells the remains of a lost host from what
its successor of the same name has become already, so that each step can be taken again.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cluster import quorum, registry
from cluster.members import FOLLOWING, Members, Osd, Voter
from cluster.topology import Host, Topology

NEARLY_FULL = 0.85  # of an OSD's size: Ceph's mon_osd_nearfull_ratio, as it is rendered
_STUCK = ("recovery_unfound", "backfill_unfound")

Arguments = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, if there are no `objections`.

    `joining`: hosts that become members in some tier. `moves`: arguments of `ceph` after which data leave
    OSDs; `emptied`: these OSDs. `promote`: the standby to make the primary first, if any. `etcd`, `ceph`:
    arguments of etcdctl and ceph by which members are forgotten.
    """

    objections: tuple[str, ...]
    joining: tuple[str, ...] = ()
    moves: tuple[Arguments, ...] = ()
    emptied: tuple[int, ...] = ()
    promote: str = ""
    etcd: tuple[Arguments, ...] = ()
    ceph: tuple[Arguments, ...] = ()


def joining(topology: Topology, members: Members) -> tuple[str, ...]:
    """The hosts that still have to become members: of etcd, or of Ceph with any OSD."""
    learners = {voter.name for voter in members.etcd if voter.learner}

    def is_new(host: Host) -> bool:
        voteless = "etcd" in host.tiers and (not members.has(host.name, "etcd") or host.name in learners)
        return voteless or ("ceph-osd" in host.tiers and not members.has_osds(host.name))

    return tuple(host.name for host in topology.hosts if is_new(host))


# --- A host comes --------------------------------------------------------------------------------


def add(topology: Topology, members: Members) -> Plan:
    """Hosts of the topology that are no members yet become some; all others have to be well."""
    new = joining(topology, members)
    objections = (*_unfit(topology, members), *_dead(members, new), *_known_already(topology, members, new))
    return Plan(tuple(objections), joining=new)


def _dead(members: Members, new: Iterable[str]) -> Iterator[str]:
    for voter in members.etcd:
        if voter.name and voter.name not in new and not voter.answers:
            yield f"etcd: {voter.name} does not answer; mend it, or replace it first"


def _known_already(topology: Topology, members: Members, new: Iterable[str]) -> Iterator[str]:
    for name in new:
        voter = next((each for each in members.etcd if each.name == name), None)
        if voter and not members.has(name, "etcd"):
            yield f"etcd: {name} was a member and has lost its data; use replace_node.yml"
        if not voter and members.has(name, "etcd"):
            yield f"etcd: {name} has data, but is no member (any more); install the host anew"
        lost = [osd.number for osd in members.osds if osd.host == name]
        if lost and not members.has_osds(name) and "ceph-osd" in topology.host(name).tiers:
            yield f"ceph: {name} had OSDs ({_listed(lost)}) and has lost them; use replace_node.yml"


# --- A host takes a dead one's place ---------------------------------------------------------------


def replace(topology: Topology, members: Members, new: str, dead: str) -> Plan:
    """The host `new` takes the place of `dead`, which may have had the same name."""
    newcomers = joining(topology, members)
    voters = [each for each in members.etcd if each.name == dead and not _is_of(members, new, dead, "etcd")]
    osds = [
        each
        for each in members.osds
        if each.host == dead and not _is_of(members, new, dead, f"osd.{each.number}")
    ]
    objections = [
        *_misnamed(topology, new, dead, newcomers),
        *_unfit(topology, members),
        *_alive(members, new, dead, voters, osds),
        *_outvoted(members, {dead}),
    ]
    ceph = [_purge(osd) for osd in osds]
    if dead != new:
        ceph += _forget_name(members, dead)
    etcd: list[Arguments] = [("member", "remove", each.number) for each in voters]
    etcd.append(("del", registry.drain_key(topology.cluster, dead)))
    return Plan(tuple(objections), joining=newcomers, etcd=tuple(etcd), ceph=tuple(ceph))


def _is_of(members: Members, new: str, dead: str, what: str) -> bool:
    """Whether a member of the dead host's name is the new one already."""
    return new == dead and members.has(new, what)


def _misnamed(topology: Topology, new: str, dead: str, newcomers: Iterable[str]) -> Iterator[str]:
    names = {host.name for host in topology.hosts}
    if new not in names:
        yield f"{new}: no such host in the inventory"
    if dead != new and dead in names:
        yield f"{dead}: still in the inventory; write {new} in its place"
    for name in newcomers:
        if name != new:
            yield f"{name}: has no data, too; one after the other"


def _alive(
    members: Members, new: str, dead: str, voters: Iterable[Voter], osds: Iterable[Osd]
) -> Iterator[str]:
    remedy = "a host that lives is not replaced: switch it off for good"
    if any(each.answers for each in voters):
        yield f"etcd: {dead} answers; {remedy}"
    if up := [each.number for each in osds if each.up]:
        yield f"ceph: OSDs of {dead} are up ({_listed(up)}); {remedy}"
    if dead in members.quorum and not _is_of(members, new, dead, "ceph-mon"):
        yield f"ceph: the monitor of {dead} is in the quorum; {remedy}"


# --- Hosts leave -----------------------------------------------------------------------------------


def remove(topology: Topology, members: Members, leaving: Iterable[str]) -> Plan:
    """Hosts that are not in the topology (any more) leave; data move to the others first."""
    gone = frozenset(leaving)
    osds = [each for each in members.osds if each.host in gone]
    staying = [each for each in members.osds if each.host not in gone]
    objections = [
        *(
            f"{name}: still in a tier's group in the inventory; let it be in `leaving` only"
            for name in sorted(gone & {host.name for host in topology.hosts})
        ),
        *_unfit(topology, members),
        *_outvoted(members, gone),
        *(
            f"ceph: osd.{each.number} of {each.host} is down; mend it first"
            for each in staying
            if not each.up
        ),
        *_overfull(topology, osds, staying),
    ]
    promote = ""
    if members.primary in gone:
        standbys = (n for n, role in sorted(members.postgres.items()) if role in FOLLOWING and n not in gone)
        promote = next(standbys, "")
        if not promote:
            objections.append("postgres: no standby that stays follows the primary, which leaves")
    etcd: list[Arguments] = [("member", "remove", each.number) for each in members.etcd if each.name in gone]
    etcd += [("del", registry.drain_key(topology.cluster, name)) for name in sorted(gone)]
    ceph = [_purge(osd) for osd in osds]
    for name in sorted(gone):
        ceph += _forget_name(members, name)
    return Plan(
        tuple(objections),
        joining=joining(topology, members),
        # Not `out`: the rule chooses hosts first, and a host whose OSDs are only out would still be chosen
        moves=tuple(("osd", "crush", "reweight", f"osd.{each.number}", "0") for each in osds),
        emptied=tuple(each.number for each in osds),
        promote=promote,
        etcd=tuple(etcd),
        ceph=tuple(ceph),
    )


def _overfull(topology: Topology, leaving: Iterable[Osd], staying: Iterable[Osd]) -> Iterator[str]:
    """No placement group has more than its share on one host: large hosts do not make up for small ones."""
    sizes: dict[str, int] = defaultdict(int)
    for osd in staying:
        sizes[osd.host] += osd.size
    used = sum(osd.used for osd in (*leaving, *staying))
    share = used / topology.erasure.hosts
    room = sum(min(size * NEARLY_FULL, share) for size in sizes.values())
    if room < used:
        found = f"{used >> 30} GiB are in use, {int(room) >> 30} of them would find room on those that stay"
        yield f"ceph: {found}, {NEARLY_FULL:.0%} full at most; add disks or a host first"


# --- Of all of them --------------------------------------------------------------------------------


def _unfit(topology: Topology, members: Members) -> Iterator[str]:
    """Why a cluster is in no state to be changed at all."""
    made, wanted = members.profile, topology.erasure.name
    if not made:
        yield "ceph: there is no pool of objects; deploy with site.yml first"
    elif made != wanted:
        reason = f"objects are cut up as {made}, which cannot be changed, but these hosts make it {wanted}"
        yield f"ceph: {reason}; write `erasure: {made}` in stele_topology"
    for state, count in sorted(members.groups.items()):
        parts = state.split("+")
        if "active" not in parts or any(part in _STUCK for part in parts):
            yield f"ceph: {count} placement groups are {state}; mend them: a host that left may be needed"
    if members.primary is None:
        yield "postgres: no primary; see `stele-cluster status`"


def _outvoted(members: Members, gone: Iterable[str]) -> Iterator[str]:
    """A majority of those that vote now has to stay and answer: the change itself is decided by it."""
    away = frozenset(gone)
    voters = [each for each in members.etcd if not each.learner and each.name]
    answering = sum(each.answers and each.name not in away for each in voters)
    in_quorum = len(members.quorum - away)
    for tier, count, total in (("etcd", answering, len(voters)), ("ceph", in_quorum, len(members.monitors))):
        needed = quorum.majority(total)
        if count < needed:
            left = f"without {_listed(sorted(away))}, {count} of {total} voters answer and {needed} must"
            yield f"{tier}: {left}; mend others first, or take hosts away one by one"


def _purge(osd: Osd) -> Arguments:
    return ("osd", "purge", str(osd.number), "--yes-i-really-mean-it")


def _forget_name(members: Members, name: str) -> list[Arguments]:
    """What Ceph keeps under a host's name beside its OSDs; none of it is an error where it is not there."""
    monitor = [("mon", "remove", name)] if name in members.monitors else []
    return [*monitor, ("osd", "crush", "remove", name), ("auth", "rm", f"mgr.{name}")]


def _listed(names: Iterable[object]) -> str:
    return ", ".join(str(name) for name in names)
