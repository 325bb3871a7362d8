"""A store that takes nothing new while another folder's file system is short of room.

For the embedded database on a disk of its own: a PostgreSQL that cannot write its log ends rather than go
on without it, and then nobody can read either, since every access leaves an audit row. So intake stops while
there is room left for these, before an object is written that could get no row.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from node.domain.errors import Reason, Refusal
from node.ports import Blobs, BlobWriter


class GuardedBlobs:
    """`blobs`, but STORE_FULL for new objects below `free_bytes_min` in the file system of `folder`."""

    def __init__(self, blobs: Blobs, folder: Path, free_bytes_min: int) -> None:
        self._blobs = blobs
        self._folder = folder
        self._free_bytes_min = free_bytes_min

    def create(self) -> BlobWriter:
        """Begin an object; see the port."""
        self._demand_room()
        return self._blobs.create()

    def read(self, name: str, offset: int, length: int) -> bytes:
        """See the port."""
        return self._blobs.read(name, offset, length)

    def attributes(self, name: str) -> dict[str, bytes]:
        """See the port."""
        return self._blobs.attributes(name)

    def size(self, name: str) -> int:
        """See the port."""
        return self._blobs.size(name)

    def remove(self, name: str) -> None:
        """See the port."""
        self._blobs.remove(name)

    def names(self) -> Iterator[tuple[str, float]]:
        """See the port."""
        return self._blobs.names()

    def check(self) -> None:
        """Return if objects can be written and read now; see the port."""
        self._demand_room()
        self._blobs.check()

    def close(self) -> None:
        """See the port."""
        self._blobs.close()

    def _demand_room(self) -> None:
        try:
            room = os.statvfs(self._folder)
        except OSError as error:
            raise Refusal(Reason.UNAVAILABLE, "the catalog's disk does not answer") from error
        if room.f_bavail * room.f_frsize < self._free_bytes_min:
            raise Refusal(Reason.STORE_FULL, "the catalog's disk is full")
