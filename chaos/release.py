"""A bundle of another release, made from one that is there: the same programs under raised versions.

What an upgrade does to a cluster, it does whatever is in the release; so nothing has to be built, and going
back is possible.
"""

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

Change = Callable[[Path], None]  # of an archive's content, unpacked in a folder


def raised(bundle: Path, target: Path, packages: Sequence[str] = (), suffix: str = "") -> Path:
    """Make the folder `target` a bundle like `bundle`, with Stele's version raised; returns it.

    `packages`: Debian packages whose version gets `suffix`, too.
    """
    manifest = json.loads((bundle / "manifest.json").read_text())
    version = f"{manifest['version']}.post1"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    manifest["stele"] = _changed(bundle, target, manifest["stele"], lambda folder: _wheel(folder, version))
    if packages:
        change = _packages(packages, suffix)
        manifest["debian"] = _changed(bundle, target, manifest["debian"], change)
    else:
        os.link(bundle / manifest["debian"]["file"], target / manifest["debian"]["file"])
    manifest["version"] = version
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


def _changed(bundle: Path, target: Path, entry: dict[str, object], change: Change) -> dict[str, object]:
    """Change an archive's content; returns its entry in the manifest."""
    with tempfile.TemporaryDirectory(dir=target) as work:
        with tarfile.open(bundle / str(entry["file"])) as archive:
            archive.extractall(work)  # noqa: S202 - a bundle that we made
        change(Path(work))
        made = target / f"raised-{entry['file']}"
        with tarfile.open(made, "w", format=tarfile.GNU_FORMAT) as archive:
            for path in sorted(Path(work).rglob("*")):
                archive.add(path, path.relative_to(work), recursive=False)
    with made.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": made.name, "sha256": digest, "bytes": made.stat().st_size}


# --- Stele's wheel -------------------------------------------------------------------------------


def _wheel(folder: Path, version: str) -> None:
    [wheel] = folder.glob("wheels/stele-*.whl")
    _, old, tags = wheel.name.split("-", 2)
    wheel.with_name(f"stele-{version}-{tags}").write_bytes(renamed(wheel.read_bytes(), old, version))
    wheel.unlink()


def renamed(wheel: bytes, old: str, new: str) -> bytes:
    """A wheel of Stele as of another version: the metadata's folder, the metadata, and the record of both."""
    made = io.BytesIO()
    folder, metadata = f"stele-{new}.dist-info", b""
    with zipfile.ZipFile(io.BytesIO(wheel)) as given, zipfile.ZipFile(made, "w") as target:
        for name in given.namelist():
            content = given.read(name)
            place = name.replace(f"stele-{old}.dist-info", folder)
            if place == f"{folder}/METADATA":
                metadata = content = content.replace(
                    f"\nVersion: {old}\n".encode(), f"\nVersion: {new}\n".encode()
                )
            if place != f"{folder}/RECORD":
                target.writestr(place, content, zipfile.ZIP_DEFLATED)
        digest = base64.urlsafe_b64encode(hashlib.sha256(metadata).digest()).rstrip(b"=").decode()
        lines = given.read(f"stele-{old}.dist-info/RECORD").decode().splitlines()
        record = [line.replace(f"stele-{old}.dist-info", folder) for line in lines]
        record = [line for line in record if not line.startswith(f"{folder}/METADATA,")]
        record.append(f"{folder}/METADATA,sha256={digest},{len(metadata)}")
        target.writestr(f"{folder}/RECORD", "\n".join(record) + "\n")
    return made.getvalue()


# --- Debian's packages ---------------------------------------------------------------------------


def _packages(names: Sequence[str], suffix: str) -> Change:
    def change(folder: Path) -> None:
        for name in names:
            [package] = folder.glob(f"{name}_*.deb")
            with tempfile.TemporaryDirectory() as work:
                _run("dpkg-deb", "--raw-extract", str(package), f"{work}/content")
                control = Path(work, "content/DEBIAN/control")
                lines = control.read_text().splitlines()
                lines = [f"{line}{suffix}" if line.startswith("Version: ") else line for line in lines]
                control.write_text("\n".join(lines) + "\n")
                package.unlink()
                # Not for its size, which matters to nobody, but for its time
                _run("dpkg-deb", "-Znone", "--root-owner-group", "--build", f"{work}/content", str(package))
        index = _run("dpkg-scanpackages", "--multiversion", ".", cwd=folder)
        (folder / "Packages").write_text(index)

    return change


def _run(*command: str, cwd: Path | None = None) -> str:
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout
