"""Configuration as it was looked at and found right: `golden/CASE/HOST/...`.

After a wanted change: `python -m tests.cluster.golden`, then read the difference before committing it.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import yaml

from cluster import render
from cluster.parse import parse
from tests.cluster.example import eleven_hosts, three_hosts

FOLDER = Path(__file__).parent / "golden"
_CASES = {
    "three": (three_hosts(), ("a", "b")),
    "large": (eleven_hosts(), ("db1", "osd1", "front1", "front2")),
}


def rendered() -> Iterator[tuple[Path, str]]:
    """Each golden file's path below FOLDER, and its text as it is rendered now.

    Of the second host of `three` only what differs from the first.
    """
    for case, (mapping, names) in _CASES.items():
        topology = parse(mapping)
        source = yaml.safe_dump(mapping, sort_keys=False)
        seen: dict[str, str] = {}
        for name in names:
            found = render.files(topology, topology.host(name), source)
            manifest = render.manifest(found)
            texts = {each.path: each.text for each in found} | {"/manifest.json": manifest}
            for path, text in texts.items():
                if seen.get(path) != text:
                    seen[path] = text
                    yield Path(case) / name / path.lstrip("/"), text


def main() -> None:
    """Write the golden files anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    for path, text in rendered():
        (FOLDER / path).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / path).write_text(text)


if __name__ == "__main__":
    main()
