"""Objects in a Ceph pool (erasure-coded, without overwrites), through librados.

An object `<name>` is one RADOS object, its head: the bytes and one attribute (layout and the caller's
attributes, packed), written in one atomic operation that fails if the head exists. So an object is
there, whole, exactly when its head is.

What is larger than a part goes into parts `<name>.0`, `<name>.1`, …, written while the bytes arrive;
then the head, last, without bytes of its own: a reader that gets fewer bytes than it asked for from a
head looks at the layout. Invariants, which removal and listing rest on:

- A part is written (exclusively) only after all before it are there; parts are removed from the last
  to the first, and only after the head. So parts without a head always include part 0, and have no
  gap.
- After a time-out nobody knows what was written, and it may land later. Then nothing is removed here,
  least of all parts of a head that may exist: `names` finds parts without a head, or a head that no
  row refers to, and the collector removes them when they are old enough.

Parts are small beside what Ceph could take (90 MB an operation), since each open writer holds one.
"""

import secrets
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from node.adapters.blobs_common import Health, checked_name, checked_range, is_name, pack, unpack
from node.adapters.blobs_rados_pool import RadosPool
from node.domain.errors import Reason, Refusal
from node.ports import BlobWriter

PART_BYTES = 8 << 20
BYTES_IN_FLIGHT_MAX = 64 << 20  # per process
PROBES = 16  # keys that one process's checks use in turn, so that they visit several placement groups

_ATTRIBUTE = "stele"
_LAYOUT = struct.Struct("<4sQQ")  # magic, bytes in all, bytes per part (0: all in the head)
_MAGIC = b"STb1"
_OBJECT_BYTES_MAX = 128 << 20  # Ceph's osd_max_object_size; it refuses reads of gigabytes
_STAT_AT_ONCE = 8
_LIST_BATCH = 256


