"""What can be asked of an archive on this machine only: its own check, its logs, its objects' files."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import requests

from chaos.checks import findings_in, leaks_in
from chaos.multipart import identity_of
from chaos.readback import READ_SECONDS
from tests.archive import Archive


def check(archive: Archive) -> tuple[list[tuple[str, str]], int]:
    """`stele check` beside the running archive, every byte read: (findings but for orphans, orphans)."""
    done = subprocess.run(
        [sys.executable, "-m", "node.cli", "check", "--json", "--data", str(archive.data)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "STELE_INTAKE__GRACE_SECONDS": "0"},
    )
    assert done.returncode in (0, 1), done.stderr[-2000:]
    return findings_in(done.stdout)


def leaks(archive: Archive, pages: Iterable[str]) -> list[str]:
    """Where a canary turned up: logs of the archive and of its database, metrics, error pages."""
    metrics = requests.get(f"{archive.base_url}/metrics", timeout=READ_SECONDS).text
    places = {"log": archive.log, "metrics": metrics, "error pages": "\n".join(pages)}
    for path in archive.data.glob("postgres/*.log"):
        places[path.name] = path.read_text(errors="replace")
    return leaks_in(places)


def files_by_uid(archive: Archive) -> dict[str, Path]:
    """The objects' files by SOP Instance UID (of those that are there twice, one)."""
    files = (path for path in (archive.data / "objects").glob("[0-9a-f][0-9a-f]/*"))
    return {identity_of(path.read_bytes())[0]: path for path in files}


def flip_a_bit(path: Path) -> None:
    """In the middle of a file, which is in its pixels."""
    with path.open("r+b") as file:
        at = path.stat().st_size // 2
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))
