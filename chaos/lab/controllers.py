"""Limits of memory and of disks for single processes, by control groups of version 1.

The hosts' own groups (`cgroup.py`) are of version 2 without controllers: where this machine has version 1
beside it, the controllers are there. On a machine with version 2 alone what needs them is not available.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def missing(controller: str) -> str:
    """Why processes cannot be limited by a controller ("memory", "blkio") here; "" if they can."""
    if (_ROOT / controller / "cgroup.procs").exists():
        return ""
    return f"this machine has no control groups of version 1 for {controller}"


class Limited:
    """Processes, by their numbers as seen from here, in a group of their own below the one that they were in.

    `settings` are files of the controller with what to write into them; OSError if it refuses one.
    """

    def __init__(
        self, controller: str, name: str, settings: Mapping[str, str], processes: Sequence[int]
    ) -> None:
        self._home = _ROOT / controller / _group(controller, processes[0]).lstrip("/")
        self._folder = self._home / f"stele-lab-{name}"
        self._folder.mkdir()
        try:
            for file, value in settings.items():
                (self._folder / file).write_text(value)
            for process in processes:
                _put(process, self._folder)
        except OSError:
            self.release()
            raise

    def processes(self) -> list[int]:
        """Who is in it now."""
        return [int(each) for each in (self._folder / "cgroup.procs").read_text().split()]

    def release(self) -> None:
        """Let everybody out, and remove it."""
        for process in self.processes():
            _put(process, self._home)
        self._folder.rmdir()


def device_of(path: Path) -> str:
    """MAJOR:MINOR of the whole disk that a file lies on, for limits by blkio."""
    number = path.stat().st_dev
    named = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not (named / "partition").exists():
        return f"{os.major(number)}:{os.minor(number)}"
    return (named.resolve().parent / "dev").read_text().strip()


def _group(controller: str, process: int) -> str:
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if controller in controllers.split(","):
            return group
    return "/"


def _put(process: int, folder: Path) -> None:
    try:
        (folder / "cgroup.procs").write_text(str(process))
    except ProcessLookupError:
        pass  # it has just ended
