"""What is watched of hosts: their journals by the history's clock; a host that is off breaks nothing."""

import time
from pathlib import Path

import pytest

from chaos.deployed import Deployed, Entrance
from chaos.lab.lab import VIRTUAL_ADDRESS, Lab
from chaos.probing.probes import probing, read
from chaos.watch import load, watching
from tests.support import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.slow]
SECONDS = 60


def test_journals_and_troubles_of_hosts_without_a_cluster(three_hosts: Lab, tmp_path: Path) -> None:
    host, other = three_hosts.hosts["host1"], three_hosts.hosts["host2"]
    nowhere = Entrance(VIRTUAL_ADDRESS, "pacs.test", tmp_path / "ca", tmp_path / "token")
    watched, probes = tmp_path / "watch.json", tmp_path / "probes"
    try:
        with (
            watching(Deployed(three_hosts, nowhere), watched) as watch,
            probing(three_hosts.hosts.values(), probes),
        ):
            begun = time.monotonic()
            script = "echo said 1; echo said 2; echo else"
            host.run("systemd-run", "--unit=etcd-test", "--wait", "sh", "-c", script)
            ended = time.monotonic()
            other.power_off()
            wait_until(lambda: watch.watched.troubles, SECONDS, "the cluster was asked")
    finally:
        other.power_on()
        other.wait_ready()
    seen = load(watched)
    said = {each.text: each for each in seen.lines["host1"] if each.unit == "etcd-test"}
    assert (said["said 1"].times, said["else"].times) == (2, 1)
    assert begun < said["said 1"].moment < ended
    assert [each.text for each in seen.lines["host2"]] == ["host2 is off"]
    assert seen.troubles[0][1] == ["nothing is deployed here"]
    assert read(probes) == []  # no PostgreSQL, no acknowledgement
