"""What a topology is refused for, and that each refusal says what would be right."""

from typing import Any

import pytest
import yaml

from cluster.parse import parse
from cluster.topology import GIB, WrongTopology
from tests.cluster.example import eleven_hosts, three_hosts, topology


def refused(mapping: dict[str, Any]) -> str:
    with pytest.raises(WrongTopology) as caught:
        parse(mapping)
    assert all(problem.remedy for problem in caught.value.problems)
    return str(caught.value)


def without(name: str) -> dict[str, Any]:
    mapping = three_hosts()
    del mapping["hosts"][name]
    return mapping


def with_host(**settings: Any) -> dict[str, Any]:
    """Three hosts and a fourth one."""
    mapping = three_hosts()
    fourth = {"address": "198.18.0.14", "osd_devices": ["/dev/vdb", "/dev/vdc"]}
    mapping["hosts"]["d"] = {**fourth, **settings}
    return mapping


def changed_host(**settings: Any) -> dict[str, Any]:
    mapping = three_hosts()
    mapping["hosts"]["b"].update(settings)
    return mapping


def test_three_hosts_are_a_cluster() -> None:
    found = topology()
    assert [host.name for host in found.on("etcd")] == ["a", "b", "c"]
    assert (found.virtual_ip, found.virtual_prefix) == ("198.18.0.100", 24)
    assert found.erasure.name == "3+3"
    assert found.hosts[0].memory_bytes == 8 * GIB
    assert not found.on("backup")


def test_reading_it_from_yaml_is_the_same() -> None:
    assert parse(yaml.safe_load(yaml.safe_dump(eleven_hosts()))) == topology(eleven_hosts())


def test_six_hosts_with_osds_spread_wider() -> None:
    assert topology(eleven_hosts()).erasure.name == "4+2"


def test_the_ceph_identity_is_the_same_in_every_run() -> None:
    assert topology().ceph_fsid == topology().ceph_fsid != topology(eleven_hosts()).ceph_fsid


@pytest.mark.parametrize(
    ("mapping", "told"),
    [
        (without("c"), "2 hosts cannot outvote a failed one; use three, or `stele serve`"),
        (with_host(), "tier etcd: 4 voters survive no more failures than 3"),
        (with_host(), "tier ceph-mon: 4 voters"),
        (three_hosts(erasure="4+2"), "4+2 needs 6 hosts with OSDs, there are 3"),
        (three_hosts(erasure="2+1"), "erasure: '2+1' is wrong; write auto, 3+3 or 4+2"),
        (changed_host(osd_devices=["/dev/vdb"]), "1 OSDs, but 3+3 puts 2 shards here"),
        (changed_host(osd_devices=["/dev/vdb", "/dev/vdb"]), "a disk is named twice"),
        (changed_host(address="198.18.0.11"), "a, b share the address 198.18.0.11"),
        (three_hosts(virtual_ip="198.18.0.12/24"), "virtual_ip: 198.18.0.12 is the address of b"),
        (three_hosts(virtual_ip="198.18.0.100"), "virtual_ip: '198.18.0.100' is wrong"),
        (three_hosts(virtual_ip="2001:db8::9/64"), "different families"),
        (changed_host(memory_gib=4), "hosts.b.memory_gib: 4 GiB, but its tiers take 5.1"),
        (changed_host(tiers=["etcd", "backup"]), "tier postgres: on 2 hosts only, but writes need a"),
        (changed_host(tiers=["etcd", "ghost"]), "hosts.b.tiers: ['etcd', 'ghost'] is wrong"),
        (
            changed_host(adress="198.18.0.1"),
            "hosts.b.adress: unknown name; remove it, or correct its spelling",
        ),
        (changed_host(address="not one"), "hosts.b.address: 'not one' is wrong; write its IP address"),
        (three_hosts(ports={"dicom": 443}), "ports: dicom, https are all 443"),
        (three_hosts(ports={"dicom": 0}), "ports.dicom: 0 is wrong; write a whole number from 1 to 65535"),
        (three_hosts(cluster="a\nb"), "cluster: 'a\\nb' is wrong"),
        (three_hosts(ae_title="TOO LONG TO BE ONE"), "ae_title"),
        (three_hosts(server_name="x\n    daemon"), "server_name"),
        (three_hosts(interface="eth0 }"), "interface"),
        (three_hosts(ceph_options={"a b": "1"}), "ceph_options.a b: malformed"),
        (three_hosts(version=None), "version: missing; write the release of Stele to run"),
        ({}, "cluster: missing; write a name"),
        (three_hosts(hosts={}), "0 hosts cannot outvote a failed one"),
    ],
)
def test_a_wrong_one_is_refused_with_reason_and_remedy(mapping: dict[str, Any], told: str) -> None:
    assert told in refused(mapping)


def test_two_backup_hosts_are_refused() -> None:
    mapping = three_hosts()
    for name in "ab":
        mapping["hosts"][name]["tiers"] = [
            "etcd", "postgres", "ceph-mon", "ceph-mgr", "ceph-osd", "node", "haproxy", "monitoring", "backup"
        ]  # fmt: skip
    assert "a, b would each keep a part of the backups" in refused(mapping)


def test_all_problems_are_told_at_once() -> None:
    told = refused(three_hosts(cluster="", version="", virtual_ip=""))
    assert [line.partition(":")[0] for line in told.splitlines()] == ["cluster", "virtual_ip", "version"]
