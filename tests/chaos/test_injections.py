"""What faults do to a host, on hosts with services of their own: each does it, and heals without a trace."""

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from chaos.deployed import Deployed
from chaos.faults import Injected, clock, front, processes
from chaos.lab import smalldisk
from chaos.lab.controllers import Limited, device_of, missing
from chaos.lab.host import Host
from chaos.lab.lab import Lab
from chaos.lab.shell import LabError, attempt
from chaos.lab.smalldisk import SmallDisk
from tests.support import wait_until

pytestmark = pytest.mark.lab

UNIT = "victim.service"
PROGRAM = "/srv/victim.py"
# Tells the time in a file ten times a second, as long as it runs
_PROGRAM = b"""\
import os, time
while True:
    with open("/run/telling", "w") as file:
        file.write(f"{time.time()} {time.monotonic()}")
    os.rename("/run/telling", "/run/told")
    time.sleep(0.1)
"""
_SERVICE = f"""\
[Service]
ExecStart=/usr/bin/python3 {PROGRAM}
Restart=always
RestartSec=100ms
"""


@pytest.fixture
def host(three_hosts: Lab) -> Iterator[Host]:
    """A host with a service that systemd starts again whenever it dies."""
    host = three_hosts.hosts["host1"]
    host.run("tee", PROGRAM, stdin=_PROGRAM)
    host.run("tee", f"/run/systemd/system/{UNIT}", stdin=_SERVICE.encode())
    host.run("sh", "-c", f"systemctl daemon-reload && systemctl start {UNIT}")
    wait_until(lambda: state(host) == "active" and told(host), 10, "it runs")
    yield host
    host.run("sh", "-c", f"systemctl stop {UNIT}; rm /run/systemd/system/{UNIT} {PROGRAM} /run/told")
    host.run("systemctl", "daemon-reload")


def state(host: Host) -> str:
    """What systemd says of the service."""
    return attempt(host.command("systemctl", "is-active", UNIT), seconds=10).stdout.decode().strip()


def told(host: Host) -> tuple[float, float] | None:
    """The service's time of day and its CLOCK_MONOTONIC, as it told them last."""
    said = attempt(host.command("cat", "/run/told"), seconds=10).stdout.split()
    return (float(said[0]), float(said[1])) if said else None


def off_by(host: Host) -> float:
    """Seconds that the service's clock is ahead, if it told it just now."""
    last = told(host)
    assert last is not None
    assert time.monotonic() - last[1] < 5
    return last[0] - time.time()


def runs(host: Host) -> bool:
    """Does the service tell the time?"""
    before = told(host)
    try:
        wait_until(lambda: told(host) != before, 1, "it tells the time")
    except AssertionError:
        return False
    return True


def test_what_is_killed_comes_back_and_what_is_kept_down_does_not(host: Host) -> None:
    before = host.processes(UNIT)
    made = processes.kill(host, UNIT)
    assert made.victim == f"{UNIT} on host1"
    wait_until(lambda: state(host) == "active" and host.processes(UNIT) != before, 10, "it is back")
    made = processes.keep_down(host, UNIT)
    assert state(host) == "failed" or state(host) == "inactive"
    assert not runs(host)
    made.heal()
    assert runs(host)


def test_what_is_stopped_is_alive_and_without_a_word(host: Host) -> None:
    before = host.processes(UNIT)
    made = processes.stop(host, UNIT)
    assert not runs(host)
    assert state(host) == "active"
    made.heal()
    assert runs(host)
    assert host.processes(UNIT) == before


def test_several_faults_are_all_healed_though_one_cannot_be(host: Host) -> None:
    def fail() -> None:
        raise LabError("no way")

    stopped = processes.stop(host, UNIT)
    broken = Injected("another", fail)
    with pytest.raises(LabError, match="no way"):
        processes.together(broken, stopped).heal()
    assert runs(host)


def test_units_are_found_by_pattern(three_hosts: Lab, host: Host) -> None:
    assert processes.units(host, "vict*") == [UNIT]
    assert processes.units(host, "nobody*") == []
    cluster = cast("Deployed", SimpleNamespace(lab=three_hosts))
    assert processes.running(cluster, "vict*", "nobody*") == [host]
    with pytest.raises(LabError, match="no host runs nobody"):
        processes.running(cluster, "nobody*")


@pytest.mark.skipif(bool(missing("memory")), reason=missing("memory"))
def test_a_process_that_gets_no_more_memory_is_killed(host: Host) -> None:
    before = host.processes(UNIT)
    group = Limited("memory", "test", {"memory.limit_in_bytes": "4096"}, before)
    try:
        wait_until(lambda: not group.processes(), 30, "it was killed")
    finally:
        group.release()
    wait_until(lambda: state(host) == "active" and host.processes(UNIT) != before, 10, "it is back")
    assert runs(host)


