"""Ceph: monitors, OSDs, room, damage."""

import json
import random
from typing import Any

from chaos.deployed import Deployed
from chaos.faults import processes
from chaos.faults.alerts import fires
from chaos.faults.fault import Expect, Fault, Injected, nothing
from chaos.faults.processes import named, running, together, units
from chaos.lab.host import Host
from chaos.lab.shell import wait_for

POOL = "stele.objects"
MONITORS, MANAGERS, OSDS = "ceph-mon@*", "ceph-mgr@*", "ceph-osd@*"
RATIOS = {"nearfull": 0.85, "backfillfull": 0.9, "full": 0.95}  # as deployed
NEXT_TO_NOTHING = 0.0001  # less than an empty OSD holds
CLEAN_SECONDS = 120.0
CRASH_SECONDS = 120.0
DAMAGE_SECONDS = 90.0  # a scrub of one group, and an alert
WRITES_PER_CRASH = 50


def ceph(cluster: Deployed, *arguments: str) -> Any:
    """What a command of Ceph's says, as JSON, on a host with a monitor; None if it says nothing. LabError."""
    host = running(cluster, MONITORS)[0]
    said = host.run("ceph", "--connect-timeout=10", "--format=json", *arguments)
    return json.loads(said) if said.strip() else None


# --- Monitors --------------------------------------------------------------------------------------


def _monitor_lost(cluster: Deployed, generator: random.Random) -> Injected:
    host = generator.choice(running(cluster, MONITORS))
    return processes.keep_down(host, *units(host, MONITORS))


def _monitors_lost(cluster: Deployed, generator: random.Random) -> Injected:
    hosts = running(cluster, MONITORS)
    lost = generator.sample(hosts, len(hosts) // 2 + 1)
    return together(*(processes.keep_down(host, *units(host, MONITORS)) for host in lost))


# --- OSDs ------------------------------------------------------------------------------------------


def _an_osd(host: Host, generator: random.Random) -> str:
    return generator.choice(units(host, OSDS))


def _osd_killed(cluster: Deployed, generator: random.Random) -> Injected:
    host = generator.choice(running(cluster, OSDS))
    return processes.kill(host, _an_osd(host, generator))


def _osd_stopped(cluster: Deployed, generator: random.Random) -> Injected:
    host = generator.choice(running(cluster, OSDS))
    return processes.stop(host, _an_osd(host, generator))


def _host_stopped(cluster: Deployed, generator: random.Random) -> Injected:
    host = generator.choice(running(cluster, OSDS))
    return processes.stop(host, *units(host, OSDS, MONITORS, MANAGERS))


def _below_min_size(cluster: Deployed, generator: random.Random) -> Injected:
    host, other = generator.sample(running(cluster, OSDS), 2)
    gone, one_more = units(host, OSDS), _an_osd(other, generator)
    return together(processes.keep_down(host, *gone), processes.keep_down(other, one_more))


def _restarts(cluster: Deployed) -> dict[str, int]:
    return {
        f"{host.name} {unit}": int(host.run("systemctl", "show", "--value", "--property=NRestarts", unit))
        for host in running(cluster, OSDS)
        for unit in units(host, OSDS)
    }


def _writes_dropped(cluster: Deployed, _generator: random.Random) -> Injected:
    """Ceph's own injection: an OSD leaves out a write now and then, and dies at its next flush, before that
    can be taken for done. What had been written since the former flush is partly lost, as in a power cut."""
    before = _restarts(cluster)
    for osd in ceph(cluster, "osd", "ls"):
        ceph(cluster, "tell", f"osd.{osd}", "config", "set", "bdev_inject_crash", str(WRITES_PER_CRASH))

    def all_died() -> bool:
        now = _restarts(cluster)  # without those that start right now
        return now.keys() == before.keys() and all(now[osd] > before[osd] for osd in now)

    wait_for(all_died, CRASH_SECONDS, "an OSD has not died of what it dropped")
    return Injected("every OSD", nothing)


# --- Room ------------------------------------------------------------------------------------------


def _set_ratios(cluster: Deployed, ratios: dict[str, float]) -> None:
    for name, ratio in ratios.items():
        ceph(cluster, "osd", f"set-{name}-ratio", str(ratio))


def _restore_ratios(cluster: Deployed) -> None:
    _set_ratios(cluster, dict(reversed(RATIOS.items())))


def _nearly_full(cluster: Deployed, _generator: random.Random) -> Injected:
    _set_ratios(cluster, {"nearfull": NEXT_TO_NOTHING})
    return Injected("every OSD", lambda: _restore_ratios(cluster))


def _full(cluster: Deployed, _generator: random.Random) -> Injected:
    _set_ratios(cluster, dict.fromkeys(RATIOS, NEXT_TO_NOTHING))
    return Injected("every OSD", lambda: _restore_ratios(cluster))


# --- Damage ----------------------------------------------------------------------------------------


def shards(listed: str, pool: int) -> list[tuple[str, str]]:
    """(placement group, the line itself) of each object of a pool; `listed` by ceph-objectstore-tool."""
    found = []
    for line in listed.splitlines():
        group, where = json.loads(line)
        if where["pool"] == pool and where["oid"]:
            found.append((group.partition("s")[0], line))
    return found


def flipped(data: bytes, generator: random.Random) -> bytes:
    """The same bytes but for one bit."""
    at = generator.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << generator.randrange(8)]) + data[at + 1 :]


