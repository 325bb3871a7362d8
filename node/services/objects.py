"""Datasets as objects: written once under a fresh name, read back only if their digest is right.

An object is a Part 10 file: a prefix (preamble and file meta information) that makes it readable on its
own, then the dataset exactly as received. Beside it lie its digests: BLAKE3 of the whole dataset and,
for datasets of more than one piece, of every piece of `PIECE_BYTES`, so that a range of a large object is
checked without reading all of it. Whatever leaves this module has been compared with a digest; bytes
that fail raise Refusal(CORRUPT) and are never handed on.

A dataset of up to `spill_bytes` is held in memory while it arrives, within a budget that the process's
intakes share. A larger one, or one that finds the budget spent, goes to the store in pieces as it
arrives: nobody waits for memory, so slow peers cannot starve the others of it.
"""

import itertools
import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from blake3 import blake3

from node import metrics
from node.domain.errors import Reason, Refusal
from node.domain.model import StoredObject
from node.ports import Blobs, BlobWriter
from node.services.ahead import Job, ReadAhead

PIECE_BYTES = 4 << 20

Chunk = bytes | bytearray | memoryview


class Budget:
    """Dataset bytes that one process may hold in memory; `take` never waits."""

    def __init__(self, limit_bytes: int) -> None:
        self._free = limit_bytes
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Reserve `size` bytes, or say that there is no room."""
        with self._lock:
            if size > self._free:
                return False
            self._free -= size
        metrics.BUDGET_BYTES.inc(size)
        return True

    def give(self, size: int) -> None:
        """Give `size` bytes back."""
        with self._lock:
            self._free += size
        metrics.BUDGET_BYTES.dec(size)


@dataclass(frozen=True, slots=True)
class Digests:
    """What lies beside an object."""

    prefix_length: int
    prefix_digest: bytes
    dataset_length: int
    digest: bytes
    pieces: tuple[bytes, ...]

    def pack(self) -> dict[str, bytes]:
        """As the blob's attributes."""
        about = {
            "version": 2,
            "prefix_length": self.prefix_length,
            "prefix_digest": self.prefix_digest.hex(),
            "dataset_length": self.dataset_length,
            "digest": self.digest.hex(),
            "piece_bytes": PIECE_BYTES,
        }
        return {"stele.object": json.dumps(about).encode(), "stele.pieces": b"".join(self.pieces)}

    @classmethod
    def unpack(cls, attributes: dict[str, bytes]) -> "Digests":
        """From the blob's attributes; Refusal(CORRUPT) if they are not ours."""
        try:
            about = json.loads(attributes["stele.object"])
            pieces = attributes["stele.pieces"]
            if about["version"] != 2 or about["piece_bytes"] != PIECE_BYTES or len(pieces) % 32:
                raise ValueError
            return cls(
                about["prefix_length"],
                bytes.fromhex(about["prefix_digest"]),
                about["dataset_length"],
                bytes.fromhex(about["digest"]),
                tuple(pieces[at : at + 32] for at in range(0, len(pieces), 32)),
            )
        except (KeyError, ValueError, TypeError):
            raise Refusal(Reason.CORRUPT, "an object without its digests") from None


class ObjectWriter:
    """A dataset on its way into the store. Use by one thread; `finish` or `abort` ends it."""

    def __init__(self, blobs: Blobs, budget: Budget, prefix: bytes, spill_bytes: int) -> None:
        self._blobs = blobs
        self._budget = budget
        self._prefix = prefix
        self._spill_bytes = spill_bytes
        self._blob: BlobWriter | None = None
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._length = 0
        self._whole = blake3()
        self._piece = self._whole  # the first piece's hash is the whole's, until a second one begins
        self._pieces: list[bytes] = []

    def write(self, data: Chunk) -> None:
        """Append dataset bytes; the buffer may be reused afterwards."""
        self._digest(data)
        size = len(data)
        if self._blob is None and self._length <= self._spill_bytes and self._budget.take(size):
            self._held.append(bytes(data))
            self._held_bytes += size
            return
        self._opened().write(data)

    def finish(self) -> StoredObject:
        """Make the object durable; on return it can be read by name."""
        try:
            blob = self._opened()
            digest = self._whole.digest()
            if self._pieces and self._length % PIECE_BYTES:
                self._pieces.append(self._piece.digest())
            digests = Digests(
                len(self._prefix),
                blake3(self._prefix).digest(),
                self._length,
                digest,
                tuple(self._pieces) if self._length > PIECE_BYTES else (),
            )
            blob.commit(digests.pack())
        except BaseException:
            self.abort()
            raise
        return StoredObject(blob.name, len(self._prefix), self._length, digest)

    def abort(self) -> None:
        """Leave nothing behind."""
        self._let_go()
        if self._blob is not None:
            self._blob.abort()

    def _digest(self, data: Chunk) -> None:
        view = memoryview(data)
        while view:
            room = PIECE_BYTES - self._length % PIECE_BYTES
            part = view[:room]
            if self._length and room == PIECE_BYTES:
                self._piece = blake3()  # a piece begins that is not the first
            self._whole.update(part)
            if self._piece is not self._whole:
                self._piece.update(part)
            self._length += len(part)
            if self._length % PIECE_BYTES == 0:
                self._pieces.append(self._piece.digest())
            view = view[room:]

    def _opened(self) -> BlobWriter:
        """The blob, with what was held written to it."""
        if self._blob is None:
            self._blob = self._blobs.create()
            self._blob.write(b"".join((self._prefix, *self._held)))
            self._let_go()
        return self._blob

    def _let_go(self) -> None:
        self._held.clear()
        self._budget.give(self._held_bytes)
        self._held_bytes = 0