@pytest.mark.skipif(bool(missing("blkio")), reason=missing("blkio"))
def test_a_disk_is_slow_for_one_process(three_hosts: Lab) -> None:
    host = three_hosts.hosts["host1"]
    host.run("tee", "/srv/syncing.py", stdin=_SYNCING)
    host.run("systemd-run", "--unit=syncing", "python3", "/srv/syncing.py")
    try:
        usual = synced(host)
        limit = {"blkio.throttle.write_iops_device": f"{device_of(host.scratch)} 5"}
        group = Limited("blkio", "test", limit, host.processes("syncing.service"))
        try:
            slow = synced(host)
        finally:
            group.release()
        assert slow <= 7 < usual / 2
        wait_until(lambda: synced(host) > usual / 4, 10, "it is as fast as before")
    finally:
        host.run("sh", "-c", "systemctl stop syncing; rm /srv/sync*")


_SYNCING = b"""\
import os
file = os.open("/srv/synced", os.O_CREAT | os.O_WRONLY)
count = 0
while True:
    count += 1
    os.pwrite(file, f"{count:9}".encode() + bytes(4087), 0)
    os.fdatasync(file)
"""


def synced(host: Host) -> int:
    """How many writes were synced within a second."""

    def count() -> int:
        return int((host.run("head", "-c", "9", "/srv/synced").strip()) or 0)

    wait_until(lambda: attempt(host.command("test", "-s", "/srv/synced"), seconds=10).returncode == 0, 10, "")
    before, began = count(), time.monotonic()
    time.sleep(1)  # what is measured is a rate
    return round((count() - before) / (time.monotonic() - began))


def test_a_clock_jumps_in_mid_run_and_back(host: Host) -> None:
    undo = clock.movable(host, UNIT)
    assert runs(host)
    process = host.processes(UNIT)
    assert abs(off_by(host)) < 5
    for seconds in (3600, -3600, 0):
        clock.set_clock(host, seconds)
        wait_until(lambda: abs(off_by(host) - seconds) < 5, 5, "the clock has jumped")  # noqa: B023
        assert runs(host)
    assert host.processes(UNIT) == process
    clock.set_clock(host, 3600)
    undo()
    wait_until(lambda: runs(host) and abs(off_by(host)) < 5, 10, "it is as before")
    assert attempt(host.command("ls", clock.OFFSET), seconds=10).returncode != 0


def test_a_small_disk_takes_a_folders_place_and_can_be_full(three_hosts: Lab) -> None:
    host = three_hosts.hosts["host2"]
    write = ("cp", "/etc/hostname", "/srv/data/more")
    host.run("sh", "-c", "mkdir /srv/data; echo kept >/srv/data/kept; chown 1234 /srv/data/kept /srv/data")
    with pytest.raises(LabError, match="no disk of its own"):
        smalldisk.fill(host, "/srv/data")
    disk = SmallDisk(host, "/srv/data", 16)
    disk.attach()
    try:
        host.run(*write)
        host.run("rm", "/srv/data/more")
        smalldisk.fill(host, "/srv/data")
        with pytest.raises(LabError, match="No space left on device"):
            host.run(*write)
        assert host.run("cat", "/srv/data/kept") == b"kept\n"
        smalldisk.make_room(host, "/srv/data")
        host.run(*write)
    finally:
        disk.detach()
    assert sorted(host.run("ls", "-A", "/srv/data").split()) == [b"kept", b"more"]
    assert host.run("stat", "-c", "%u", "/srv/data", "/srv/data/kept").split() == [b"1234", b"1234"]
    assert not list(host.scratch.glob("small-disk*"))
    host.run("rm", "-r", "/srv/data")


def test_a_host_without_its_cable_has_no_carrier(three_hosts: Lab) -> None:
    host = three_hosts.hosts["host3"]
    carrier = ("cat", "/sys/class/net/host0/carrier")
    three_hosts.network.unplug("host3")
    try:
        assert host.run(*carrier) == b"0\n"
        assert host.ssh("true").returncode == 255
    finally:
        three_hosts.network.heal()
    assert host.run(*carrier) == b"1\n"
    wait_until(lambda: host.ssh("true").returncode == 0, 10, "it is back")


def test_whether_an_address_answers(three_hosts: Lab) -> None:
    host = three_hosts.hosts["host3"]
    entrance = SimpleNamespace(address="198.18.0.200", https_port=22)  # its SSH is as good as a web server
    cluster = cast("Deployed", SimpleNamespace(lab=three_hosts, entrance=entrance))
    assert not front.answers(cluster)
    host.run("ip", "address", "add", "198.18.0.200/24", "dev", "host0")
    try:
        # The attempt before may still be asking who has the address, once a second
        wait_until(lambda: front.answers(cluster), 10, "it answers")
    finally:
        host.run("ip", "address", "delete", "198.18.0.200/24", "dev", "host0")
