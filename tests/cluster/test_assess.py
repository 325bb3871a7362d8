"""What `stele-cluster status` calls trouble, and what it shows."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from cluster import ceph, show
from cluster.assess import troubles
from cluster.ceph import CephStatus
from cluster.etcd import MemberStatus
from cluster.observe import Certificate, Observed
from cluster.patroni import Member
from cluster.registry import Node
from cluster.rollout import missing, objections
from tests.ceph import CephCluster
from tests.cluster.example import topology
from tests.support import wait_until

NOW = datetime(2030, 1, 1, tzinfo=UTC)
NODES = tuple(Node(name, "198.18.0.11", 11112, 8042, "0.1.0") for name in "abc")
MEMBERS = (
    Member("a", "quorum_standby", "streaming", 2, 0),
    Member("b", "leader", "running", 2, None),
    Member("c", "quorum_standby", "streaming", 2, 512),
)
CEPH = CephStatus("HEALTH_OK", (), ("a", "b", "c"), "a", 6, 6, 6, 64, 64, 0.25)
WELL = Observed(
    etcd={name: MemberStatus(name, "3.5.16", name == "a", 20480, ()) for name in "abc"},
    nodes=NODES,
    associations={"a": 3, "b": 0, "c": None},
    members=MEMBERS,
    postgres_versions=dict.fromkeys("abc", "170012"),
    ceph=CEPH,
    ceph_trouble="",
    haproxies=dict.fromkeys("abc", True),
    holder="c",
    certificates=(Certificate("a", "etcd", NOW + timedelta(days=90)),),
)


def test_a_well_cluster_has_no_trouble_and_may_spare_a_host() -> None:
    assert troubles(topology(), WELL, NOW) == ()
    assert objections(topology(), WELL.facts(topology()), "a") == ()
    assert (WELL.facts(topology()).primary, WELL.facts(topology()).holder) == ("b", "c")
    assert missing(topology(), WELL.facts(topology())) == ()


def test_a_host_is_down_when_one_of_its_tiers_is() -> None:
    for seen in (
        replace(WELL, etcd={**WELL.etcd, "b": None}),
        replace(WELL, haproxies={**WELL.haproxies, "b": False}),
        replace(WELL, members=(MEMBERS[0], Member("b", "replica", "starting", 2, 0), MEMBERS[2])),
        replace(WELL, nodes=(NODES[0], NODES[2])),
        replace(WELL, ceph=replace(CEPH, monitors_up=("a", "c"))),
    ):
        assert seen.facts(topology()).down == frozenset("b")


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (replace(WELL, etcd={**WELL.etcd, "b": None}), "etcd: b does not answer"),
        (replace(WELL, etcd=dict.fromkeys("abc")), "etcd: no leader"),
        (
            replace(WELL, etcd={**WELL.etcd, "c": MemberStatus("c", "3.5", False, 1, ("NOSPACE",))}),
            "etcd: c says NOSPACE",
        ),
        (replace(WELL, members=None), "postgres: no Patroni answers"),
        (replace(WELL, members=MEMBERS[::2]), "postgres: no primary, so nothing can be stored"),
        (replace(WELL, members=MEMBERS[:2]), "postgres: c is no member"),
        (
            replace(WELL, members=MEMBERS[1:2]),
            "postgres: 0 standbys follow, 1 needed, so nothing can be stored",
        ),
        (
            replace(WELL, members=(*MEMBERS[:2], Member("c", "replica", "starting", None, None))),
            "postgres: c is replica, starting",
        ),
        (
            replace(WELL, members=(*MEMBERS[:2], Member("c", "quorum_standby", "streaming", 2, 99 << 20))),
            "postgres: c is 99 MiB behind",
        ),
        (replace(WELL, ceph=None, ceph_trouble="timed out"), "ceph: no answer: timed out"),
        (
            replace(WELL, ceph=replace(CEPH, health="HEALTH_WARN", checks=("1 osds down",))),
            "ceph: HEALTH_WARN: 1 osds down",
        ),
        (
            replace(WELL, ceph=replace(CEPH, monitors_up=("a", "b"))),
            "ceph: monitor c is not in the quorum",
        ),
        (replace(WELL, haproxies={"a": False}), "haproxy: a does not answer"),
        (replace(WELL, holder=None), "virtual IP: nobody answers there"),
        (replace(WELL, nodes=NODES[:2]), "node: c is not registered"),
        (
            replace(WELL, nodes=(*NODES[:2], replace(NODES[2], draining=True))),
            "node: c is draining",
        ),
        (
            replace(WELL, nodes=(*NODES[:2], replace(NODES[2], version="0.2.0"))),
            "node: different versions run: 0.1.0, 0.2.0",
        ),
        (
            replace(WELL, certificates=(Certificate("b", "patroni", NOW + timedelta(days=9)),)),
            "certificate: patroni of b ends in 9 days (2030-01-10)",
        ),
    ],
)
def test_each_trouble_is_told(seen: Observed, told: str) -> None:
    assert told in troubles(topology(), seen, NOW)


def test_what_is_shown_is_in_both_forms() -> None:
    console = Console(width=180, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    show.show(console, topology(), WELL, (), NOW)
    text = console.export_text()
    for part in (
        "3.5.16 leader",
        "primary, timeline 2",
        "quorum standby, streaming, 512 bytes behind",
        "in quorum manager",
        "0.1.0, 3 associations",
        "up, virtual IP",
        "6 of 6 OSDs up, 64 of 64 placement groups clean, 25% full",
        "the first to end is etcd of a, in 90 days",
        "all is well",
    ):
        assert part in text, text
    told = json.loads(json.dumps(show.as_json(topology(), WELL, ("x",))))
    assert told["primary"] == "b"
    assert told["holder"] == "c"
    assert told["troubles"] == ["x"]
    assert told["certificates"][0]["ends"].startswith("2030-04-01")


@pytest.mark.ceph
def test_a_real_ceph_tells_its_state(ceph_cluster: CephCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CEPH_ARGS", f"--conf {ceph_cluster.conf} --keyring {ceph_cluster.keyring}")
    wait_until(lambda: ceph.status().clean, 60, "the manager has heard of all placement groups")
    seen = ceph.status()
    assert seen.monitors_up == ("a",)
    assert (seen.osds, seen.osds_up) == (3, 3)
    assert seen.manager == "x"
    assert 0 < seen.used < 1
