"""A disk that loses in a power cut what was not synced, as real ones do: ext4 in a file of this machine.

A folder of the machine's own file system outlives its host with all that was ever written, synced or not:
the page cache is the machine's. Here the file system is the host's alone, and is shut down in the midst of
its work (as file systems' own tests do, EXT4_IOC_SHUTDOWN). What it had not written by then is gone, and
the next mount has only its journal to go by. What was written past the page cache (O_DIRECT) is lost only
where the file system had not noted it yet.
"""

import fcntl
import os
import struct
from pathlib import Path

from chaos.lab.shell import attempt, run, wait_for

SIZE_GIB = 32  # at the most: it grows as it is written to
_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32)
_WITHOUT_JOURNAL = 2  # EXT4_GOING_FLAGS_NOLOGFLUSH
UMOUNT_SECONDS = 20.0


class LossyDisk:
    """Mounted at `folder`, kept in the file `image`."""

    def __init__(self, image: Path, folder: Path) -> None:
        self._image = image
        self._folder = folder

    def make(self) -> None:
        """Make it, empty, and mount it."""
        self._image.parent.mkdir(parents=True, exist_ok=True)
        run("truncate", "-s", f"{SIZE_GIB}G", str(self._image))
        run("mkfs.ext4", "-q", "-m", "0", str(self._image))
        self._folder.mkdir(parents=True)
        self.mount()

    def mount(self) -> None:
        """Mount it, and play back its journal if it was lost."""
        device = run("losetup", "--find", "--show", str(self._image)).decode().strip()
        run("mount", device, str(self._folder))

    def lose(self) -> None:
        """Nothing that it has not written yet will ever be; it is of no use until it is mounted anew."""
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, _SHUTDOWN, struct.pack("=I", _WITHOUT_JOURNAL))
        finally:
            os.close(folder)

    def umount(self) -> None:
        """Undo `mount`; LabError if somebody uses it."""
        wait_for(lambda: umounted(self._folder), UMOUNT_SECONDS, f"{self._folder} is in use")
        for device in self._devices():
            run("losetup", "--detach", device)

    def remove(self) -> None:
        """Whatever is left of it."""
        try:
            self.umount()
        finally:
            self._image.unlink(missing_ok=True)

    def _devices(self) -> list[str]:
        listed = attempt(("losetup", "--noheadings", "--output", "NAME", "-j", str(self._image)), seconds=10)
        return listed.stdout.decode().split()


def umounted(folder: Path) -> bool:
    """Unmount what is mounted there, if anything is; False if it is in use."""
    return not folder.is_mount() or attempt(("umount", str(folder)), seconds=60).returncode == 0
