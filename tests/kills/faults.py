"""Whom to kill. A fault has a name and says who its victims are at this moment; nobody may be there."""

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.archive import Archive


@dataclass(frozen=True, slots=True)
class Process:
    """A living process."""

    pid: int
    parent: int
    line: str


@dataclass(frozen=True, slots=True)
class Fault:
    """SIGKILL to one of `victims(processes of the archive)`."""

    name: str
    victims: Callable[[list[Process]], list[int]]


def processes(root: int) -> list[Process]:
    """The process `root` and all below it."""
    living: dict[int, Process] = {}
    for task in Path("/proc").glob("[0-9]*"):
        try:
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            line = (task / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if fields[0] != "Z":
            living[int(task.name)] = Process(int(task.name), int(fields[1]), line)
    found = [living[root]] if root in living else []
    for process in found:
        found += [each for each in living.values() if each.parent == process.pid]
    return found


def _named(part: str) -> Callable[[list[Process]], list[int]]:
    return lambda tree: [each.pid for each in tree if part in each.line]


def _below(part: str) -> Callable[[list[Process]], list[int]]:
    """Children of a process by its command line that are made of the same line (forked workers)."""

    def victims(tree: list[Process]) -> list[int]:
        heads = {each.pid for each in tree if part in each.line}
        return [each.pid for each in tree if each.parent in heads and part in each.line]

    return victims


def _web_master(tree: list[Process]) -> list[int]:
    workers = set(_below("process web")(tree))
    return [pid for pid in _named("process web")(tree) if pid not in workers]


FAULTS = (
    Fault("intake worker", _named("node.cli process dimse")),
    Fault("web worker", _below("node.cli process web")),
    Fault("web server", _web_master),
    Fault("database", _named("postgres -D ")),
    Fault("database connection", _named("postgres: stele stele")),
)


def kill_one(fault: Fault, archive: Archive, generator: random.Random) -> int | None:
    """Kill a victim of the fault; its pid, None if there was nobody to kill."""
    victims = fault.victims(processes(archive.process.pid))
    if not victims:
        return None
    victim = generator.choice(victims)
    try:
        os.kill(victim, signal.SIGKILL)
    except ProcessLookupError:
        return None
    return victim


def kill_all(archive: Archive) -> None:
    """Everything at the same moment, as a power cut does: nobody acts on another's end."""
    pids: list[int] = []
    while more := [each.pid for each in processes(archive.process.pid) if each.pid not in pids]:
        for pid in more:
            _signal(pid, signal.SIGSTOP)
        pids += more
    for pid in pids:
        _signal(pid, signal.SIGKILL)
    archive.process.wait()
    deadline = time.monotonic() + 30
    while any(_living(pid) for pid in pids):
        assert time.monotonic() < deadline, "killed processes do not end"
        time.sleep(0.01)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it ended by itself


def _living(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
