"""The walk through an encoded dataset (PS3.5 section 7), element by element, as bytes arrive.

Theory of operation. Bytes are gathered in `buffer`, out of which every value that is too large to keep
has been left ("cut"), so a position in the buffer and an offset in the dataset differ by `shift`, the
bytes left out so far. `advance` walks as far as the buffer goes and stops before the first element that
is not wholly there. Nesting is an explicit stack, never recursion. Four things end a step:

- the buffer is used up: `need` says how long it must be for the next step to get anywhere;
- a value is cut: `skip` bytes of the stream are to be passed over;
- encapsulated data begins: `region` takes the stream until its sequence delimiter (`Region.feed`);
- the dataset is followed by zero bytes: `pad` takes the rest of the stream, which must be nothing else.

Zeros behind the last element are no element ((0000,0000) belongs to commands); writers that fill up blocks
leave them there. They are part of what was received and are kept with it, but nothing else is: a single
other byte among them, and the dataset is refused.

Invariant: everything before `pos` is checked, and a finished walk has seen every byte of the dataset.

The same walk reads a packed header again, in which cut values are missing: the places of
encapsulated data come from its first reading, in order, and nothing is skipped.
"""

import struct
from collections import deque
from dataclasses import dataclass

from node.domain.dictionary import VRS, vr_of
from node.domain.errors import Reason, Refusal
from node.domain.region import Region
from node.domain.vr import BULK, CUT_BYTES, LONG, SHORT, WIDTHS

# (VR, start, length, items). `start` is a position in the kept bytes, or, if the value was cut, the
# complement (~) of its offset in the dataset, which is negative. `items` is None but for sequences.
Element = tuple[str, int, int, "list[Elements] | None"]
Elements = dict[int, Element]

ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
UNDEFINED = 0xFFFFFFFF
FLOAT_PIXELS, DOUBLE_PIXELS, PIXELS = 0x7FE00008, 0x7FE00009, 0x7FE00010
PIXEL_TAGS = frozenset({FLOAT_PIXELS, DOUBLE_PIXELS, PIXELS})
# Extended Offset Table and its lengths: long, and needed to find frames
_NEVER_CUT = frozenset({0x7FE00001, 0x7FE00002})
# Tags at or below it are looked at twice: groups 0000 and 0002 belong to commands and file meta information
_BEFORE_FIRST = 0x0003FFFF
_ENDLESS = 1 << 63
_DELIMITERS = 0xFFFE0000  # tags from here on are not elements

_HEAD, _HEAD_BIG = struct.Struct("<HH2sH").unpack_from, struct.Struct(">HH2sH").unpack_from
_PLAIN, _PLAIN_BIG = struct.Struct("<HHI").unpack_from, struct.Struct(">HHI").unpack_from
_LENGTH, _LENGTH_BIG = struct.Struct("<I").unpack_from, struct.Struct(">I").unpack_from
_MASKS = {vr: width - 1 for vr, width in WIDTHS.items()}


