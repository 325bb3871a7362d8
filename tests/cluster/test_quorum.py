"""What may fail, against every set of failures tried out one by one."""

from dataclasses import replace
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import quorum
from cluster.explain import explain
from cluster.rollout import Facts, missing, objections, order
from cluster.topology import ERASURES, GIB, Host, Ports, Topology
from tests.cluster.example import eleven_hosts, topology


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Up to nine hosts with tiers at random, as many of each as a cluster needs."""
    count = draw(st.integers(3, 9))
    erasure = draw(st.sampled_from(["3+3", "4+2"] if count >= 6 else ["3+3"]))
    names = [f"h{number}" for number in range(count)]
    tiers: dict[str, set[str]] = {name: {"monitoring"} for name in names}
    least = {"etcd": 3, "ceph-mon": 3, "postgres": 3, "node": 2, "haproxy": 2, "ceph-mgr": 2}
    least["ceph-osd"] = ERASURES[erasure].hosts
    for tier, lowest in least.items():
        sizes = st.integers(lowest, count)
        if tier in ("etcd", "ceph-mon"):
            sizes = sizes.filter(lambda size: size % 2 == 1)
        size = draw(sizes)
        for name in draw(st.permutations(names))[:size]:
            tiers[name].add(tier)
    hosts = tuple(
        Host(name, f"192.0.2.{number}", frozenset(tiers[name]), "eth0", 64 * GIB, ("/dev/a", "/dev/b"))
        for number, name in enumerate(names)
    )
    return Topology("x", "1", hosts, "192.0.2.99", 24, 1, "x", "X", ERASURES[erasure], "", Ports())


def decides(members: int, up: int) -> bool:
    """Whether a group of `up` overlaps every other group that could decide: told without a formula."""
    everybody = range(members)
    group = set(range(up))
    others = [set(other) for other in combinations(everybody, up)]
    return bool(group) and all(group & other for other in others)


def postgres_writes(members: int, up: int) -> bool:
    """Whether an acknowledged commit is surely known to the members that are up, and commits go on.

    A commit is on the primary and `s` standbys, whichever; those that are up must hold it in every case.
    """
    copies = 1 + quorum.synchronous_standbys(members)
    survivors = set(range(up))
    everywhere = all(survivors & set(held) for held in combinations(range(members), copies))
    return everywhere and up >= 2


def worst_group_serves(found: Topology, up: set[str]) -> bool:
    """Whether each choice of hosts that CRUSH could make leaves enough shards."""
    erasure = found.erasure
    osd_hosts = [host.name for host in found.on("ceph-osd")]
    return all(
        sum(erasure.shards_per_host for name in chosen if name in up) >= erasure.min_size
        for chosen in combinations(osd_hosts, erasure.hosts)
    )


def brute(found: Topology, down: set[str]) -> bool:
    """Whether images are stored and read, worked out from what each tier does."""
    up = {host.name for host in found.hosts} - down
    count = {tier: sum(host.name in up for host in found.on(tier)) for tier in quorum.SERVING}
    members = {tier: len(found.on(tier)) for tier in quorum.SERVING}
    return (
        all(count[tier] for tier in ("haproxy", "node", "ceph-mgr"))
        and decides(members["etcd"], count["etcd"])
        and decides(members["ceph-mon"], count["ceph-mon"])
        and postgres_writes(members["postgres"], count["postgres"])
        and worst_group_serves(found, up)
    )


def subsets(found: Topology) -> list[set[str]]:
    names = [host.name for host in found.hosts]
    return [set(each) for size in range(len(names) + 1) for each in combinations(names, size)]


@settings(max_examples=60, deadline=None)
@given(topologies())
def test_verdicts_are_those_of_trying_out_every_failure(found: Topology) -> None:
    for down in subsets(found):
        assert quorum.works(found, down) == brute(found, down), down


@settings(max_examples=60, deadline=None)
@given(topologies())
def test_the_tolerance_is_the_largest_number_of_any_hosts(found: Topology) -> None:
    may = quorum.tolerance(found)
    downs = subsets(found)
    assert all(brute(found, down) for down in downs if len(down) <= may)
    assert not all(brute(found, down) for down in downs if len(down) == may + 1)
    fatal = quorum.fatal_sets(found, may + 1)
    assert set(fatal) == {frozenset(d) for d in downs if len(d) == may + 1 and not brute(found, d)}


@settings(max_examples=30, deadline=None)
@given(topologies())
def test_what_may_fail_next_is_what_leaves_it_working(found: Topology) -> None:
    for down in ({found.hosts[0].name}, set[str]()):
        more = {
            name for host in found.hosts if (name := host.name) not in down and brute(found, down | {name})
        }
        assert set(quorum.may_also_fail(found, down)) == more


def test_shards_of_the_worst_group() -> None:
    assert quorum.shards_up(ERASURES["3+3"], hosts_down=1) == ERASURES["3+3"].min_size
    assert quorum.shards_up(ERASURES["3+3"], hosts_down=1, osds_down=1) == ERASURES["3+3"].k
    assert quorum.shards_up(ERASURES["4+2"], hosts_down=7) == 0


def test_explained_for_three_hosts() -> None:
    told = explain(topology())
    assert "In all: any one host may fail at once, and images go on being stored and read." in told
    assert "a and b together stop it: etcd 1 of 3 up, 2 needed; PostgreSQL 1 of 3 up" in told
    assert "without a: no other may fail until it is back" in told
    assert "OSDs: any two may fail, or with one host down no more" in told
    assert "No host keeps backups" in told


def test_explained_for_a_larger_site() -> None:
    told = explain(topology(eleven_hosts()))
    assert "front1 and front2 together stop it: HAProxy and virtual IP 0 of 2 up, 1 needed" in told
    assert "without db1: one of front1, front2, osd1, osd2, osd3, osd4, osd5, osd6 may fail, too" in told
    assert "While front2 is down no transaction log is archived" in told


def test_who_leads_goes_last() -> None:
    assert order(topology(), Facts(primary="a", holder="b")) == ("c", "b", "a")
    assert order(topology(), Facts(primary="a", holder="a")) == ("b", "c", "a")


def test_where_a_change_broke_off_it_goes_on() -> None:
    """Whether the node there drains still or does not answer; even if the host leads by now."""
    assert order(topology(), Facts(primary="a", holder="b", draining=frozenset("b"))) == ("b", "c", "a")
    assert order(topology(), Facts(primary="a", holder="b", down=frozenset("a"))) == ("a", "c", "b")


def test_a_cluster_is_whole_when_nothing_is_missing_in_any_tier() -> None:
    whole = Facts(primary="a", holder="b", standbys=2, clean=True, draining=frozenset("c"))
    assert missing(topology(), whole) == ()
    for facts, told in (
        (replace(whole, down=frozenset("b")), "b: some tier does not answer"),
        (replace(whole, primary=None), "postgres: no primary"),
        (replace(whole, standbys=1), "postgres: 1 standbys follow, 2 there are"),
        (replace(whole, clean=False), "ceph: not every placement group is known to have all its shards"),
        (replace(whole, clean=None), "ceph: not every placement group is known to have all its shards"),
        (replace(whole, holder=None), "virtual IP: nobody answers there"),
    ):
        assert missing(topology(), facts) == (told,)
    assert missing(topology(), Facts()), "what is not known is not whole"


def test_a_host_goes_down_only_while_all_others_carry_on() -> None:
    well = Facts(primary="a", holder="b", standbys=2, clean=True)
    assert objections(topology(), well, "c") == ()
    in_trouble = Facts(down=frozenset("b"), standbys=1, clean=False)
    told = " ".join(objections(topology(), in_trouble, "c"))
    for reason in (
        "etcd: 1 of 3 would be up, 2 needed (b in trouble)",
        "placement group",
        "1 standbys follow",
    ):
        assert reason in told
    assert "no other takes new work" in " ".join(
        objections(topology(), Facts(draining=frozenset("ab"), standbys=2, clean=True), "c")
    )
    assert objections(topology(), Facts(), "c"), "what is not known is no reason to go on"
