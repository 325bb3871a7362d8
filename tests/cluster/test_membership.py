"""Hosts that come and go: what is refused, and what the cluster is told, for each way it can stand."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cluster import membership
from cluster.members import Members, Osd, Voter
from cluster.membership import Plan
from cluster.parse import parse
from cluster.topology import GIB, Topology
from tests.cluster.example import three_hosts, topology


def voter(name: str, answers: bool = True, **more: Any) -> Voter:
    values = {
        "number": f"f{name}",
        "address": f"198.18.0.1{'abcd'.index(name) + 1}",
        "learner": False,
        **more,
    }
    return Voter(name=name, answers=answers, **values)


def osd(number: int, host: str, up: bool = True, size: int = 100 * GIB, used: int = 30 * GIB) -> Osd:
    return Osd(number, host, up, size, used)


def has(*numbers: int) -> frozenset[str]:
    """What is on a host's disks that runs all there is, with these OSDs."""
    return frozenset({"etcd", "ceph-mon", *(f"osd.{number}" for number in numbers)})


WELL = Members(
    data={"a": has(0, 1), "b": has(2, 3), "c": has(4, 5)},
    etcd=tuple(voter(name) for name in "abc"),
    monitors=frozenset("abc"),
    quorum=frozenset("abc"),
    osds=tuple(osd(number, "abc"[number // 2]) for number in range(6)),
    groups={"active+clean": 64},
    profile="3+3",
    postgres={"a": "Quorum Standby", "b": "Leader", "c": "Quorum Standby"},
)
C_IS_DEAD = replace(
    WELL,
    etcd=(voter("a"), voter("b"), voter("c", answers=False)),
    quorum=frozenset("ab"),
    osds=tuple(replace(each, up=each.host != "c") for each in WELL.osds),
    groups={"active+undersized+degraded": 64},
    postgres={"a": "Quorum Standby", "b": "Leader"},
)
C_IS_BARE = replace(C_IS_DEAD, data={**WELL.data, "c": frozenset()})
D_IS_NEW = replace(WELL, data={**WELL.data, "d": frozenset()})


def with_hosts(names: str, voters: str = "abc") -> Topology:
    """Hosts with these names, all with every tier but etcd and monitors, which are on `voters`."""
    mapping = three_hosts()
    one = mapping["hosts"]["a"]
    mapping["hosts"] = {}
    for name in names:
        tiers = ["postgres", "ceph-mgr", "ceph-osd", "node", "haproxy", "monitoring"]
        tiers += ["etcd", "ceph-mon"] if name in voters else []
        address = f"198.18.0.1{'abcd'.index(name) + 1}"
        mapping["hosts"][name] = {**one, "address": address, "tiers": tiers}
    return parse(mapping)


def purges(*numbers: int) -> tuple[tuple[str, ...], ...]:
    return tuple(("osd", "purge", str(number), "--yes-i-really-mean-it") for number in numbers)


# --- Replacing -----------------------------------------------------------------------------------


def test_a_bare_host_of_the_same_name_takes_a_dead_ones_place() -> None:
    plan = membership.replace(topology(), C_IS_BARE, "c", "c")
    assert plan == Plan(
        objections=(),
        joining=("c",),
        etcd=(("member", "remove", "fc"), ("del", "/stele/example/drains/c")),
        ceph=purges(4, 5),
    ), "the monitor keeps its name, and hears of everything from the others"


def test_a_bare_host_of_another_name_takes_a_dead_ones_place() -> None:
    seen = replace(C_IS_DEAD, data={"a": has(0, 1), "b": has(2, 3), "d": frozenset()})
    plan = membership.replace(with_hosts("abd", "abd"), seen, "d", "c")
    assert plan.objections == ()
    assert plan.joining == ("d",)
    assert plan.etcd[0] == ("member", "remove", "fc")
    assert plan.ceph == (
        *purges(4, 5),
        ("mon", "remove", "c"),
        ("osd", "crush", "remove", "c"),
        ("auth", "rm", "mgr.c"),
    )


def test_what_the_new_host_has_become_already_is_not_taken_for_the_dead_ones() -> None:
    """Broken off in between and run again: a voter with data, one OSD made (6) and one not."""
    halfway = replace(
        C_IS_BARE,
        data={**WELL.data, "c": has(6)},
        etcd=WELL.etcd,
        quorum=WELL.quorum,
        osds=(*C_IS_BARE.osds, osd(6, "c")),
    )
    plan = membership.replace(topology(), halfway, "c", "c")
    assert plan.objections == ()
    assert plan.etcd == (("del", "/stele/example/drains/c"),)
    assert plan.ceph == purges(4, 5)
    learning = replace(halfway, etcd=(*WELL.etcd[:2], voter("c", learner=True)))
    assert membership.replace(topology(), learning, "c", "c").joining == ("c",), "it does not vote yet"
    done = replace(halfway, osds=tuple(each for each in halfway.osds if each.number not in (4, 5)))
    assert membership.replace(topology(), done, "c", "c") == Plan((), etcd=plan.etcd)


def test_an_attempt_to_join_that_never_started_is_no_voter() -> None:
    unstarted = Voter("f0", "", "198.18.0.13", learner=True, answers=False)
    seen = replace(C_IS_BARE, etcd=(*C_IS_BARE.etcd[:2], unstarted))
    assert membership.replace(topology(), seen, "c", "c").objections == ()


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (replace(C_IS_BARE, etcd=WELL.etcd), "etcd: c answers; a host that lives is not replaced"),
        (replace(C_IS_BARE, osds=WELL.osds), "ceph: OSDs of c are up (4, 5); a host that lives"),
        (
            replace(C_IS_BARE, quorum=WELL.quorum),
            "ceph: the monitor of c is in the quorum; a host",
        ),
        (
            replace(C_IS_BARE, etcd=(voter("a"), *(voter(name, answers=False) for name in "bc"))),
            "etcd: without c, 1 of 3 voters answer and 2 must",
        ),
        (replace(C_IS_BARE, quorum=frozenset("a")), "ceph: without c, 1 of 3 voters answer and 2 must"),
        (
            replace(C_IS_BARE, groups={"active+clean": 60, "down": 4}),
            "ceph: 4 placement groups are down; mend them: a host that left may be needed",
        ),
        (
            replace(C_IS_BARE, groups={"active+recovery_unfound+degraded": 1}),
            "ceph: 1 placement groups are active+recovery_unfound+degraded; mend them",
        ),
        (replace(C_IS_BARE, profile="4+2"), "ceph: objects are cut up as 4+2, which cannot be changed"),
        (replace(C_IS_BARE, profile=""), "ceph: there is no pool of objects; deploy with site.yml first"),
        (replace(C_IS_BARE, postgres={"a": "Replica"}), "postgres: no primary"),
        (replace(C_IS_BARE, data={**C_IS_BARE.data, "b": frozenset()}), "b: has no data, too"),
    ],
)
def test_what_would_harm_is_not_replaced(seen: Members, told: str) -> None:
    assert told in "\n".join(membership.replace(topology(), seen, "c", "c").objections)


def test_the_inventory_has_the_new_host_in_the_dead_ones_place() -> None:
    assert (
        "d: no such host in the inventory" in membership.replace(topology(), C_IS_BARE, "d", "c").objections
    )
    told = membership.replace(with_hosts("abcd"), C_IS_BARE, "d", "c").objections
    assert "c: still in the inventory; write d in its place" in told


# --- Adding --------------------------------------------------------------------------------------


def test_a_fourth_host_joins() -> None:
    plan = membership.add(with_hosts("abcd"), D_IS_NEW)
    assert plan == Plan((), joining=("d",))
    there = replace(D_IS_NEW, data={**WELL.data, "d": frozenset({"osd.6"})})
    assert membership.add(with_hosts("abcd"), there) == Plan(()), "again at any time"


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (
            replace(D_IS_NEW, etcd=C_IS_DEAD.etcd),
            "etcd: c does not answer; mend it, or replace it first",
        ),
        (
            replace(D_IS_NEW, data={**D_IS_NEW.data, "c": frozenset()}),
            "etcd: c was a member and has lost its data; use replace_node.yml",
        ),
        (
            replace(D_IS_NEW, osds=(*WELL.osds, osd(6, "d", up=False))),
            "ceph: d had OSDs (6) and has lost them; use replace_node.yml",
        ),
        (
            replace(D_IS_NEW, etcd=WELL.etcd[:2], data={**D_IS_NEW.data, "c": frozenset({"etcd"})}),
            "etcd: c has data, but is no member (any more); install the host anew",
        ),
    ],
)
def test_what_was_lost_is_not_added(seen: Members, told: str) -> None:
    assert told in "\n".join(membership.add(with_hosts("abcd"), seen).objections)


