"""Hosts whose disks lose in a power cut what was not synced, as real ones do."""

import os
import subprocess
from pathlib import Path

import pytest

from chaos.lab import cli, lab
from tests.chaos.conftest import PROGRAMS
from tests.support import require

pytestmark = pytest.mark.lab


def test_a_power_cut_keeps_what_was_synced_and_nothing_else() -> None:
    require(*PROGRAMS, "mkfs.ext4", "losetup", needs_root=True)
    with lab.running(f"l{os.getpid()}", 3, cli.cache(), lossy=True) as lossy:
        disks = Path(lossy.record.disks)
        host = lossy.hosts["host1"]
        for cut in range(2):
            host.run("sh", "-c", f"echo synced >/srv/kept{cut}; sync; echo unsynced >/srv/lost{cut}")
            host.power_off()
            host.power_on()
            host.wait_ready()
            assert host.ssh("ls", "/srv").stdout.split() == [
                f"kept{each}".encode() for each in range(cut + 1)
            ]
            assert host.run("cat", f"/srv/kept{cut}") == b"synced\n"
        host.run("sh", "-c", "echo unsynced >/srv/more")
        host.stop()  # in order: everything is synced
        host.power_on()
        host.wait_ready()
        assert b"more" in host.run("ls", "/srv")
        host.freeze()
        host.power_off()
        lossy.renew("host1")
        assert host.ssh("ls", "/srv").stdout == b""
    assert not disks.exists()
    assert (
        str(disks).encode()
        not in subprocess.run(["losetup", "--list"], capture_output=True, check=True).stdout
    )
