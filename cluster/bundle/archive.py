"""The bundle: two archives and a manifest.

One archive holds Debian's packages, the other what is Stele's own (wheels, viewer), so that a new release of
Stele does not send Debian's packages to every host again.
"""

import hashlib
import json
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from cluster.bundle import debian, wheels

PACKAGES = Path("ansible/group_vars/all/packages.yml")


def build(source: Path, viewer: Path, target: Path, work: Path) -> dict[str, object]:
    """Make the bundle of the project in `source` as the folder `target`; returns its manifest.

    `viewer`: the prepared viewer's folder. `work` keeps downloads. A bundle that is there is replaced when
    the new one is whole.
    """
    new, content = work / "new", work / "content"
    for folder in (new, content):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    count = debian.collect(content / "debian", packages(source), work)
    version = wheels.collect(content / "stele" / "wheels", source)
    shutil.copytree(viewer, content / "stele" / "viewer", ignore=shutil.ignore_patterns(".prepared"))
    manifest = {
        "version": version,
        "suite": debian.SUITE,
        "debian_packages": count,
        "debian": pack(content / "debian", new),
        "stele": pack(content / "stele", new),
    }
    (new / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    shutil.rmtree(content)
    shutil.rmtree(target, ignore_errors=True)
    new.rename(target)
    return manifest


def packages(source: Path) -> Sequence[str]:
    """Every Debian package that any tier's role installs, by name."""
    tiers: Mapping[str, list[str]] = yaml.safe_load((source / PACKAGES).read_text())["stele_packages"]
    return sorted({name for names in tiers.values() for name in names})


def pack(folder: Path, target: Path) -> dict[str, object]:
    """Archive a folder, by names and contents alone; returns file name, SHA-256 and size in bytes."""
    unnamed = target / "archive.tar"
    with tarfile.open(unnamed, "w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(folder.rglob("*")):
            archive.add(path, path.relative_to(folder), recursive=False, filter=_anonymous)
    digest = hashlib.sha256()
    with unnamed.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    named = target / f"{folder.name}-{digest.hexdigest()[:16]}.tar"
    unnamed.rename(named)
    return {"file": named.name, "sha256": digest.hexdigest(), "bytes": named.stat().st_size}


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = "root"
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry
