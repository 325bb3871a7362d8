"""Objects in the memory of one process, for unit tests: the other stores' semantics without a disk."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import uuid4

from node.adapters.blobs_common import checked_name, checked_range, pack
from node.domain.errors import Reason, Refusal
from node.ports import BlobWriter


@dataclass(frozen=True, slots=True)
class _Object:
    data: bytes
    attributes: dict[str, bytes]
    made_at: float = field(default_factory=time.monotonic)


class MemoryBlobs:
    """Blobs in a dictionary. Beyond `capacity_bytes` (all objects together) it is STORE_FULL."""

    def __init__(self, capacity_bytes: int | None = None) -> None:
        self._capacity_bytes = capacity_bytes
        self._lock = threading.Lock()
        self._objects: dict[str, _Object] = {}

    def create(self) -> BlobWriter:
        """Begin an object; see the port."""
        return _MemoryWriter(self, uuid4().hex)

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`; see the port."""
        checked_range(offset, length)
        data = self._get(name).data
        if offset + length > len(data):
            raise Refusal(Reason.CORRUPT, "object is shorter than asked for")
        return data[offset : offset + length]

    def attributes(self, name: str) -> dict[str, bytes]:
        """The attributes given to `commit`; see the port."""
        return dict(self._get(name).attributes)

    def size(self, name: str) -> int:
        """Length in bytes; see the port."""
        return len(self._get(name).data)

    def remove(self, name: str) -> None:
        """Remove for good; see the port."""
        with self._lock:
            self._objects.pop(checked_name(name), None)

    def names(self) -> Iterator[tuple[str, float]]:
        """Every committed object as (name, age in seconds); see the port."""
        with self._lock:
            objects = list(self._objects.items())
        now = time.monotonic()
        for name, stored in objects:
            yield name, now - stored.made_at

    def check(self) -> None:
        """STORE_FULL when the capacity is used up; see the port."""
        with self._lock:
            self._need(1)

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._objects.clear()

    def _get(self, name: str) -> _Object:
        with self._lock:
            stored = self._objects.get(checked_name(name))
        if stored is None:
            raise Refusal(Reason.NOT_FOUND, "no such object")
        return stored

    def _put(self, name: str, stored: _Object) -> None:
        with self._lock:
            self._need(len(stored.data))
            self._objects[name] = stored

    def _need(self, length: int) -> None:
        used = sum(len(stored.data) for stored in self._objects.values())
        if self._capacity_bytes is not None and used + length > self._capacity_bytes:
            raise Refusal(Reason.STORE_FULL, "object store is full")


class _MemoryWriter:
    def __init__(self, store: MemoryBlobs, name: str) -> None:
        self._store = store
        self.name = name
        self._data: bytearray | None = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._data is None:
            raise ValueError("the writer is closed")
        self._data += data

    def commit(self, attributes: dict[str, bytes]) -> None:
        if self._data is None:
            raise ValueError("the writer is closed")
        pack(attributes)  # for its limit
        data, self._data = bytes(self._data), None
        self._store._put(self.name, _Object(data, dict(attributes)))

    def abort(self) -> None:
        self._data = None
