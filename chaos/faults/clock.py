"""The clock of one process jumps by an hour, forth or back, while all others keep time.

All hosts share this machine's clock, so only what one process is told can change: by Debian's libfaketime,
which is part of the lab's root file system and of no bundle. It looks into a file at every question, so that
the clock jumps in mid run, and back. It is not for programs in Go, which ask the kernel themselves. It leaves
CLOCK_MONOTONIC alone, as a step of a real clock does.
"""

import random
from collections.abc import Callable

from chaos.deployed import Deployed
from chaos.faults.fault import Fault, Heal, Inject, Injected
from chaos.faults.processes import named, running, units
from chaos.lab.host import Host

LIBRARY = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
OFFSET = "/run/chaos-clock"
HOUR_SECONDS = 3600
_DROP_IN = f"""\
[Service]
Environment=LD_PRELOAD={LIBRARY}
Environment=FAKETIME_TIMESTAMP_FILE={OFFSET}
Environment=FAKETIME_NO_CACHE=1
Environment=FAKETIME_DONT_FAKE_MONOTONIC=1
"""


def set_clock(host: Host, seconds: int) -> None:
    """How far the clocks of the processes that `movable` has restarted are off."""
    host.run("sh", "-c", f"cat >{OFFSET}.new && mv {OFFSET}.new {OFFSET}", stdin=f"{seconds:+d}\n".encode())


def movable(host: Host, unit: str) -> Heal:
    """Restart a unit with a clock that `set_clock` moves; returns what undoes it."""
    folder = f"/run/systemd/system/{unit}.d"
    set_clock(host, 0)
    host.run("mkdir", "-p", folder)
    host.run("tee", f"{folder}/chaos.conf", stdin=_DROP_IN.encode())
    restart = f"systemctl daemon-reload && systemctl restart {unit}"
    host.run("sh", "-c", restart, seconds=120)
    return lambda: host.run("sh", "-c", f"rm -rf {folder}/chaos.conf {OFFSET}; {restart}", seconds=120)


def _everywhere(pattern: str) -> Callable[[Deployed, random.Random], Heal]:
    def prepare(cluster: Deployed, _generator: random.Random) -> Heal:
        undo = [movable(host, unit) for host in running(cluster, pattern) for unit in units(host, pattern)]
        return lambda: [each() for each in undo]

    return prepare


def _jump(what: str, where: Callable[[Deployed, random.Random], Host]) -> Inject:
    def inject(cluster: Deployed, generator: random.Random) -> Injected:
        host = where(cluster, generator)
        seconds = generator.choice((HOUR_SECONDS, -HOUR_SECONDS))
        set_clock(host, seconds)
        return Injected(f"{named(host, what)}, {seconds:+d} s", lambda: set_clock(host, 0))

    return inject


def _unavailable(cluster: Deployed) -> str:
    lacking = [
        name for name, host in cluster.lab.hosts.items() if not (host.root / LIBRARY.lstrip("/")).exists()
    ]
    return f"{', '.join(lacking)} without Debian's libfaketime: start the lab anew" if lacking else ""


def _primary(cluster: Deployed, _generator: random.Random) -> Host:
    return cluster.primary()


def _any(pattern: str) -> Callable[[Deployed, random.Random], Host]:
    return lambda cluster, generator: generator.choice(running(cluster, pattern))


def _fault(name: str, what: str, pattern: str, where: Callable[[Deployed, random.Random], Host]) -> Fault:
    return Fault(
        name,
        "Clock",
        f"the clock of {what} is off by an hour",
        3,
        _jump(what, where),
        hold_seconds=30,
        making_seconds=300,
        roles_stay=True,
        prepare=_everywhere(pattern),
        unavailable=_unavailable,
    )


FAULTS = (
    _fault("clock-of-patroni", "the primary's Patroni", "patroni.service", _primary),
    _fault("clock-of-workers", "a node's DIMSE workers", "stele-dimse*", _any("stele-dimse*")),
    _fault("clock-of-osds", "a host's OSDs", "ceph-osd@*", _any("ceph-osd@*")),
)
