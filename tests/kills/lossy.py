"""A power cut for a running archive: `kill -9` keeps the page cache, so what was not synced has to be
forgotten by hand, out of the book that `inside/sitecustomize.py` keeps.

Names in a folder survive if one of its syncs saw them, a file has the bytes and the mode that it was last
synced with. A removal is never taken back, which is the friendlier of the two outcomes POSIX allows: what
matters here is what was acknowledged.
"""

import os
import shutil
from pathlib import Path

NEW_FILE_MODE = 0o600  # the store makes its files so


def forget_what_was_not_synced(objects: Path, book: Path) -> int:
    """Take the files and bytes out of the folder `objects` that a power cut would take; how many files."""
    files: dict[int, tuple[int, int]] = {}  # (bytes, mode) at the last sync, by inode
    names: dict[str, set[tuple[str, int]]] = {}
    for line in book.read_text().splitlines() if book.exists() else []:
        kind, *fields = line.split(" ")
        if kind == "F":
            inode, size, mode = map(int, fields)
            files[inode] = size, mode
        else:
            kept = names.setdefault(fields[0], set())
            for field in fields[1:]:
                name, _, number = field.rpartition("/")
                if name:
                    kept.add((name, int(number)))
    return _forget(objects, names, files)


def _forget(folder: Path, names: dict[str, set[tuple[str, int]]], files: dict[int, tuple[int, int]]) -> int:
    lost = 0
    kept = names.get(str(folder), set())
    for entry in list(os.scandir(folder)):
        inode = entry.inode()
        if (entry.name, inode) not in kept:
            lost += 1
            shutil.rmtree(entry.path) if entry.is_dir() else Path(entry.path).unlink()
        elif entry.is_dir():
            lost += _forget(Path(entry.path), names, files)
        else:
            size, mode = files.get(inode, (0, NEW_FILE_MODE))
            lost += entry.stat().st_size > size
            os.truncate(entry.path, min(size, entry.stat().st_size))
            Path(entry.path).chmod(mode)
    return lost
