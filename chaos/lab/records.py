"""Which labs there are on this machine, and whose.

A lab has a folder under /run with a record in it. A lab that a program started for itself names that program
as its owner and is worth nothing without it; one started at the command line has none and stays until it is
taken down. The machine's boot number tells records that outlived everything they speak of.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

RUN = Path("/run/stele-lab")


@dataclass(frozen=True)
class Record:
    """A lab: its name, hosts, folders; the owner's process number and start time, or zeros; whether its
    hosts' disks lose in a power cut what was not synced."""

    name: str
    hosts: int
    disks: str
    root_image: str
    boot: str
    owner: int
    owner_started: int
    lossy: bool = False

    @property
    def folder(self) -> Path:
        """Where the lab keeps its record, keys, mounts and consoles."""
        return RUN / self.name

    def abandoned(self) -> bool:
        """Has its owner died, or the machine restarted?"""
        if self.boot != boot_number():
            return True
        return self.owner != 0 and started(self.owner) != self.owner_started

    def write(self) -> None:
        """Write the record into the lab's folder, at once or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / "record.new"
        unfinished.write_text(json.dumps(asdict(self)))
        unfinished.rename(self.folder / "record.json")


def read(name: str) -> Record | None:
    """The record of the lab of this name, if there is one."""
    try:
        return Record(**json.loads((RUN / name / "record.json").read_text()))
    except FileNotFoundError:
        return None


def all_records() -> list[Record]:
    """Records of all labs on this machine, by name; but for those that another version of this program made,
    which knows what belongs to them."""
    found = (_understood(path.parent.name) for path in sorted(RUN.glob("*/record.json")))
    return [record for record in found if record is not None]


def _understood(name: str) -> Record | None:
    try:
        return read(name)
    except TypeError:
        return None


@contextmanager
def locked() -> Iterator[None]:
    """Only one at a time looks at the labs and decides who may start."""
    RUN.mkdir(parents=True, exist_ok=True)
    with (RUN / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def boot_number() -> str:
    """A text that is different after each start of this machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def started(process: int) -> int:
    """When a process started, in clock ticks since boot (proc(5), field 22 of stat); 0 if it is dead."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def owner() -> tuple[int, int]:
    """This process, as a record names it."""
    return os.getpid(), started(os.getpid())
