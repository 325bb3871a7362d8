"""The project's own wheel and its locked dependencies, for the Python of the hosts' Debian."""

import os
import shutil
import sys
from pathlib import Path

from packaging.markers import Marker

from cluster.bundle import apt

PYTHON = "3.13"
# Oldest to newest; Debian 13 has glibc 2.41
_PLATFORMS = (
    "manylinux1",
    "manylinux2014",
    "manylinux_2_17",
    "manylinux_2_27",
    "manylinux_2_28",
    "manylinux_2_34",
)
_TARGET = {
    "python_version": PYTHON,
    "python_full_version": f"{PYTHON}.0",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "os_name": "posix",
}


def collect(folder: Path, source: Path) -> str:
    """Put all wheels and `requirements.txt` into the new `folder`; returns the project's version.

    The requirements are the lock's, hashes included, as they are on the hosts' Python.
    """
    folder.mkdir(parents=True)
    requirements = folder / "requirements.txt"
    requirements.write_text(for_target((source / "requirements.lock").read_text()))
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    platforms = [option for name in _PLATFORMS for option in ("--platform", f"{name}_x86_64")]
    target = ("--python-version", PYTHON, "--only-binary=:all:", *platforms)
    locked = ("--require-hashes", "--no-deps", "--requirement", str(requirements))
    apt.output(*pip, "download", *target, *locked, "--dest", str(folder))
    os.environ.setdefault("SOURCE_DATE_EPOCH", "315532800")  # the same sources make the same wheel
    shutil.rmtree(source / "build", ignore_errors=True)  # else modules that are no more would be packed, too
    apt.output(*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(source))
    [wheel] = folder.glob("stele-*.whl")
    return wheel.name.split("-")[1]


def for_target(lock: str) -> str:
    """The lock's entries that count on the hosts, without their conditions."""
    kept = []
    for entry in _entries(lock):
        head, *hashes = entry.split(" \\\n")
        requirement, _, condition = head.partition(" ; ")
        if not condition or Marker(condition).evaluate(_TARGET):
            kept.append(" \\\n".join([requirement.strip(), *hashes]))
    return "\n".join(kept) + "\n"


def _entries(lock: str) -> list[str]:
    """Each requirement with its hashes, as one text over several lines; comments left out."""
    entries: list[str] = []
    for line in lock.splitlines():
        if line.startswith(" ") and entries and not line.lstrip().startswith("#"):
            entries[-1] += f"\n{line}"
        elif line and not line.lstrip().startswith("#"):
            entries.append(line)
    return entries
