"""What deployment refuses before it changes anything, on real hosts: each with its reason and its remedy."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from chaos.lab.lab import Lab
from tests.bundles import empty_bundle

pytestmark = [pytest.mark.lab, pytest.mark.slow]

ANSIBLE = Path(__file__).parents[2] / "ansible"
INVENTORY = yaml.safe_load((ANSIBLE / "inventories/lab/three.yml").read_text())
LATE_SECONDS = 10  # from a host's answer to its comparison


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return empty_bundle(tmp_path_factory.mktemp("bundle"))


class Deployment:
    """Runs the preflight phase from the clients' side of the lab."""

    def __init__(self, lab: Lab, bundle: Path, folder: Path) -> None:
        self._lab = lab
        self._bundle = bundle
        self._folder = folder

    def preflight(self, inventory: dict[str, Any] = INVENTORY, **variables: Any) -> tuple[int, str]:
        """Exit code, and all that Ansible said, in one line."""
        hosts = self._folder / "hosts.yml"
        hosts.write_text(yaml.safe_dump(inventory))
        site = {"bundle": str(self._bundle), "state": str(self._folder / "state"), "osd_file_gib": 4}
        chosen = json.dumps({"stele_site": site, "stele_lab": str(self._lab.folder), **variables})
        done = subprocess.run(
            self._lab.client_command(
                str(Path(sys.executable).parent / "ansible-playbook"),
                *("-i", str(hosts), "-e", chosen, "--tags", "preflight", "site.yml"),
            ),
            cwd=ANSIBLE,
            capture_output=True,
            timeout=240,
            check=False,
        )
        return done.returncode, " ".join((done.stdout + done.stderr).decode().split())


@pytest.fixture
def deployment(three_hosts: Lab, bundle: Path, tmp_path: Path) -> Deployment:
    return Deployment(three_hosts, bundle, tmp_path)


def test_fresh_hosts_are_taken_and_nothing_on_them_is_changed(deployment: Deployment) -> None:
    code, said = deployment.preflight()
    assert code == 0, said
    for host in ("host1", "host2", "host3"):
        assert f"{host} : ok=" in said
        assert "changed=0" in said.split(f"{host} : ok=")[1][:40]


def test_two_hosts_are_refused(deployment: Deployment) -> None:
    two = yaml.safe_load(yaml.safe_dump(INVENTORY))
    del two["all"]["children"]["stele"]["hosts"]["host3"]
    code, said = deployment.preflight(two)
    assert code != 0
    assert "2 hosts cannot outvote a failed one" in said
    assert "host1 : ok=" not in said


def test_a_disk_with_data_is_refused(deployment: Deployment, three_hosts: Lab) -> None:
    host = three_hosts.hosts["host2"]
    host.run("sh", "-c", "mkdir -p /var/lib/stele-disks && echo precious > /var/lib/stele-disks/1")
    try:
        code, said = deployment.preflight()
    finally:
        host.run("rm", "-r", "/var/lib/stele-disks")
    assert code != 0
    assert "/var/lib/stele-disks/1 on host2: unknown data. A disk with data is never taken" in said
    assert "wipefs --all /var/lib/stele-disks/1" in said


def test_a_name_that_does_not_resolve_is_refused(deployment: Deployment, three_hosts: Lab) -> None:
    hosts_file = three_hosts.hosts["host3"].root / "etc/hosts"
    before = hosts_file.read_text()
    hosts_file.write_text("".join(line for line in before.splitlines(keepends=True) if "host1" not in line))
    try:
        code, said = deployment.preflight()
    finally:
        hosts_file.write_text(before)
    assert code != 0
    assert "On host3 the name host1 does not mean 198.18.0.11" in said


@pytest.mark.parametrize(("minutes", "direction"), [(-5, "behind"), (60, "ahead of")])
def test_a_clock_that_is_apart_is_refused(
    deployment: Deployment, three_hosts: Lab, minutes: int, direction: str
) -> None:
    """The hosts share one clock, so one of them is given a `date` that is off, in front of the real one."""
    date = three_hosts.hosts["host2"].root / "usr/local/bin/date"
    date.write_text(f'#!/bin/sh\nexec /usr/bin/date --date="{minutes} minutes" "$@"\n')
    date.chmod(0o755)
    try:
        code, said = deployment.preflight()
    finally:
        date.unlink()
    assert code != 0
    told = re.search(r"The clock of host2 is (\d+) s (behind|ahead of) this machine's\. Set it", said)
    assert told, said
    assert told[2] == direction
    assert abs(int(told[1]) - abs(minutes) * 60) <= LATE_SECONDS
    assert "The clock of host1" not in said


def test_another_debian_is_refused(deployment: Deployment, three_hosts: Lab) -> None:
    etc = three_hosts.hosts["host3"].root / "etc"
    twelve = {
        "os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n',
        "debian_version": "12.11\n",
    }
    before = {name: (etc / name).read_text() for name in twelve}
    for name, text in twelve.items():
        (etc / name).write_text(text)
    try:
        code, said = deployment.preflight()
    finally:
        for name, text in before.items():
            (etc / name).write_text(text)
    assert code != 0
    assert "host3 runs Debian 12.11 on x86_64; the bundle is for Debian 13 (amd64)" in said


def test_less_memory_than_promised_is_refused(deployment: Deployment) -> None:
    disks = INVENTORY["all"]["children"]["stele"]["vars"]["stele_host"]["osd_devices"]
    code, said = deployment.preflight(stele_host={"memory_gib": 4000, "osd_devices": disks})
    assert code != 0
    assert "the inventory promises 4000. Correct memory_gib, or add memory" in said


def test_a_damaged_bundle_is_refused(deployment: Deployment, bundle: Path) -> None:
    [damaged] = bundle.glob("stele-*.tar")
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + b"x")
    try:
        code, said = deployment.preflight()
    finally:
        damaged.write_bytes(content)
    assert code != 0
    assert "archive stele is missing or damaged" in said
