"""Prepare the viewer: `python -m node.viewer.prepare DESTINATION`.

Takes OHIF's built distribution out of its npm package, whose version and SHA-512 package-lock.json pins,
and makes of it the folder that the node serves under /viewer:

    index.html, boot.js, app-config.js, manifest.json, sw.js    ours, from static/; revalidated each time
    dist-<12 hexadecimal digits>/                                OHIF's, rewritten; cached for ever
    *.gz                                                         beside each compressible file
    stamp                                                        what this was made from

The digits name the lock and this program, so whatever changes a file also changes its address. Nothing
is compiled and none of OHIF's dependencies is fetched: they are inside the distribution's bundles.

The new folder is made beside the old one and takes its place in one rename; if anything fails the old
one stays. A folder whose stamp is up to date is left alone, so this may run at each `make`.
"""

import argparse
import gzip
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from node.viewer.files import COMPRESSIBLE, DISTRIBUTION_PREFIX, STAMP

HERE = Path(__file__).parent
NPM_SECONDS = 900

# Left out: 136 MB of an inference engine and 20 MB of a slide viewer (both optional), other deployments'
# settings and log-in pages, and pages and icons that only the distribution's own index.html names.
UNWANTED_FOLDERS = ("ort", "dicom-microscopy-viewer", "customizations")
UNWANTED_FILES = (
    "**/*.map", "_headers", "_redirects", "serve.json", "google.js", "silent-refresh.html",
    "oidc-client.min.js", "polyfill.min.js", "es6-shim.min.js", "index.html", "app-config.js",
    "manifest.json", "sw.js", "init-service-worker.js", "assets/apple-touch-*", "assets/firefox*",
    "assets/mstile-*", "assets/yandex-*", "assets/coast-*", "assets/browserconfig.xml",
    "assets/manifest.webapp",
)  # fmt: skip

# The main bundle and seven workers each carry the path from which they load the other bundles.
PUBLIC_PATH = '__webpack_require__.p = "/";'
PUBLIC_PATH_COUNT = 8
# Slide microscopy needs the folder left out above: take the mode off the menu too.
MICROSCOPY_MODE = 'pluginImports_modes.push("@ohif/mode-microscopy");'


class PreparationFailed(Exception):
    """The viewer could not be prepared; the message says why, in words for whoever runs the set-up."""


def stamp_of(sources: Path = HERE) -> str:
    """What a prepared folder depends on, as SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    for path in [*_pinned(sources), *sorted((sources / "static").iterdir())]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _pinned(sources: Path) -> list[Path]:
    return [sources / "package.json", sources / "package-lock.json", sources / "prepare.py"]


def _distribution_name(sources: Path) -> str:
    pinned = b"".join(path.read_bytes() for path in _pinned(sources))
    return DISTRIBUTION_PREFIX + hashlib.sha256(pinned).hexdigest()[:12]


def fetch(build: Path) -> Path:
    """Install the pinned package into `build`; returns its dist folder. Raises PreparationFailed."""
    npm = shutil.which("npm")
    if npm is None:
        raise PreparationFailed("npm is missing (Debian package npm)")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, build / name)
    command = [npm, "ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command, found on PATH
            command, cwd=build, capture_output=True, text=True, timeout=NPM_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise PreparationFailed(f"npm ci did not end within {NPM_SECONDS} s") from None
    if done.returncode != 0:
        raise PreparationFailed("npm ci failed:\n" + "\n".join(done.stderr.splitlines()[-10:]))
    return build / "node_modules" / "@ohif" / "app" / "dist"


def drop_unwanted(dist: Path) -> None:
    """Remove what the node does not serve."""
    for name in UNWANTED_FOLDERS:
        shutil.rmtree(dist / name, ignore_errors=True)
    for pattern in UNWANTED_FILES:
        for path in list(dist.glob(pattern)):
            path.unlink()


def rewrite(dist: Path, address: str) -> None:
    """Let everything in `dist` load from `address`, an absolute path without a trailing slash.

    Raises PreparationFailed if the bundles do not look as expected: a new version needs a new look.
    """
    public_paths = microscopy = 0
    for path in dist.rglob("*.js"):
        text = path.read_text(encoding="utf-8")
        public_paths += text.count(PUBLIC_PATH)
        microscopy += text.count(MICROSCOPY_MODE)
        changed = text.replace(PUBLIC_PATH, PUBLIC_PATH.replace('"/"', f'"{address}/"'))
        changed = changed.replace(MICROSCOPY_MODE, "")
        if changed != text:
            path.write_text(changed, encoding="utf-8")
    if public_paths != PUBLIC_PATH_COUNT or microscopy != 1:
        raise PreparationFailed(
            f"the distribution is not as expected: {public_paths} public paths (expected "
            f"{PUBLIC_PATH_COUNT}), {microscopy} microscopy modes (expected 1)"
        )
    for path in dist.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"url\(/(?!/)", f"url({address}/", text), encoding="utf-8")


def write_pages(destination: Path, address: str, dist: Path) -> None:
    """Write our own pages, with the distribution's address and the main bundle's name filled in."""
    bundles = [path.name for path in dist.glob("app.bundle.*.js")]
    if len(bundles) != 1:
        raise PreparationFailed(f"expected one main bundle, found {len(bundles)}")
    for page in (HERE / "static").iterdir():
        text = page.read_text(encoding="utf-8").replace("{assets}", address).replace("{app}", bundles[0])
        (destination / page.name).write_text(text, encoding="utf-8")


def compress(folder: Path) -> None:
    """Write a .gz beside each compressible file, where it is smaller."""
    for path in [path for path in folder.rglob("*") if path.suffix in COMPRESSIBLE]:
        data = path.read_bytes()
        packed = gzip.compress(data, compresslevel=9, mtime=0)
        if len(packed) < len(data):
            path.with_name(path.name + ".gz").write_bytes(packed)


def prepare(destination: Path) -> bool:
    """Make `destination` up to date; False if it was so already. Raises PreparationFailed, OSError."""
    stamp = stamp_of()
    stamp_file = destination / STAMP
    if stamp_file.is_file() and stamp_file.read_text(encoding="ascii") == stamp:
        return False
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".viewer-") as scratch:
        build, fresh, former = (Path(scratch) / name for name in ("build", "fresh", "former"))
        build.mkdir()
        fresh.mkdir()
        dist = fresh / _distribution_name(HERE)
        address = f"/viewer/{dist.name}"
        shutil.move(fetch(build), dist)
        shutil.copy(build / "node_modules" / "@ohif" / "app" / "LICENSE", fresh / "LICENSE.txt")
        drop_unwanted(dist)
        rewrite(dist, address)
        write_pages(fresh, address, dist)
        compress(fresh)
        (fresh / STAMP).write_text(stamp, encoding="ascii")
        if destination.exists():
            destination.rename(former)
        fresh.rename(destination)
    return True


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m node.viewer.prepare", description="Prepare the viewer.")
    parser.add_argument("destination", type=Path, help="folder to make or bring up to date")
    destination: Path = parser.parse_args(arguments).destination.absolute()
    try:
        made = prepare(destination)
    except (PreparationFailed, OSError) as error:
        print(f"viewer: {error}", file=sys.stderr)
        return 1
    print(f"viewer: {destination} {'prepared' if made else 'is up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
