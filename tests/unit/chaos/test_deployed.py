"""A deployed cluster as its operators see it: whom of the hosts is asked for what."""

import json
import subprocess
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from chaos import deploy
from chaos.deployed import STATE, STELE, STELE_CLUSTER, Deployed, Entrance
from chaos.lab.lab import Lab
from chaos.lab.shell import LabError

TIERS = {
    "host1": ["ceph-mon", "postgres"],
    "host2": ["ceph-mon", "etcd"],
    "host3": ["node"],
    "host4": ["node"],
}
WELL = {
    "troubles": [],
    "primary": "host1",
    "holder": "host3",
    "etcd": {"host1": None, "host2": {"leader": True}},
}


class Host:
    """Answers what it is asked over SSH with `says`, and notes what it runs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.powered = True
        self.says: list[Any] = [WELL]  # the last one for ever
        self.ran: list[tuple[str, ...]] = []

    def ssh(self, *command: str, seconds: float) -> "subprocess.CompletedProcess[bytes]":
        assert command == (STELE_CLUSTER, "status", "--json")
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        return subprocess.CompletedProcess(
            command, 0, said if isinstance(said, bytes) else json.dumps(said).encode()
        )

    def run(self, *command: str) -> bytes:
        self.ran.append(command)
        return b"a\tb\nc\td\n"


class Cluster(Deployed):
    """With hosts by name, for tests to change."""

    def __init__(self, folder: Path) -> None:
        self.fakes = {name: Host(name) for name in TIERS}
        lab = SimpleNamespace(hosts=self.fakes, folder=folder, client_command=lambda *command: command)
        entrance = Entrance("192.0.2.1", "pacs.example", folder / "ca", folder / "token")
        super().__init__(cast(Lab, lab), entrance)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    (tmp_path / STATE).mkdir()
    hosts = {name: {"tiers": tiers} for name, tiers in TIERS.items()}
    (tmp_path / STATE / "topology.yml").write_text(yaml.safe_dump({"hosts": hosts}))
    return Cluster(tmp_path)


def test_hosts_by_tier(cluster: Cluster) -> None:
    assert [host.name for host in cluster.on("node")] == ["host3", "host4"]
    assert cluster.on("backup") == []


def test_a_host_that_is_not_deployed_to_has_no_tier(cluster: Cluster) -> None:
    cluster.fakes["host5"] = Host("host5")
    assert [host.name for host in cluster.on("node")] == ["host3", "host4"]


def test_who_is_what(cluster: Cluster) -> None:
    assert cluster.primary().name == "host1"
    assert cluster.holder().name == "host3"
    assert cluster.etcd_leader().name == "host2"
    cluster.fakes["host1"].says = [{"primary": None, "holder": None, "etcd": {"host1": None}}]
    for ask, told in (
        (cluster.primary, "no primary"),
        (cluster.holder, "no holder"),
        (cluster.etcd_leader, "no leader"),
    ):
        with pytest.raises(LabError, match=told):
            ask()


def test_monitors_are_asked_until_one_answers(cluster: Cluster) -> None:
    cluster.fakes["host1"].powered = False
    assert cluster.status() == WELL
    cluster.fakes["host1"].powered = True
    cluster.fakes["host1"].says = [b"Segmentation fault"]
    cluster.fakes["host2"].says = [{**WELL, "primary": "host2"}]
    assert cluster.primary().name == "host2"
    cluster.fakes["host2"].says = [b""]
    with pytest.raises(LabError, match="no host tells the cluster's state: host2"):
        cluster.status()
    assert cluster.troubles() == [f"no host tells the cluster's state: {_refusal(cluster)}"]


def _refusal(cluster: Cluster) -> str:
    with pytest.raises(LabError) as caught:
        cluster.status()
    return str(caught.value).partition("state: ")[2]


def test_nobody_is_asked_who_is_off(cluster: Cluster) -> None:
    for host in cluster.fakes.values():
        host.powered = False
    with pytest.raises(LabError, match="every host is off"):
        cluster.status()
    with pytest.raises(LabError, match="every node is off"):
        cluster.stele("check")


def test_waiting_for_well(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chaos.deployed.POLL_SECONDS", 0.01)
    cluster.fakes["host1"].says = [{"troubles": ["etcd: no leader"]}, {"troubles": []}]
    assert 0.01 <= cluster.wait_well(5) < 5
    cluster.fakes["host1"].says = [{"troubles": ["etcd: no leader", "virtual IP: nobody answers there"]}]
    with pytest.raises(LabError, match="after 0 s: etcd: no leader; virtual IP: nobody"):
        cluster.wait_well(0)


def test_the_nodes_own_command_runs_on_a_node_and_questions_at_the_primary(cluster: Cluster) -> None:
    cluster.fakes["host3"].powered = False
    cluster.stele("machine", "add", "chaos")
    assert cluster.fakes["host4"].ran == [(*STELE, "machine", "add", "chaos")]
    assert cluster.sql("SELECT") == [["a", "b"], ["c", "d"]]
    assert cluster.fakes["host1"].ran[0][-1] == "SELECT"


def test_clients_know_the_entrance_only(cluster: Cluster) -> None:
    command = cluster.client_program("chaos.traffic", "--seed", "1")
    given = dict(pairwise(command))
    assert given["--dicom"] == "192.0.2.1:104"
    assert given["--http"] == "https://192.0.2.1:443"
    assert given["--server-name"] == "pacs.example"
    assert given["--seed"] == "1"


def test_an_inventory_that_was_named_once_stays_the_labs(tmp_path: Path) -> None:
    used = []

    def client_command(*command: str) -> tuple[str, ...]:
        used.append(command[command.index("-i") + 1])
        return ("true",)

    record = SimpleNamespace(name="lab")
    lab = cast(Lab, SimpleNamespace(folder=tmp_path, client_command=client_command, record=record))
    six = deploy.INVENTORY.with_name("six.yml")
    deploy.play(lab, "site.yml")
    deploy.play(lab, "site.yml", inventory=six)
    deploy.play(lab, "upgrade.yml")
    assert used == [str(deploy.INVENTORY), str(six), str(six)]
