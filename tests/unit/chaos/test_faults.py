"""The catalogue of faults, and what its parts make of what tools say."""

import json
import random
import re
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import yaml

from chaos.deployed import Deployed
from chaos.faults import FAULTS, Expect, alerts, ceph, network

TIERS = {
    "VIP",
    "LB",
    "Node",
    "Host",
    "etcd",
    "PostgreSQL",
    "Ceph",
    "Network",
    "Clock",
    "Overload",
    "Change",
    "Site",
}
RULES = Path(__file__).parents[3] / "monitoring/rules"


def test_every_tier_has_faults_and_each_a_name_of_its_own() -> None:
    assert {fault.tier for fault in FAULTS.values()} == TIERS
    for name, fault in FAULTS.items():
        assert name == fault.name
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name), "a file's name, with a seed behind it"
        assert fault.recovery_seconds <= 45 or fault.tier in ("Site", "Ceph")


def test_refusals_have_time_to_settle() -> None:
    for fault in FAULTS.values():
        assert (fault.settling_seconds > 0) == (fault.expects is Expect.REFUSED), fault.name


def test_every_alert_that_is_waited_for_is_one() -> None:
    known = {
        rule["alert"]
        for path in RULES.iterdir()
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    }
    waited = {
        fault.sign.what.removeprefix("the alert ")
        for fault in FAULTS.values()
        if fault.sign is not None and fault.sign.what.startswith("the alert ")
    }
    assert waited >= {"EtcdNearlyFull", "CephNearFull", "CephFull", "CephDamaged"}
    assert waited <= known


def test_which_alerts_fire() -> None:
    told = [
        {"labels": {"alertname": "CephFull", "name": "OSD_FULL"}, "state": "firing"},
        {"labels": {"alertname": "CephFull", "name": "POOL_FULL"}, "state": "firing"},
        {"labels": {"alertname": "HostDown"}, "state": "pending"},
    ]
    assert alerts.names(json.dumps({"status": "success", "data": {"alerts": told}})) == {"CephFull"}


def test_the_objects_of_a_pool_that_an_osd_has() -> None:
    # As ceph-objectstore-tool prints them: an object, one of another pool, and a group's own
    listed = (
        '["2.6s1",{"oid":"o13","key":"","snapid":-2,"hash":1,"pool":2,"namespace":"","shard_id":1}]\n'
        '["1.0",{"oid":"other","key":"","snapid":-2,"hash":1,"pool":1,"namespace":"","shard_id":-1}]\n'
        '["2.6s1",{"oid":"","key":"","snapid":0,"hash":1,"pool":2,"namespace":"","shard_id":1}]\n'
    )
    assert ceph.shards(listed, 2) == [("2.6", listed.splitlines()[0])]
    assert ceph.shards(listed, 1) == [("1.0", listed.splitlines()[1])]


def test_one_bit_differs() -> None:
    data = bytes(range(100))
    for seed in range(20):
        changed = ceph.flipped(data, random.Random(seed))
        [(old, new)] = [pair for pair in zip(data, changed, strict=True) if pair[0] != pair[1]]
        assert (old ^ new).bit_count() == 1


def test_a_ring_cuts_those_who_are_no_neighbours() -> None:
    assert network.apart(["a", "b", "c"]) == []
    assert network.apart(["a", "b", "c", "d"]) == [("a", "c"), ("b", "d")]
    six = network.apart(list("abcdef"))
    assert len(six) == 6 * 5 // 2 - 6
    assert ("a", "f") not in six


def test_a_ring_needs_hosts_enough() -> None:
    ring = FAULTS["ring-partition"]

    def cluster(hosts: int) -> Deployed:
        return cast("Deployed", SimpleNamespace(lab=SimpleNamespace(hosts=dict.fromkeys(range(hosts)))))

    assert ring.unavailable(cluster(3)) == "5 hosts are needed, there are 3"
    assert ring.unavailable(cluster(6)) == ""


def test_frames_from_host_to_host_are_lost_as_told() -> None:
    """They run through the losses of both ends."""
    assert pytest.approx(network.LOSS) == 1 - (1 - network.LOSS_OF_ONE) ** 2
