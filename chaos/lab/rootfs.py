"""The Debian that all hosts start from: made once with debootstrap, cached, shared read-only.

It is what a fresh installation is: systemd, SSH, Python, no service of ours. The cache's name carries a
digest of the recipe, so a changed recipe makes a new one.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chaos.lab.shell import LabError, run
from cluster.bundle import apt

SUITE = "trixie"
PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "libfaketime",  # for one process's clock; the product's bundle has none
    "libpam-systemd",
    "nftables",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "systemd",
    "systemd-sysv",
    "udev",
)
BUILD_SECONDS = 1200.0  # about 60 on an idle machine with a near mirror

# What is unlike a fresh installation, as commands inside it.
_FINISH = """
set -e
systemctl -q enable systemd-networkd
systemctl -q mask systemd-networkd-wait-online.service getty.target console-getty.service \
    apt-daily.timer apt-daily-upgrade.timer sys-kernel-debug.mount sys-kernel-tracing.mount
rm -f /etc/ssh/ssh_host_* /etc/machine-id /etc/resolv.conf /etc/hostname
rm -rf /var/cache/apt/archives/*.deb /var/lib/apt/lists/*
mkdir -p /var/log/journal /root/.ssh
chmod 700 /root/.ssh
: > /etc/apt/sources.list
echo force-unsafe-io > /etc/dpkg/dpkg.cfg.d/lab
"""


def recipe() -> str:
    """Digest of all that decides what the root file system holds."""
    return hashlib.sha256(json.dumps([SUITE, PACKAGES, _FINISH]).encode()).hexdigest()[:12]


def path(cache: Path) -> Path:
    """Where the root file system lies in a cache folder, made or not."""
    return cache / f"rootfs-{SUITE}-{recipe()}"


def ensure(cache: Path) -> Path:
    """Return the root file system, made now if the cache has none of this recipe.

    Needs the network only if it has to be made. Older recipes' are removed; LabError if it cannot be made.
    """
    with _locked(cache):
        made = path(cache)
        if not made.is_dir():
            mounted = Path("/proc/self/mounts").read_text()
            for old in cache.glob("rootfs-*"):
                if f"lowerdir={old}," not in mounted:  # a running lab's stays
                    shutil.rmtree(old)
            unfinished = cache / "rootfs-unfinished"
            try:
                _make(unfinished)
                unfinished.rename(made)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        return made


def _make(target: Path) -> None:
    if os.geteuid() != 0:
        raise LabError("making the lab's root file system needs root")
    try:
        mirror, proxies = apt.mirror().debian, apt.environment()
    except apt.BundleError as reason:
        raise LabError(str(reason)) from reason
    run(
        "debootstrap",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        SUITE,
        str(target),
        mirror,
        seconds=BUILD_SECONDS,
        env={**os.environ, **proxies},
    )
    run("chroot", str(target), "/bin/sh", "-c", _FINISH)


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
