"""What the playbooks make of the inventories that are in the tree, without any host."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import yaml

from cluster.explain import explain
from cluster.parse import parse
from cluster.topology import Topology
from tests.bundles import empty_bundle

ANSIBLE = Path(__file__).parents[2] / "ansible"
INVENTORIES = sorted(str(path.relative_to(ANSIBLE)) for path in ANSIBLE.glob("inventories/*/*.yml"))
APART = ("inventories/example/six.yml", "inventories/lab/six.yml")


Laid = Callable[[str], tuple[Topology, Path]]


@pytest.fixture(scope="module")
def laid(tmp_path_factory: pytest.TempPathFactory) -> Laid:
    """The topology of an inventory, and the folder with every host's files."""
    bundle = empty_bundle(tmp_path_factory.mktemp("bundle"))

    @cache
    def lay(inventory: str) -> tuple[Topology, Path]:
        state = tmp_path_factory.mktemp("state")
        site = json.dumps({"stele_site": {"bundle": str(bundle), "state": str(state)}})
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        done = subprocess.run(  # only what needs no host
            [program, "-i", inventory, "-i", "localhost,", "--limit", "localhost", "-e", site, "site.yml"],
            cwd=ANSIBLE,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode()
        return parse(yaml.safe_load((state / "topology.yml").read_text())), state / "rendered"

    return lay


@pytest.mark.parametrize("inventory", INVENTORIES)
def test_each_is_a_cluster_that_survives_the_loss_of_any_host(inventory: str, laid: Laid) -> None:
    topology, rendered = laid(inventory)
    assert "any one host may fail at once" in explain(topology)
    for host in topology.hosts:
        assert (rendered / host.name / "manifest.json").exists()


@pytest.mark.parametrize("inventory", APART)
def test_six_hosts_keep_or_serve(inventory: str, laid: Laid) -> None:
    topology, rendered = laid(inventory)
    assert topology.erasure.name == "3+3"  # what counts are the hosts with OSDs
    keepers, servers = topology.hosts[:3], topology.hosts[3:]
    for tier in ("etcd", "postgres", "ceph-mon", "ceph-mgr", "ceph-osd"):
        assert topology.on(tier) == keepers
    for tier in ("node", "haproxy"):
        assert topology.on(tier) == servers
    for host in keepers:
        etc = rendered / host.name / "etc"
        assert (etc / "patroni/config.yml").exists()
        assert (etc / "ceph/stele-pool").exists()
        assert not (etc / "keepalived").exists()
        assert not (etc / "stele/stele.toml").exists()
    for host in servers:
        etc = rendered / host.name / "etc"
        assert (etc / "stele/stele.toml").exists()
        assert (etc / "keepalived").exists()
        assert (etc / "ceph/ceph.conf").exists(), "nodes reach the pool by it"
        assert not (etc / "ceph/stele-pool").exists()
        assert not (etc / "patroni").exists()
