"""Bundles for what looks at one and installs nothing from it."""

import json
from pathlib import Path
from typing import Any

from cluster.bundle import archive


def empty_bundle(folder: Path) -> Path:
    """A bundle that is whole, though there is nothing to install in it; returns the folder."""
    manifest: dict[str, Any] = {"version": "0.1.0"}
    for part in ("debian", "stele"):
        (folder / part).mkdir(parents=True)
        (folder / part / "empty").touch()
        manifest[part] = archive.pack(folder / part, folder)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