# --- Removing ------------------------------------------------------------------------------------


FOUR = replace(
    WELL,
    osds=(*WELL.osds, osd(6, "d"), osd(7, "d")),
    postgres={**WELL.postgres, "d": "Quorum Standby"},
)


def test_a_fourth_host_leaves_after_its_data() -> None:
    plan = membership.remove(topology(), FOUR, ["d"])
    assert plan == Plan(
        objections=(),
        moves=(("osd", "crush", "reweight", "osd.6", "0"), ("osd", "crush", "reweight", "osd.7", "0")),
        emptied=(6, 7),
        etcd=(("del", "/stele/example/drains/d"),),
        ceph=(*purges(6, 7), ("osd", "crush", "remove", "d"), ("auth", "rm", "mgr.d")),
    )


def test_a_voter_that_leaves_hands_its_vote_on() -> None:
    seen = replace(FOUR, data={"a": has(0, 1), "b": has(2, 3), "d": frozenset({"osd.6", "osd.7"})})
    plan = membership.remove(with_hosts("abd", "abd"), seen, ["c"])
    assert plan.objections == ()
    assert plan.joining == ("d",)
    assert ("member", "remove", "fc") in plan.etcd
    assert ("mon", "remove", "c") in plan.ceph


def test_the_primary_moves_before_its_host_leaves() -> None:
    seen = replace(FOUR, postgres={**dict.fromkeys("abc", "Quorum Standby"), "d": "Leader"})
    assert membership.remove(topology(), seen, ["d"]).promote == "a"
    alone = replace(FOUR, postgres={**dict.fromkeys("abc", "Replica"), "d": "Leader"})
    assert membership.remove(topology(), alone, ["d"]).objections == (
        "postgres: no standby that stays follows the primary, which leaves",
    )