class Objects:
    """The store of datasets."""

    def __init__(self, blobs: Blobs, budget_bytes: int, spill_bytes: int) -> None:
        self._blobs = blobs
        self._budget = Budget(budget_bytes)
        self._spill_bytes = spill_bytes
        self._ahead = ReadAhead()

    def begin(self, prefix: bytes) -> ObjectWriter:
        """Begin a dataset whose Part 10 prefix is `prefix`."""
        return ObjectWriter(self._blobs, self._budget, prefix, self._spill_bytes)

    def stream(self, stored: StoredObject) -> Iterator[bytes]:
        """The dataset, checked piece by piece before each is handed on."""
        return self.stream_range(stored, 0, stored.dataset_length)

    def stream_range(self, stored: StoredObject, offset: int, length: int) -> Iterator[bytes]:
        """`length` dataset bytes from `offset`, in pieces; each piece is read once and checked whole."""
        if offset < 0 or length < 0 or offset + length > stored.dataset_length:
            raise Refusal(Reason.CORRUPT, "a range beyond the end of the dataset")
        first = offset // PIECE_BYTES * PIECE_BYTES
        with closing(self._ahead.run(self._pieces(stored, first, offset + length))) as pieces:
            for start, piece in zip(itertools.count(first, PIECE_BYTES), pieces):
                yield piece[max(0, offset - start) : offset + length - start]

    def stream_each(self, wanted: Iterable[StoredObject]) -> Iterator[Iterator[bytes]]:
        """`stream` of each, the next one's bytes being read while the former's are used: take them in turn,
        each to its end."""
        objects, jobs = itertools.tee(wanted)
        with closing(self._ahead.run(job for stored in jobs for job in self._all(stored))) as pieces:
            for stored in objects:
                yield itertools.islice(pieces, max(1, -(-stored.dataset_length // PIECE_BYTES)))

    def read(self, stored: StoredObject) -> bytes:
        """The whole dataset, checked."""
        return b"".join(self.stream(stored))

    def read_range(self, stored: StoredObject, offset: int, length: int) -> bytes:
        """`length` dataset bytes from `offset`, checked."""
        return b"".join(self.stream_range(stored, offset, length))

    def unchecked(self, stored: StoredObject) -> Iterator[bytes]:
        """The dataset in pieces as it lies there, for who compares the whole with its digest himself and
        hands nothing on before (`node.services.restore`)."""
        for offset in range(0, stored.dataset_length, PIECE_BYTES):
            length = min(PIECE_BYTES, stored.dataset_length - offset)
            yield self._blobs.read(stored.name, stored.prefix_length + offset, length)

    def digests(self, stored: StoredObject) -> Digests:
        """What lies beside the object; Refusal(CORRUPT) if it tells of other bytes than the row."""
        digests = self.digests_of(stored.name)
        pieces = -(-stored.dataset_length // PIECE_BYTES) if stored.dataset_length > PIECE_BYTES else 0
        told = (digests.prefix_length, digests.dataset_length, digests.digest, len(digests.pieces))
        if told != (stored.prefix_length, stored.dataset_length, stored.digest, pieces):
            raise Refusal(Reason.CORRUPT, "an object's digests differ from its row's")
        return digests

    def digests_of(self, name: str) -> Digests:
        """What lies beside the object `name`, for those who have no row (rebuild)."""
        return Digests.unpack(self._blobs.attributes(name))

    def prefix(self, name: str, digests: Digests) -> bytes:
        """The object's Part 10 prefix, checked."""
        prefix = self._blobs.read(name, 0, digests.prefix_length)
        if blake3(prefix).digest() != digests.prefix_digest:
            raise Refusal(Reason.CORRUPT, "an object's prefix fails its digest")
        return prefix

    def whole(self, stored: StoredObject) -> bool:
        """Whether the object is there in full length (its bytes are not read)."""
        try:
            return self._blobs.size(stored.name) == stored.prefix_length + stored.dataset_length
        except Refusal as refusal:
            if refusal.reason in (Reason.NOT_FOUND, Reason.CORRUPT):
                return False
            raise

    def intact(self, stored: StoredObject) -> bool:
        """Whether the object can be read to its end with the right bytes."""
        try:
            for _ in self.stream(stored):
                pass
        except Refusal as refusal:
            if refusal.reason in (Reason.NOT_FOUND, Reason.CORRUPT):
                return False
            raise
        return True

    def exists(self, name: str) -> bool:
        """Whether there is an object of this name, in whatever condition."""
        try:
            self._blobs.size(name)
        except Refusal as refusal:
            if refusal.reason not in (Reason.NOT_FOUND, Reason.CORRUPT):
                raise
            return refusal.reason is Reason.CORRUPT
        return True

    def remove(self, name: str) -> None:
        """Remove an object that no row refers to."""
        self._blobs.remove(name)

    def names(self) -> Iterator[tuple[str, float]]:
        """Every object as (name, age in seconds)."""
        return self._blobs.names()

    def check(self) -> None:
        """Return if objects can be written and read now."""
        self._blobs.check()

    def close(self) -> None:
        """Release the store's connections."""
        self._ahead.close()
        self._blobs.close()

    def _all(self, stored: StoredObject) -> Iterator[Job]:
        return self._pieces(stored, 0, stored.dataset_length)

    def _pieces(self, stored: StoredObject, start: int, end: int) -> Iterator[Job]:
        """Reads of the pieces that begin at `start` and hold what lies before `end`, each checked whole."""
        length = stored.dataset_length
        if length <= PIECE_BYTES:
            yield length, partial(self._checked, stored, 0, length, stored.digest)
            return
        digests = self.digests(stored).pieces
        for at in range(start, end, PIECE_BYTES):
            size = min(PIECE_BYTES, length - at)
            yield size, partial(self._checked, stored, at, size, digests[at // PIECE_BYTES])

    def _checked(self, stored: StoredObject, offset: int, length: int, digest: bytes) -> bytes:
        data = self._blobs.read(stored.name, stored.prefix_length + offset, length)
        if blake3(data).digest() != digest:
            raise Refusal(Reason.CORRUPT, "stored bytes fail their digest")
        return data
