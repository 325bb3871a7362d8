"""What runs on a host, as a control group: count, freeze, kill.

Freezing and killing need version 2 without any controller, which is there both where version 2 is alone and
beside version 1 ("hybrid"). In the latter case systemd-nspawn also looks at version 1's systemd hierarchy.
"""

import os
from pathlib import Path

from chaos.lab.shell import LabError, wait_for

_ROOT = Path("/sys/fs/cgroup")
FREEZE_SECONDS = 10.0


def _hierarchies() -> list[Path]:
    """Version 2's root first, then version 1's systemd hierarchy if there is one."""
    if (_ROOT / "cgroup.procs").exists():
        return [_ROOT]
    if (_ROOT / "unified" / "cgroup.procs").exists():
        return [path for path in (_ROOT / "unified", _ROOT / "systemd") if path.is_dir()]
    raise LabError("no control groups of version 2 are mounted under /sys/fs/cgroup")


class Cgroup:
    """A control group by its path below the root, like `stele-lab/lab/host1`; made when first entered."""

    def __init__(self, name: str) -> None:
        self._folders = [root / name for root in _hierarchies()]

    def make(self) -> list[Path]:
        """Make it; returns the files into which a process writes its number to enter."""
        for folder in self._folders:
            folder.mkdir(parents=True, exist_ok=True)
        return [folder / "cgroup.procs" for folder in self._folders]

    def populated(self) -> bool:
        """Does anything live in it (processes that nobody has waited for do not)?"""
        return "populated 1" in self._events()

    def leader(self) -> int | None:
        """The process number of the host's own init, as seen from here; None if there is none (yet)."""
        for inside in ("payload/init.scope", "payload"):
            try:
                listed = (self._folders[0] / inside / "cgroup.procs").read_text().split()
            except OSError:  # not there, or going while we look
                continue
            if listed:
                return int(listed[0])
        return None

    def processes(self, inner: str) -> list[int]:
        """Process numbers, as seen from here, of a group that the host itself calls `inner`."""
        folder = self._folders[0] / "payload" / inner.lstrip("/")
        return [int(each) for path in folder.rglob("cgroup.procs") for each in path.read_text().split()]

    def freeze(self) -> None:
        """Stop everything in it between two instructions; returns when nothing runs any more."""
        self._set("cgroup.freeze", "1")
        wait_for(lambda: "frozen 1" in self._events(), FREEZE_SECONDS, f"{self._folders[0]} is not frozen")

    def thaw(self) -> None:
        """Undo `freeze`; nothing if the group is gone."""
        try:
            self._set("cgroup.freeze", "0")
        except FileNotFoundError:
            pass

    def kill(self) -> None:
        """SIGKILL to everything in it and below; returns at once."""
        try:
            self._set("cgroup.kill", "1")
        except FileNotFoundError:
            pass  # it was never made

    def remove(self) -> None:
        """Remove it with all below, and the lab's own, and that of all labs, when they are empty."""
        for folder in self._folders:
            for inner, _, _ in os.walk(folder, topdown=False):
                try:
                    Path(inner).rmdir()
                except FileNotFoundError:
                    pass  # its last process just took it along
            try:
                folder.parent.rmdir()
                folder.parent.parent.rmdir()
            except OSError:
                pass  # other hosts or labs are in there, or it is gone

    def _set(self, file: str, value: str) -> None:
        (self._folders[0] / file).write_text(value)

    def _events(self) -> str:
        try:
            return (self._folders[0] / "cgroup.events").read_text()
        except OSError:  # never made, or gone
            return ""
