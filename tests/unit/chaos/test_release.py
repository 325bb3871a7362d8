"""A bundle of another release that `pip` takes for one."""

import hashlib
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from chaos import release

METADATA = "Metadata-Version: 2.4\nName: stele\nVersion: 0.1.0\n"


def test_a_raised_release_installs_under_its_version(tmp_path: Path) -> None:
    bundle = _bundle(tmp_path)
    made = release.raised(bundle, tmp_path / "raised")
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["version"] == "0.1.0.post1"
    assert (made / "debian.tar").samefile(bundle / "debian.tar")
    archive = made / manifest["stele"]["file"]
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == manifest["stele"]["sha256"]
    with tarfile.open(archive) as content:
        content.extractall(tmp_path / "content")  # noqa: S202
    assert (tmp_path / "content/viewer/index.html").read_text() == "viewer"

    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-index",
        "--no-deps",
    ]
    wheels = ["--find-links", str(tmp_path / "content/wheels"), "--target", str(tmp_path / "site")]
    subprocess.run([*pip, *wheels, "stele==0.1.0.post1"], check=True)
    assert (tmp_path / "site/node/__init__.py").read_text() == "# the node\n"
    assert "Version: 0.1.0.post1\n" in (tmp_path / "site/stele-0.1.0.post1.dist-info/METADATA").read_text()


def _bundle(folder: Path) -> Path:
    bundle, content = folder / "bundle", folder / "original"
    (content / "wheels").mkdir(parents=True)
    (content / "viewer").mkdir()
    (content / "viewer/index.html").write_text("viewer")
    with zipfile.ZipFile(content / "wheels/stele-0.1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("node/__init__.py", "# the node\n")
        wheel.writestr("stele-0.1.0.dist-info/METADATA", METADATA)
        wheel.writestr(
            "stele-0.1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        names = (
            "node/__init__.py",
            *(f"stele-0.1.0.dist-info/{each}" for each in ("METADATA", "WHEEL", "RECORD")),
        )
        wheel.writestr("stele-0.1.0.dist-info/RECORD", "".join(f"{name},,\n" for name in names))
    bundle.mkdir()
    with tarfile.open(bundle / "stele.tar", "w") as archive:
        archive.add(content, ".")
    (bundle / "debian.tar").write_bytes(b"Debian's packages")
    entries = {name: {"file": f"{name}.tar", "sha256": "", "bytes": 1} for name in ("stele", "debian")}
    (bundle / "manifest.json").write_text(json.dumps({"version": "0.1.0", **entries}))
    return bundle
