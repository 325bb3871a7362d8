"""Debian packages of the hosts' release with all they depend on, as a flat repository.

This machine's apt fetches them, by its own mirror, proxies and certificates, but with a state apart: another
release, and nothing installed, so that the packages suffice on whatever a host has.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from cluster.bundle import apt

SUITE = "trixie"


def collect(folder: Path, packages: Sequence[str], work: Path) -> int:
    """Put packages and their dependencies into the new `folder`, with an index; returns how many there are.

    `work` keeps what was downloaded for the next time; it is not part of the bundle.
    """
    archives = work / "cache" / "archives"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    options = _options(work)
    apt.output("apt-get", *options, "update")
    install = ("install", "--yes", "--no-install-recommends", *packages)
    # With nothing installed and an empty cache every package is listed; those in the cache are left out.
    apt.output("apt-get", *options, "--download-only", *install)
    planned = apt.output("apt-get", *options, "--simulate", *install).splitlines()
    folder.mkdir(parents=True)
    for line in planned:
        if line.startswith("Inst "):
            os.link(archives / file_name(line), folder / file_name(line))
    index = apt.output("dpkg-scanpackages", "--multiversion", ".", cwd=folder)
    (folder / "Packages").write_text(index)
    return sum(line.startswith("Package: ") for line in index.splitlines())


def _options(work: Path) -> list[str]:
    (work / "state" / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    sources, installed = work / "sources.list", work / "installed"
    sources.write_text(apt.mirror().sources(SUITE))
    installed.write_text("")
    settings = {
        "Dir::State": work / "state",
        "Dir::State::status": installed,
        "Dir::Cache": work / "cache",
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "APT::Sandbox::User": "root",  # the folders are ours
        "APT::Keep-Downloaded-Packages": "true",
        "Debug::NoLocking": "true",
    }
    return ["-qq", *(f"-o{name}={value}" for name, value in settings.items())]


def file_name(line: str) -> str:
    """`Inst NAME (VERSION Origin [ARCHITECTURE])` as apt names the package's file in its cache."""
    name, rest = line.removeprefix("Inst ").split(" (", 1)
    version = rest.split()[0].replace(":", "%3a")
    architecture = rest.split("[")[1].split("]")[0]
    return f"{name}_{version}_{architecture}.deb"
