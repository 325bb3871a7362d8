"""What the cluster's tools say of its members, understood: real etcd, real Ceph, and wrong answers."""

import json
import subprocess
from typing import Any

import pytest

from cluster.members import Members, NotUnderstood, parse
from tests.ceph import CephCluster
from tests.cluster.servers import EtcdServers, Pki
from tests.support import require

ETCD: dict[str, Any] = {"members": {"members": []}, "health": []}
CEPH: dict[str, Any] = {
    "quorum": {"monmap": {"mons": [{"name": "a"}, {"name": "b"}]}, "quorum_names": ["a"]},
    "osds": {
        "nodes": [
            {"id": -1, "name": "default", "type": "root", "children": [-3]},
            {"id": -3, "name": "a", "type": "host", "children": [1]},
            {"id": 1, "name": "osd.1", "type": "osd", "status": "up", "kb": 2048, "kb_used": 1024},
        ]
    },
    "groups": {"pg_summary": {"num_pg_by_state": [{"name": "active+clean", "num": 32}]}},
    "profile": {"erasure_code_profile": "stele_3_3"},
}
POSTGRES = [{"Member": "a", "Role": "Leader"}, {"Member": "b", "Role": "Quorum Standby"}]


def gathered(**more: Any) -> dict[str, Any]:
    return {"data": {"a": ["etcd", "osd.1"]}, "etcd": ETCD, "ceph": CEPH, "postgres": POSTGRES, **more}


def test_what_was_gathered_is_understood() -> None:
    found = parse(gathered())
    assert found.has("a", "etcd")
    assert found.has_osds("a")
    assert not found.has("b", "etcd")
    assert (found.monitors, found.quorum) == (frozenset("ab"), frozenset("a"))
    assert [(each.number, each.host, each.up, each.size, each.used) for each in found.osds] == [
        (1, "a", True, 2 << 20, 1 << 20)
    ]
    assert found.groups == {"active+clean": 32}
    assert found.profile == "3+3"
    assert found.primary == "a"
    assert parse(gathered(ceph={**CEPH, "profile": {}})).profile == ""


def test_what_is_something_else_is_refused() -> None:
    wrongs: list[dict[str, Any]] = [
        {"postgres": [{}]},
        {"ceph": {}},
        {"data": []},
        {"etcd": {"members": None, "health": []}},
    ]
    for wrong in wrongs:
        with pytest.raises(NotUnderstood):
            parse(gathered(**wrong))


class Etcdctl:
    """etcdctl on the first of several servers, in JSON."""

    def __init__(self, servers: EtcdServers, pki: Pki) -> None:
        self._command = ["etcdctl", f"--cacert={pki.path('ca.crt')}", f"--cert={pki.path('host.crt')}"]
        self._command += [f"--key={pki.path('host.key')}", f"--endpoints={servers.endpoints[0]}"]

    def json(self, *arguments: str) -> Any:
        done = subprocess.run(
            [*self._command, "--write-out=json", *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return json.loads(done.stdout)

    def run(self, *arguments: str) -> None:
        subprocess.run([*self._command, *arguments], check=True, capture_output=True, timeout=30)

    def members(self) -> Members:
        etcd = {
            "members": self.json("member", "list"),
            "health": self.json("endpoint", "health", "--cluster"),
        }
        return parse(gathered(etcd=etcd))


@pytest.mark.cluster
def test_a_dead_member_of_a_real_etcd_is_told_from_the_others_and_forgotten(
    three_etcd_servers: EtcdServers, pki: Pki
) -> None:
    etcdctl = Etcdctl(three_etcd_servers, pki)
    assert sorted((each.name, each.answers, each.learner) for each in etcdctl.members().etcd) == [
        ("m0", True, False),
        ("m1", True, False),
        ("m2", True, False),
    ]
    three_etcd_servers.stop(2)
    [dead] = [each for each in etcdctl.members().etcd if not each.answers]
    assert (dead.name, dead.address) == ("m2", "127.0.0.1")
    etcdctl.run("member", "remove", dead.number)
    assert sorted(each.name for each in etcdctl.members().etcd) == ["m0", "m1"]


@pytest.mark.ceph
def test_a_real_ceph_tells_its_members(ceph_cluster: CephCluster) -> None:
    require("ceph")

    def ask(*question: str) -> Any:
        command = ["ceph", "--conf", str(ceph_cluster.conf), "--keyring", str(ceph_cluster.keyring)]
        done = subprocess.run(
            [*command, "--format=json", *question], check=True, capture_output=True, timeout=60
        )
        return json.loads(done.stdout)

    found = parse(
        gathered(
            ceph={
                "quorum": ask("quorum_status"),
                "osds": ask("osd", "df", "tree"),
                "groups": ask("pg", "stat"),
                "profile": {},
            }
        )
    )
    assert found.quorum == found.monitors == {"a"}
    assert {each.number for each in found.osds} == {0, 1, 2}
    assert all(each.up and each.host and each.size > each.used > 0 for each in found.osds)
    assert any(state.startswith("active") for state in found.groups)
