"""The catalog: PostgreSQL and the Patronis above it."""

import random

from chaos.deployed import STELE_CLUSTER, Deployed
from chaos.faults import processes
from chaos.faults.fault import Expect, Fault, Heal, Injected, nothing
from chaos.faults.processes import named, together
from chaos.lab import smalldisk
from chaos.lab.host import Host
from chaos.lab.shell import LabError, attempt, wait_for
from chaos.lab.smalldisk import SmallDisk

PATRONI = "patroni.service"
DATA = "/var/lib/postgresql/17"
POSTMASTER_PID = f"{DATA}/stele/postmaster.pid"
DISK_MIB = 3072  # for a new catalog, and some log beside it
SWITCHOVER_SECONDS = 120.0


def _kill_postmaster(host: Host) -> None:
    host.run("sh", "-c", f"kill -KILL $(head -n 1 {POSTMASTER_PID})")


def lose(host: Host) -> Injected:
    """Patroni and PostgreSQL die and stay away."""
    down = processes.keep_down(host, PATRONI)
    _kill_postmaster(host)
    return Injected(named(host, "Patroni and PostgreSQL"), down.heal)


def standbys(cluster: Deployed) -> list[Host]:
    """The hosts that follow the primary."""
    primary = cluster.primary()
    return [host for host in processes.running(cluster, PATRONI) if host is not primary]


def _primary_killed(cluster: Deployed, _generator: random.Random) -> Injected:
    host = cluster.primary()
    _kill_postmaster(host)
    return Injected(named(host, "PostgreSQL"), nothing)


def _patroni_killed(cluster: Deployed, _generator: random.Random) -> Injected:
    return processes.kill_main(cluster.primary(), PATRONI)


def _patroni_stopped(cluster: Deployed, _generator: random.Random) -> Injected:
    return processes.stop(cluster.primary(), PATRONI, whom="main")


def _standby_lost(cluster: Deployed, generator: random.Random) -> Injected:
    return lose(generator.choice(standbys(cluster)))


def _standbys_lost(cluster: Deployed, _generator: random.Random) -> Injected:
    return together(*map(lose, standbys(cluster)))


def _switchover(cluster: Deployed, _generator: random.Random) -> Injected:
    primary = cluster.primary()
    primary.run(STELE_CLUSTER, "switchover", seconds=SWITCHOVER_SECONDS)
    return Injected(named(primary, "PostgreSQL"), nothing)


def _stop_all(host: Host) -> None:
    """In order; Patroni leaves its PostgreSQL behind."""
    pg_ctl = f"/usr/lib/postgresql/17/bin/pg_ctl -D {DATA}/stele -m fast -w stop"
    stopping = f"! pgrep -u postgres -x postgres >/dev/null || runuser -u postgres -- {pg_ctl}"
    host.run("sh", "-e", "-c", f"systemctl stop {PATRONI}; {stopping}", seconds=120)


def _small_disk(cluster: Deployed, _generator: random.Random) -> Heal:
    """Give a standby a disk that can be filled, and make it the primary."""
    host = standbys(cluster)[0]
    disk = SmallDisk(host, DATA, DISK_MIB)
    _stop_all(host)
    disk.attach()
    host.run("systemctl", "start", PATRONI)

    def undo() -> None:
        _stop_all(host)
        disk.detach()
        host.run("systemctl", "start", PATRONI)

    def led() -> bool:
        """A standby that has just come is no candidate yet."""
        move = cluster.primary().command(STELE_CLUSTER, "switchover", "--to", host.name)
        return attempt(move, seconds=SWITCHOVER_SECONDS).returncode == 0

    try:
        cluster.wait_well(SWITCHOVER_SECONDS)
        wait_for(led, SWITCHOVER_SECONDS, f"{host.name} does not become the primary")
    except LabError:
        undo()
        raise
    return undo


def _disk_full(cluster: Deployed, _generator: random.Random) -> Injected:
    host = cluster.primary()
    smalldisk.fill(host, DATA)
    return Injected(named(host, "PostgreSQL's disk"), lambda: smalldisk.make_room(host, DATA))


FAULTS = (
    Fault("primary-killed", "PostgreSQL", "the primary's postmaster: kill -9", 29, _primary_killed),
    Fault("patroni-killed", "PostgreSQL", "Patroni on the primary: kill -9", 29, _patroni_killed),
    Fault(
        "patroni-stopped",
        "PostgreSQL",
        "Patroni on the primary: SIGSTOP",
        29,
        _patroni_stopped,
        hold_seconds=40,  # beyond its lease
    ),
    Fault(
        "standby-lost",
        "PostgreSQL",
        "a standby: kill -9, and away",
        1,
        _standby_lost,
        hold_seconds=15,
        roles_stay=True,
    ),
    Fault(
        "standbys-lost",
        "PostgreSQL",
        "both standbys: kill -9, and away",
        10,
        _standbys_lost,
        expects=Expect.REFUSED,
        settling_seconds=5,
        roles_stay=True,
    ),
    Fault("switchover", "PostgreSQL", "planned switchover", 5, _switchover),
    Fault(
        "postgres-disk-full",
        "PostgreSQL",
        "the primary's disk has no room left",
        30,
        _disk_full,
        prepare=_small_disk,
    ),
)