def _refused(tag: int, offset: int, what: str) -> Refusal:
    return Refusal(Reason.NOT_UNDERSTOOD, f"({tag >> 16:04X},{tag & 0xFFFF:04X}) at offset {offset}: {what}")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a dataset may demand.

    `max_header_bytes`: all values that are kept; `max_depth`: nesting of sequences; `max_elements`:
    elements, items and fragments on all levels together; `max_object_bytes`: the dataset, inflated.
    """

    max_header_bytes: int
    max_depth: int
    max_elements: int
    max_object_bytes: int


NO_LIMITS = Limits(_ENDLESS, 1 << 20, _ENDLESS, _ENDLESS)


@dataclass(slots=True)
class _Level:
    """What is gone back to when an item or a sequence ends."""

    items: "list[Elements] | None"  # of the sequence, or None if this level is a dataset
    elements: Elements
    last: int
    bound: int  # offset at which this level ends at the latest
    open: bool  # ended by a delimiter
    explicit: bool
    big: bool


class Walk:
    """One walk; see the module's docstring. Raises Refusal as `HeaderReader` describes."""

    def __init__(
        self, explicit: bool, big: bool, limits: Limits, packed: tuple[bytes, "deque[Region]"] | None = None
    ) -> None:
        self.top: Elements = {}
        self.buffer = bytearray() if packed is None else bytearray(packed[0])
        self.pos = 0
        self.shift = 0
        self.need = 8
        self.skip = 0
        self.region: Region | None = None
        self.regions: list[Region] = []
        self._stored = deque[Region]() if packed is None else packed[1]
        self._encapsulated: tuple[Elements, int, str] = ({}, 0, "")  # whose value `region` is
        self.padding = False
        self.seen_pixels = False
        self.ascending = True
        self._twice: list[tuple[Elements, int, Element, int]] = []  # dataset, tag, first element, offset
        self.count = 0
        self._packed = packed is not None
        self._limits = limits
        self._stack: list[_Level] = []
        self._at = _Level(None, self.top, _BEFORE_FIRST, _ENDLESS, False, explicit, big)

    # --- Stepping ---------------------------------------------------------------------------------

    def advance(self) -> None:
        """Walk on as far as the buffer goes, a value is cut or encapsulated data begins."""
        again = True
        while again:
            at = self._at
            if at.items is not None:
                again = self._sequence(at)
            elif at.explicit:
                again = self._explicit(at)
            else:
                again = self._implicit(at)

    def complete(self) -> None:
        """Refusal(NOT_UNDERSTOOD) unless the walk stands at the end of a whole dataset."""
        if not self.skip and self.region is None:
            self.advance()  # a cut at the very end leaves levels to be closed
        if self.top and not self._stack and self._zeros_left():
            del self.buffer[self.pos :]
        if self.skip or self.region is not None or self._stack or self.pos != len(self.buffer):
            raise Refusal(
                Reason.NOT_UNDERSTOOD, f"truncated: data ends at offset {self.pos + self.shift}, too early"
            )

        for elements, tag, first, offset in self._twice:
            if not self._same(first, elements[tag]):
                raise _refused(tag, offset, "occurs twice")

    def pad(self, data: bytearray | memoryview) -> int:
        """Take what follows the last element; returns how many bytes. Refusal unless they are zeros."""
        if bytes(data) != bytes(len(data)):
            raise self._broken("more than zeros behind the last element")
        return len(data)

    def _zeros_left(self) -> bool:
        """Whether padding ends the data that is too short to look like an element. A single zero is none:
        it may be half of a group number, and what follows cut off."""
        rest = self.buffer[self.pos :]
        return 1 < len(rest) < 8 and not any(rest)

    def _same(self, first: Element, second: Element) -> bool:
        """Whether an element only says again what an earlier one with its tag said."""
        (vr, start, length, items), (vr2, start2, length2, items2) = first, second
        if (
            (vr, length) != (vr2, length2)
            or items is not None
            or items2 is not None
            or min(start, start2) < 0
        ):
            return False
        return self.buffer[start : start + length] == self.buffer[start2 : start2 + length2]

    def end_region(self) -> None:
        """The region has been fed to its end: go on behind it."""
        region = self.region
        if region is None:
            raise AssertionError("no region is open")
        self.region = None
        self._counted(len(region.lengths))
        self._keep_region(region)

    def _keep_region(self, region: Region) -> None:
        elements, tag, vr = self._encapsulated
        elements[tag] = (vr, ~region.offset, region.length, None)
        self.regions.append(region)
        self.shift += region.length + 8  # and the delimiter

    def _explicit(self, at: _Level) -> bool:
        """Read elements of an explicit VR dataset; True if `advance` is to go on at another level."""
        buffer = self.buffer
        elements = at.elements
        before = len(elements)
        shift = self.shift
        bound = at.bound - shift
        stop = min(bound, len(buffer))
        pos = self.pos
        last = at.last
        head = _HEAD_BIG if at.big else _HEAD
        short_of = SHORT.get
        tag = 0
        while (start := pos + 8) <= stop:
            group, number, code, length = head(buffer, pos)
            tag = group << 16 | number
            short = short_of(code)
            if not last < tag < _DELIMITERS:
                if tag >= _DELIMITERS or not tag:
                    break
                self._disorder(tag, elements, pos)
            if short is None:
                break
            vr, mask = short
            end = start + length
            if end > stop:
                break
            if length & mask:
                raise _refused(tag, pos + shift, f"length {length} is wrong for {vr}")
            elements[tag] = (vr, start, length, None)
            pos = end
            if tag > last:
                last = tag
        else:
            tag = -1
        self.pos = pos
        at.last = last
        self._counted(len(elements) - before)
        return self._boundary(at, bound) if tag < 0 else self._uncommon(at, bound, tag)

    def _implicit(self, at: _Level) -> bool:
        """Read elements of an implicit VR dataset; True if `advance` is to go on at another level."""
        buffer = self.buffer
        elements = at.elements
        before = len(elements)
        bound = at.bound - self.shift
        stop = min(bound, len(buffer))
        pos = self.pos
        last = at.last
        head = _PLAIN_BIG if at.big else _PLAIN
        known = VRS.get
        masks = _MASKS.get
        tag = 0
        while (start := pos + 8) <= stop:
            group, number, length = head(buffer, pos)
            tag = group << 16 | number
            if not last < tag < _DELIMITERS:
                if tag >= _DELIMITERS or not tag:
                    break
                self._disorder(tag, elements, pos)
            vr = known(tag) or vr_of(tag)
            end = start + length
            if end > stop or length > CUT_BYTES or vr == "SQ" or tag in PIXEL_TAGS:
                break
            if length & masks(vr, 0):
                vr = "UN"  # the dictionary only guesses here: the writer knew another VR
            elements[tag] = (vr, start, length, None)
            pos = end
            if tag > last:
                last = tag
        else:
            tag = -1
        self.pos = pos
        at.last = last
        self._counted(len(elements) - before)
        return self._boundary(at, bound) if tag < 0 else self._uncommon(at, bound, tag)

    def _boundary(self, at: _Level, bound: int) -> bool:
        """No element header fits between `pos` and the end of buffer or level."""
        pos = self.pos
        if pos == bound:
            if at.open:
                raise self._broken("delimiter missing")
            self._at = self._stack.pop()
            return True
        if bound - pos < 8:
            raise self._broken("element overruns its item or sequence")
        return self._wants(pos + 8)

    def _uncommon(self, at: _Level, bound: int, tag: int) -> bool:
        """An element at `pos` that the inner loops leave: delimiters, long forms, incomplete values."""
        buffer, pos = self.buffer, self.pos
        start = pos + 8
        if not tag:
            if self._stack or not self.top:
                self._disorder(tag, at.elements, pos)
            self.pad(buffer[pos:])
            del buffer[pos:]
            self.padding = True
            return False
        if tag >= _DELIMITERS:
            length = (_PLAIN_BIG if at.big else _PLAIN)(buffer, pos)[2]
            if tag != ITEM_END or length or not at.open:
                raise _refused(tag, pos + self.shift, "not expected here")
            self.pos = start
            self._at = self._stack.pop()
            return True
        if not at.explicit:
            vr, length = vr_of(tag), (_PLAIN_BIG if at.big else _PLAIN)(buffer, pos)[2]
            if length == UNDEFINED and vr not in ("OB", "OW"):
                vr = "SQ"
            elif length & _MASKS.get(vr, 0):
                vr = "UN"
        else:
            code = bytes(buffer[pos + 4 : pos + 6])
            if code in SHORT:
                return self._wants(
                    start + self._within(bound, start, (_HEAD_BIG if at.big else _HEAD)(buffer, pos)[3])
                )
            if code not in LONG:
                raise _refused(tag, pos + self.shift, "unknown VR")
            if bound < pos + 12:
                raise self._broken("element overruns its item or sequence")
            if len(buffer) < pos + 12:
                return self._wants(pos + 12)
            vr, mask = LONG[code]
            length = (_LENGTH_BIG if at.big else _LENGTH)(buffer, start)[0]
            start += 4
            if length & mask and length != UNDEFINED:
                raise _refused(tag, pos + self.shift, f"length {length} is wrong for {vr}")
        return self._long(at, bound, tag, vr, start, length)

    def _long(self, at: _Level, bound: int, tag: int, vr: str, start: int, length: int) -> bool:
        """Take an element whose value begins at `start`, whatever its length."""
        if vr == "SQ" or (vr == "UN" and length == UNDEFINED):
            return self._begin_sequence(at, bound, tag, vr, start, length)
        if length == UNDEFINED:
            if vr not in ("OB", "OW"):
                raise _refused(tag, self.pos + self.shift, f"undefined length for {vr}")
            return self._begin_region(at, tag, vr, start)
        self._within(bound, start, length)
        if vr in BULK and (tag in PIXEL_TAGS or (length > CUT_BYTES and tag not in _NEVER_CUT)):
            at.elements[tag] = (vr, ~(start + self.shift), length, None)
            self._past(at, tag, start)
            self.shift += length
            if self._packed or not length:
                return True
            self.skip = length
            return False
        if start + length > len(self.buffer):
            return self._wants(start + length)
        at.elements[tag] = (vr, start, length, None)
        self._past(at, tag, start + length)
        return True

    def _past(self, at: _Level, tag: int, pos: int) -> None:
        """An element of the level is taken, `pos` is behind it."""
        self.pos = pos
        at.last = max(at.last, tag)
        self._counted(1)
        if tag >= FLOAT_PIXELS and not self._stack:
            self.seen_pixels = True

    def _begin_sequence(self, at: _Level, bound: int, tag: int, vr: str, start: int, length: int) -> bool:
        items: list[Elements] = []
        at.elements[tag] = (vr, start, length, items)
        if len(self._stack) // 2 >= self._limits.max_depth:
            raise _refused(tag, self.pos + self.shift, f"deeper than {self._limits.max_depth} sequences")
        is_open = length == UNDEFINED
        end = at.bound if is_open else start + self.shift + self._within(bound, start, length)
        self._past(at, tag, start)
        self._stack.append(at)
        # UN of undefined length holds implicit VR little endian, whatever is around it (6.2.2 note 2)
        explicit, big = (at.explicit, at.big) if vr == "SQ" else (False, False)
        self._at = _Level(items, {}, 0, end, is_open, explicit, big)
        return True

    def _sequence(self, at: _Level) -> bool:
        """Read an item's head or the sequence's end."""
        pos = self.pos
        bound = at.bound - self.shift
        if bound - pos < 8 or len(self.buffer) < pos + 8:
            return self._boundary(at, bound)
        group, number, length = (_PLAIN_BIG if at.big else _PLAIN)(self.buffer, pos)
        tag = group << 16 | number
        self.pos = start = pos + 8
        if tag == SEQUENCE_END and at.open and not length:
            self._at = self._stack.pop()
            return True
        if tag != ITEM or at.items is None:
            raise _refused(tag, pos + self.shift, "not expected in a sequence")
        elements: Elements = {}
        at.items.append(elements)
        self._counted(1)
        is_open = length == UNDEFINED
        end = at.bound if is_open else start + self.shift + self._within(bound, start, length)
        self._stack.append(at)
        self._at = _Level(None, elements, _BEFORE_FIRST, end, is_open, at.explicit, at.big)
        return True

    def _begin_region(self, at: _Level, tag: int, vr: str, start: int) -> bool:
        offset = start + self.shift
        at.elements[tag] = (vr, ~offset, 0, None)
        self._past(at, tag, start)
        self._encapsulated = (at.elements, tag, vr)
        if self._packed:
            if not self._stored:
                raise self._broken("encapsulated data without its places")
            self._keep_region(self._stored.popleft())
            return True
        limits = self._limits
        self.region = Region(
            offset, at.bound - 8 - offset, limits.max_header_bytes, limits.max_elements - self.count
        )
        return False

    # --- Checks -----------------------------------------------------------------------------------

    def _wants(self, size: int) -> bool:
        """The buffer must reach `size` before the walk gets on; False, for `advance`."""
        if size > self._limits.max_header_bytes:
            raise Refusal(Reason.TOO_LARGE, f"header over {self._limits.max_header_bytes} bytes")
        self.need = size
        return False

    def _within(self, bound: int, start: int, length: int) -> int:
        """`length`, if a value of that length at `start` stays within the level."""
        if start + length > bound:
            raise self._broken(f"length {length} overruns its item or sequence")
        return length

    def _counted(self, elements: int) -> None:
        self.count += elements
        if self.count > self._limits.max_elements:
            raise Refusal(Reason.TOO_LARGE, f"more than {self._limits.max_elements} elements")

    def _disorder(self, tag: int, elements: Elements, pos: int) -> None:
        """A tag that does not ascend. Real images have them, some even the same element twice."""
        if tag in elements:
            self._counted(1)
            self._twice.append((elements, tag, elements[tag], pos + self.shift))
        if tag >> 16 in (0, 2):
            raise _refused(tag, pos + self.shift, "does not belong in a dataset")
        self.ascending = False

    def _broken(self, what: str) -> Refusal:
        return Refusal(Reason.NOT_UNDERSTOOD, f"offset {self.pos + self.shift}: {what}")
