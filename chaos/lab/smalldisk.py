"""A folder of a host on a small disk of its own, which can be filled: ext4 in a file of this machine."""

from pathlib import Path

from chaos.lab.host import Host
from chaos.lab.shell import LabError, attempt, run

FILLING = "filling"  # the file that takes all the room


class SmallDisk:
    """The disk for `folder` of a host. Nothing may use the folder while the disk comes or goes."""

    def __init__(self, host: Host, folder: str, mib: int) -> None:
        self._host = host
        self._folder = folder
        self._mib = mib
        self._image = host.scratch / "small-disk"
        self._device = ""

    def attach(self) -> None:
        """Make it, with all that the folder has, in the folder's place."""
        run("truncate", "-s", f"{self._mib}M", str(self._image))
        run("mkfs.ext4", "-q", "-b", "4096", "-m", "0", str(self._image))
        self._device = run("losetup", "--find", "--show", str(self._image)).decode().strip()
        number = int(Path(self._device).name.removeprefix("loop"))
        # The host has no device files of its own
        self._script(
            f"""
            mknod {self._device} b 7 {number}
            mkdir /run/small-disk
            mount {self._device} /run/small-disk
            rm -r /run/small-disk/lost+found
            cp -a {self._folder}/. /run/small-disk/
            chown --reference={self._folder} /run/small-disk
            chmod --reference={self._folder} /run/small-disk
            umount /run/small-disk
            rmdir /run/small-disk
            mount {self._device} {self._folder}
            rm {self._device}
            """
        )

    def detach(self) -> None:
        """Copy everything back and remove it; what filled it is not taken along."""
        self._script(
            f"""
            mkdir /run/small-disk
            rm -f {self._folder}/{FILLING}
            mount --bind {self._folder} /run/small-disk
            umount {self._folder}
            rm -rf {self._folder}/..?* {self._folder}/.[!.]* {self._folder}/*
            cp -a /run/small-disk/. {self._folder}/
            umount /run/small-disk
            rmdir /run/small-disk
            """
        )
        run("losetup", "--detach", self._device)
        self._image.unlink()

    def _script(self, script: str) -> None:
        self._host.run("sh", "-e", "-c", script, seconds=120)


def fill(host: Host, folder: str) -> None:
    """Leave no room on the disk of a folder, which has to be one of its own."""
    if attempt(host.command("mountpoint", "--quiet", folder), seconds=10).returncode != 0:
        raise LabError(f"{host.name}: {folder} is no disk of its own")
    # Each ends with: no space left on device. What had just been deleted, or was held back for what was not
    # written yet, is free only after a sync
    filling = f"dd if=/dev/zero of={folder}/{FILLING} oflag=append conv=notrunc"
    for block in ("1M", "4k", "1k"):
        attempt(host.command("sh", "-c", f"{filling} bs={block}; sync -f {folder}"), seconds=120)


def make_room(host: Host, folder: str) -> None:
    """Undo `fill`."""
    host.run("rm", "-f", f"{folder}/{FILLING}")
