"""A disk that forgets what was not synced, to cut the power of.

`LossyDisk` stands between the file store and the operating system and keeps book of what POSIX promises
to be there after a power cut: of a file what was fsynced, of a folder the names it had at its last
fsync. `after_power_cut` builds that tree in another folder.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path

from node.adapters.blobs_files_writing import SystemCalls

Inode = int


class PowerCut(OSError):
    """The lights went out before a system call, and before all that follow."""


class LossyDisk(SystemCalls):
    """Real system calls, with a book of what would survive.

    `drop` says which calls of fsync are skipped, by whether they are of a folder and by path;
    `calls_left` is the number of calls until the power goes.
    """

    def __init__(self, drop: Callable[[bool, str], bool] = lambda _folder, _path: False) -> None:
        self._drop = drop
        self.calls_left: int | None = None
        self._paths: dict[int, str] = {}  # open descriptors
        self._book = threading.Lock()
        self.durable_bytes: dict[Inode, bytes] = {}
        self.durable_modes: dict[Inode, int] = {}
        self.durable_names: dict[Inode, dict[str, Inode]] = {}  # of folders

    def _count(self) -> None:
        with self._book:
            if self.calls_left is not None:
                if self.calls_left == 0:
                    raise PowerCut
                self.calls_left -= 1

    def open(self, path: str, flags: int) -> int:
        self._count()
        descriptor = super().open(path, flags)
        self._paths[descriptor] = path
        return descriptor

    def close(self, descriptor: int) -> None:
        self._paths.pop(descriptor, None)
        super().close(descriptor)

    def write(self, descriptor: int, data: memoryview) -> int:
        self._count()
        return super().write(descriptor, data[: max(1, len(data) // 2)])  # short writes are legal

    def fsync(self, descriptor: int) -> None:
        self._count()
        path, inode = self._paths[descriptor], os.fstat(descriptor).st_ino
        folder = Path(path).is_dir()
        if self._drop(folder, path):
            return
        if folder:
            self.durable_names[inode] = {entry.name: entry.inode() for entry in os.scandir(path)}
        else:
            status = os.fstat(descriptor)
            self.durable_bytes[inode] = os.pread(descriptor, status.st_size, 0)
            self.durable_modes[inode] = status.st_mode & 0o777

    def fchmod(self, descriptor: int, mode: int) -> None:
        self._count()
        super().fchmod(descriptor, mode)

    def unlink(self, path: str) -> None:
        self._count()
        super().unlink(path)

    def mkdir(self, path: str) -> None:
        self._count()
        super().mkdir(path)

    def after_power_cut(self, ground: Path, survived: Path) -> None:
        """Build what is left of `ground` (which exists and is durable itself) in `survived`."""
        self._restore(ground.stat().st_ino, survived, _folders_below(ground))

    def _restore(self, folder: Inode, target: Path, folders: set[Inode]) -> None:
        target.mkdir()
        for name, inode in self.durable_names.get(folder, {}).items():
            if inode in folders:
                self._restore(inode, target / name, folders)
            else:
                (target / name).write_bytes(self.durable_bytes.get(inode, b""))
                (target / name).chmod(self.durable_modes.get(inode, 0o600))


def _folders_below(ground: Path) -> set[Inode]:
    return {path.stat().st_ino for path in ground.rglob("*") if path.is_dir()}
