"""Encapsulated data (PS3.5 section A.4): items of which only places are kept, not contents."""

import struct
from array import array

from node.domain.errors import Reason, Refusal

_head = struct.Struct("<HHI").unpack_from
_ITEM, _END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)


class Region:
    """One encapsulated value: a Basic Offset Table item, fragment items, a sequence delimiter.

    `offset`: where its first item begins in the dataset; `length`: all items, without the delimiter;
    `table`: the Basic Offset Table as encoded; `lengths`: the fragments' lengths, in order. `feed`
    takes the stream until `done`. `room` bounds the length (enclosing item), `table_bytes` the offset
    table and `fragments_max` the number of fragments.
    """

    __slots__ = (
        "_first", "_fragments_max", "_left", "_partial", "_room", "_table_bytes",
        "done", "length", "lengths", "offset", "table",
    )  # fmt: skip

    def __init__(self, offset: int, room: int, table_bytes: int, fragments_max: int) -> None:
        self.offset = offset
        self.length = 0
        self.table = bytearray()
        self.lengths = array("I")
        self.done = False
        self._room = room
        self._table_bytes = table_bytes
        self._fragments_max = fragments_max
        self._first = True
        self._left = 0
        self._partial = bytearray()

    def feed(self, data: memoryview) -> int:
        """Take bytes of the stream; returns how many were taken (all, unless it is `done`)."""
        size = len(data)
        pos = 0
        while pos < size and not self.done:
            if self._left:
                taken = min(self._left, size - pos)
                if not self.lengths:  # no fragment has begun: this is the offset table
                    self.table += data[pos : pos + taken]
                self._left -= taken
            else:
                taken = min(8 - len(self._partial), size - pos)
                self._partial += data[pos : pos + taken]
                if len(self._partial) == 8:
                    self._item(*_head(self._partial, 0))
                    self._partial.clear()
            pos += taken
        return pos

    def _item(self, group: int, number: int, length: int) -> None:
        at = self.offset + self.length
        if (group, number) == _END and not length:
            self.done = True
            if self._first:
                raise Refusal(Reason.NOT_UNDERSTOOD, f"encapsulated data without any item at offset {at}")
            return
        if (group, number) != _ITEM or length == 0xFFFFFFFF:
            raise Refusal(Reason.NOT_UNDERSTOOD, f"no item in encapsulated data at offset {at}")
        self.length += 8 + length
        if self.length > self._room:
            raise Refusal(Reason.NOT_UNDERSTOOD, f"fragment overruns its item at offset {at}")
        if self._first:
            self._first = False
            if length > self._table_bytes:
                raise Refusal(Reason.TOO_LARGE, f"Basic Offset Table of {length} bytes")
        else:
            if len(self.lengths) >= self._fragments_max:
                raise Refusal(Reason.TOO_LARGE, f"more than {self._fragments_max} fragments and elements")
            self.lengths.append(length)
        self._left = length

    def fragments(self) -> list[tuple[int, int]]:
        """(offset, length) of each fragment's bytes within the dataset."""
        at = self.offset + 8 + len(self.table)
        found = []
        for length in self.lengths:
            found.append((at + 8, length))
            at += 8 + length
        return found

    def pack(self) -> bytes:
        """A form that `unpack` reads."""
        lengths = self.lengths
        fixed = struct.pack("<QQII", self.offset, self.length, len(self.table), len(lengths))
        return b"".join((fixed, self.table, struct.pack(f"<{len(lengths)}I", *lengths)))

    @classmethod
    def unpack(cls, packed: bytes, at: int) -> "tuple[Region, int]":
        """The region packed at position `at`, and the position after it."""
        offset, length, table_bytes, count = struct.unpack_from("<QQII", packed, at)
        at += 24
        region = cls(offset, length, table_bytes, count)
        region.length = length
        region.table = bytearray(packed[at : at + table_bytes])
        at += table_bytes
        region.lengths = array("I", struct.unpack_from(f"<{count}I", packed, at))
        region.done = True
        return region, at + 4 * count