def _down(number: int) -> Callable[[Osd], Osd]:
    return lambda each: replace(each, up=each.number != number)


@pytest.mark.parametrize(
    ("seen", "leaving", "told"),
    [
        (FOUR, "c", "c: still in a tier's group in the inventory; let it be in `leaving` only"),
        (FOUR, "bc", "etcd: without b, c, 1 of 3 voters answer and 2 must; mend others first"),
        (FOUR, "bc", "ceph: without b, c, 1 of 3 voters answer and 2 must"),
        (
            replace(FOUR, osds=tuple(_down(2)(each) for each in FOUR.osds)),
            "d",
            "ceph: osd.2 of b is down; mend it",
        ),
        (
            replace(FOUR, osds=tuple(replace(each, used=70 * GIB) for each in FOUR.osds)),
            "d",
            "ceph: 560 GiB are in use, 510 of them would find room on those that stay, 85% full at most",
        ),
    ],
)
def test_what_is_needed_does_not_leave(seen: Members, leaving: str, told: str) -> None:
    assert told in "\n".join(membership.remove(topology(), seen, leaving).objections)


def test_one_large_host_does_not_make_up_for_small_ones() -> None:
    """A third of what is stored lies on each of three hosts, however large one of them is."""
    sizes = {"a": 1000, "b": 30, "c": 30, "d": 100}
    osds = tuple(replace(each, size=sizes[each.host] * GIB, used=15 * GIB) for each in FOUR.osds)
    told = "\n".join(membership.remove(topology(), replace(FOUR, osds=osds), ["d"]).objections)
    assert told == ""
    fuller = tuple(replace(each, used=20 * GIB) for each in osds)
    told = "\n".join(membership.remove(topology(), replace(FOUR, osds=fuller), ["d"]).objections)
    assert "ceph: 160 GiB are in use, 155 of them would find room" in told