def _bit_flipped(cluster: Deployed, generator: random.Random) -> Injected:
    """BlueStore's checksum fits the wrong bytes: only Ceph's digest of the whole shard, or Stele's own of the
    object, can tell."""
    host = generator.choice(running(cluster, OSDS))
    unit = _an_osd(host, generator)
    folder = f"/var/lib/ceph/osd/ceph-{unit.partition('@')[2].removesuffix('.service')}"
    tool = ("runuser", "-u", "ceph", "--", "ceph-objectstore-tool", "--data-path", folder)
    pool = next(each["pool"] for each in ceph(cluster, "osd", "dump")["pools"] if each["pool_name"] == POOL)
    host.run("systemctl", "stop", unit)
    try:
        listed = host.run(*tool, "--op", "list", seconds=120).decode()
        group, line = generator.choice(shards(listed, pool))
        changed = flipped(host.run(*tool, line, "get-bytes"), generator)
        host.run(*tool, line, "set-bytes", stdin=changed)
    finally:
        host.run("systemctl", "start", unit)
    wait_for(lambda: _clean(cluster, group), CLEAN_SECONDS, f"placement group {group} is not clean again")
    # Only a scrub that is due by itself repairs by itself: here it reports, and an operator has it repaired
    ceph(cluster, "pg", "deep-scrub", group)
    return Injected(named(host, unit, group), lambda: ceph(cluster, "pg", "repair", group))


def _clean(cluster: Deployed, group: str) -> bool:
    state = ceph(cluster, "pg", group, "query")["state"].split("+")
    return "active" in state and "clean" in state


FAULTS = (
    Fault("monitor-lost", "Ceph", "a monitor: kill -9, and away", 15, _monitor_lost, hold_seconds=20),
    Fault(
        "monitors-lost",
        "Ceph",
        "most monitors: kill -9, and away",
        15,
        _monitors_lost,
        hold_seconds=30,
    ),
    Fault("osd-killed", "Ceph", "an OSD: kill -9", 5, _osd_killed),
    Fault("osd-stopped", "Ceph", "an OSD: SIGSTOP", 30, _osd_stopped, hold_seconds=20),
    Fault(
        "ceph-host-stopped",
        "Ceph",
        "all of Ceph on a host: SIGSTOP",
        30,
        _host_stopped,
        hold_seconds=20,
    ),
    Fault(
        "below-min-size",
        "Ceph",
        "the OSDs of a host and one more: kill -9, and away",
        45,
        _below_min_size,
        expects=Expect.REFUSED,
        settling_seconds=45,
        reads_go_on=False,
    ),
    Fault(
        "ceph-nearly-full",
        "Ceph",
        "OSDs fuller than the first threshold",
        5,
        _nearly_full,
        expects=Expect.UNNOTICED,
        roles_stay=True,
        sign=fires("CephNearFull"),
    ),
    Fault(
        "ceph-full",
        "Ceph",
        "OSDs fuller than may be written to",
        45,
        _full,
        expects=Expect.REFUSED,
        settling_seconds=30,
        roles_stay=True,
        sign=fires("CephFull"),
    ),
    Fault(
        "bit-flipped",
        "Ceph",
        "a bit in one shard, behind the OSD's back",
        5,
        _bit_flipped,
        making_seconds=300,
        roles_stay=True,
        sign=fires("CephDamaged", DAMAGE_SECONDS),
    ),
    Fault(
        "unsynced-writes-lost",
        "Ceph",
        "every OSD loses a write that was not flushed, and dies",
        60,
        _writes_dropped,
        making_seconds=CRASH_SECONDS,
    ),
)