class RadosBlobs:
    """Blobs in the pool `pool` of the cluster that `conf` (ceph.conf) describes.

    `user` is a cephx entity such as client.stele; its keyring is found by ceph.conf unless given. No
    operation takes longer than `operation_seconds` (whole seconds, rounded up); keep it above OSD
    grace and peering, or the loss of a host turns into refusals.
    """

    def __init__(
        self,
        conf: Path,
        user: str,
        pool: str,
        *,
        operation_seconds: float,
        keyring: Path | None = None,
        part_bytes: int = PART_BYTES,
        bytes_in_flight_max: int = BYTES_IN_FLIGHT_MAX,
    ) -> None:
        self._pool = RadosPool(
            conf,
            user,
            pool,
            operation_seconds=operation_seconds,
            keyring=keyring,
            bytes_in_flight_max=bytes_in_flight_max,
        )
        self._part_bytes = part_bytes
        self._health = Health(self._probe)
        self._probe_label = secrets.token_hex(8)
        self._probes = 0

    def create(self) -> BlobWriter:
        """Begin an object; see the port. The name is random; that nobody has it is seen when writing."""
        return self._create(uuid4().hex)

    def _create(self, name: str) -> BlobWriter:
        return _RadosWriter(self._pool, name, self._part_bytes)

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`; see the port. CORRUPT too if Ceph gives them up."""
        checked_range(offset, length)
        head = b""
        if length:  # to RADOS, a length of 0 means all
            head = self._pool.read(checked_name(name), offset, min(length, _OBJECT_BYTES_MAX))
            if len(head) == length:
                return head
        layout, _ = self._head(name)
        if offset + length > layout.size or (length and not layout.part_bytes):
            raise Refusal(Reason.CORRUPT, "object is shorter than asked for")
        return self._read_parts(name, layout, offset, length)

    def attributes(self, name: str) -> dict[str, bytes]:
        """The attributes given to `commit`; see the port."""
        _, packed = self._head(name)
        try:
            return unpack(packed)
        except ValueError:
            raise Refusal(Reason.CORRUPT, "object's attributes are not readable") from None

    def size(self, name: str) -> int:
        """Length in bytes; see the port."""
        return self._head(name)[0].size

    def remove(self, name: str) -> None:
        """Remove for good; see the port."""
        try:
            parts = self._head(name)[0].parts
        except Refusal as refusal:
            if refusal.reason is not Reason.NOT_FOUND:
                raise
            parts = 0
            while self._pool.age_seconds(_part(name, parts)) is not None:
                parts += 1
        else:
            self._pool.remove(name)
        _remove_parts(self._pool, name, parts)

    def names(self) -> Iterator[tuple[str, float]]:
        """Every head, and under its object's name what parts are left without one; see the port."""
        keys = self._pool.keys()
        with ThreadPoolExecutor(_STAT_AT_ONCE) as threads:
            while batch := list(islice(keys, _LIST_BATCH)):
                for found in threads.map(self._aged, batch):
                    if found is not None:
                        yield found

    def check(self) -> None:
        """Return if a small object can be written, read and removed now; see the port."""
        self._health.check()

    def close(self) -> None:
        """Disconnect from the cluster."""
        self._pool.close()

    def _head(self, name: str) -> tuple["_Layout", bytes]:
        """(layout, packed attributes)."""
        value = self._pool.attribute(checked_name(name), _ATTRIBUTE)
        if len(value) >= _LAYOUT.size:
            magic, size, part_bytes = _LAYOUT.unpack_from(value)
            if magic == _MAGIC:
                return _Layout(size, part_bytes), value[_LAYOUT.size :]
        raise Refusal(Reason.CORRUPT, "object's layout is not readable")

    def _read_parts(self, name: str, layout: "_Layout", offset: int, length: int) -> bytes:
        pieces: list[bytes] = []
        while length:
            number, start = divmod(offset, layout.part_bytes)
            wanted = min(length, layout.part_bytes - start)
            try:
                piece = self._pool.read(_part(name, number), start, wanted)
            except Refusal as refusal:
                if refusal.reason is not Reason.NOT_FOUND:
                    raise
                self._head(name)  # NOT_FOUND: it was removed meanwhile
                piece = b""
            if len(piece) != wanted:
                raise Refusal(Reason.CORRUPT, "object has lost a part")
            pieces.append(piece)
            offset, length = offset + wanted, length - wanted
        return b"".join(pieces)

    def _aged(self, key: str) -> tuple[str, float] | None:
        """What `names` says of a key: nothing of parts, but of part 0 if there is no head."""
        name, dot, part = key.partition(".")
        if not is_name(name) or (dot and part != "0"):
            return None
        if dot and self._pool.age_seconds(name) is not None:
            return None
        age = self._pool.age_seconds(key)
        return None if age is None else (name, age)

    def _probe(self) -> None:
        self._probes += 1
        key = f"probe.{self._probe_label}.{self._probes % PROBES}"
        self._pool.remove(key)  # what an earlier probe may have left
        self._pool.create(key, _MAGIC, {})
        if self._pool.read(key, 0, len(_MAGIC)) != _MAGIC:
            raise Refusal(Reason.UNAVAILABLE, "object store does not keep what is written")
        self._pool.remove(key)


class _Layout(NamedTuple):
    """How an object lies in the pool. `part_bytes` is 0 if all of it is in the head."""

    size: int
    part_bytes: int

    @property
    def parts(self) -> int:
        return -(-self.size // self.part_bytes) if self.part_bytes else 0


class _RadosWriter:
    def __init__(self, pool: RadosPool, name: str, part_bytes: int) -> None:
        self._pool = pool
        self.name = name
        self._part_bytes = part_bytes
        self._buffer = bytearray()
        self._size = 0
        self._parts = 0  # written by us
        self._taken = False  # another writer has the name; `commit` says so
        self._open = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._open:
            raise ValueError("the writer is closed")
        with memoryview(data) as whole, whole.cast("B") as view:
            done = 0
            while done < len(view) and not self._taken:
                if len(self._buffer) == self._part_bytes:
                    self._flush()
                taken = min(len(view) - done, self._part_bytes - len(self._buffer))
                self._buffer += view[done : done + taken]
                done += taken
            self._size += len(view)

    def commit(self, attributes: dict[str, bytes]) -> None:
        if not self._open:
            raise ValueError("the writer is closed")
        packed = pack(attributes)
        if self._parts and self._buffer:
            self._flush()
        self._open = False
        layout = _LAYOUT.pack(_MAGIC, self._size, self._part_bytes if self._parts else 0)
        try:
            if self._taken:
                raise FileExistsError(self.name)
            self._pool.create(self.name, bytes(self._buffer), {_ATTRIBUTE: layout + packed})
        except (FileExistsError, Refusal) as error:
            self._clear_up(error)
            raise
        finally:
            self._buffer.clear()

    def abort(self) -> None:
        if self._open:
            self._open = False
            self._buffer.clear()
            self._clear_up(None)

    def _flush(self) -> None:
        try:
            self._pool.create(_part(self.name, self._parts), bytes(self._buffer), {})
            self._parts += 1
        except FileExistsError:
            self._taken = True
        except Refusal as refusal:
            self._open = False
            self._clear_up(refusal)
            raise
        finally:
            self._buffer.clear()

    def _clear_up(self, error: Exception | None) -> None:
        """Remove our parts, unless the last operation's outcome is unknown: see the module. Parts that
        cannot be removed now are the collector's."""
        if isinstance(error, Refusal) and error.reason is Reason.UNAVAILABLE:
            return
        try:
            _remove_parts(self._pool, self.name, self._parts)
        except Refusal:
            pass


def _part(name: str, number: int) -> str:
    return f"{name}.{number}"


def _remove_parts(pool: RadosPool, name: str, count: int) -> None:
    """From the last to the first."""
    for number in reversed(range(count)):
        pool.remove(_part(name, number))
