"""A power cut for a running archive: `kill -9` keeps the page cache, so what was not synced has to be
forgotten by hand, out of the book that `inside/sitecustomize.py` keeps.

Names in a folder survive if one of its syncs saw them, bytes of a file as far as it was synced. A removal
is never taken back, which is the friendlier of the two outcomes POSIX allows: what matters here is what was
acknowledged.
"""

import os
import shutil
from pathlib import Path


def forget_what_was_not_synced(objects: Path, book: Path) -> int:
    """Take the files and bytes out of the folder `objects` that a power cut would take; how many files."""
    sizes: dict[int, int] = {}
    names: dict[str, set[tuple[str, int]]] = {}
    for line in book.read_text().splitlines() if book.exists() else []:
        kind, *fields = line.split(" ")
        if kind == "F":
            inode, size = map(int, fields)
            sizes[inode] = max(size, sizes.get(inode, 0))
        else:
            kept = names.setdefault(fields[0], set())
            for field in fields[1:]:
                name, _, number = field.rpartition("/")
                if name:
                    kept.add((name, int(number)))
    return _forget(objects, names, sizes)


def _forget(folder: Path, names: dict[str, set[tuple[str, int]]], sizes: dict[int, int]) -> int:
    lost = 0
    kept = names.get(str(folder), set())
    for entry in list(os.scandir(folder)):
        inode = entry.inode()
        if (entry.name, inode) not in kept:
            lost += 1
            shutil.rmtree(entry.path) if entry.is_dir() else Path(entry.path).unlink()
        elif entry.is_dir():
            lost += _forget(Path(entry.path), names, sizes)
        elif entry.stat().st_size > sizes.get(inode, 0):
            lost += 1
            os.truncate(entry.path, sizes.get(inode, 0))
    return lost
