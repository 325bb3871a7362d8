"""A Part 10 object as raw elements, and the same written in another encoding.

Values stay the bytes they were: text is never decoded, numbers are only byte-swapped between big and
little endian, a value whose VR nobody knows goes out as UN (PS3.5 section 6.2.2). Group lengths
(gggg,0000) are dropped where lengths change. What cannot be read to the end is refused.
"""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from pydicom.datadict import dictionary_has_tag, dictionary_VR, repeater_has_tag

from node.domain.errors import Reason, Refusal
from node.domain.syntaxes import EXPLICIT_LITTLE, SYNTAXES, Syntax

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_PIXEL_DATA = 0x7FE00010, 0x7FE00008, 0x7FE00009
PIXELS = (PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_PIXEL_DATA)
MAX_DEPTH = 100
MAX_ELEMENTS = 2_000_000

# VRs with a 32-bit length in explicit encodings (PS3.5 section 7.1.2).
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_VRS = _LONG | frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
# Width in bytes of the numbers that are byte-swapped between big and little endian.
_WIDTH = {
    **dict.fromkeys(b"AT OW SS US".split(), 2),
    **dict.fromkeys(b"FL OF OL SL UL".split(), 4),
    **dict.fromkeys(b"FD OD OV SV UV".split(), 8),
}


def refuse(comment: str) -> Refusal:
    """The refusal of an object that cannot be converted."""
    return Refusal(Reason.NOT_ACCEPTABLE, comment)


@dataclass(slots=True)
class Element:
    """One data element: a value, a sequence's items, or an encapsulated value's fragments.

    `vr` is empty where the encoding does not tell it. `raw` is the whole element as it was read.
    """

    tag: int
    vr: bytes
    value: bytes | memoryview = b""
    items: "list[Dataset] | None" = None
    fragments: list[memoryview] | None = None
    raw: memoryview | None = None


@dataclass(slots=True)
class Dataset:
    """Elements in file order."""

    elements: list[Element] = field(default_factory=list)

    def get(self, tag: int) -> Element | None:
        """The element with this tag."""
        return next((element for element in self.elements if element.tag == tag), None)

    def put(self, element: Element) -> None:
        """Replace the element with this tag, or insert it in order."""
        for index, present in enumerate(self.elements):
            if present.tag >= element.tag:
                replaced = present.tag == element.tag
                self.elements[index : index + replaced] = [element]
                return
        self.elements.append(element)

    def drop(self, tag: int) -> None:
        """Remove the element with this tag, if there."""
        self.elements = [element for element in self.elements if element.tag != tag]

    def text(self, tag: int) -> str:
        """A text value without padding; "" if absent."""
        element = self.get(tag)
        return bytes(element.value).decode("latin-1").strip(" \0") if element else ""

    def integer(self, tag: int, default: int = 0, *, signed: bool = False) -> int:
        """The first value of a US or SS element (already little endian)."""
        element = self.get(tag)
        if element is None or len(element.value) < 2:
            return default
        return int.from_bytes(element.value[:2], "little", signed=signed)


class _Reader:
    """Reads elements out of one buffer, in one encoding. Big endian values are swapped while read."""

    def __init__(self, data: memoryview, syntax: Syntax) -> None:
        self.data = data
        self.explicit = syntax.explicit
        self.order: str = "big" if syntax.big_endian else "little"
        self.elements = 0

    def number(self, offset: int, width: int) -> int:
        if offset + width > len(self.data):
            raise refuse(f"truncated at offset {offset}")
        return int.from_bytes(self.data[offset : offset + width], self.order)  # type: ignore[arg-type]

    def tag(self, offset: int) -> int:
        return self.number(offset, 2) << 16 | self.number(offset + 2, 2)

    def dataset(self, offset: int, end: int, depth: int, delimited: bool) -> tuple[Dataset, int]:
        """Elements from `offset` up to `end`, or up to an item delimiter; and where it went on to."""
        if depth > MAX_DEPTH:
            raise refuse("sequences nested too deeply")
        dataset = Dataset()
        while offset < end:
            if depth == 0 and dataset.elements and self.only_zeros(offset, end):
                break  # what some writers leave behind the last element
            if delimited and self.tag(offset) == ITEM_END:
                return dataset, offset + 8
            element, offset = self.element(offset, end, depth)
            dataset.elements.append(element)
        if delimited:
            raise refuse("item without its end")
        return dataset, offset

    def only_zeros(self, offset: int, end: int) -> bool:
        return not any(self.data[offset : offset + 8]) and not bytes(self.data[offset:end]).strip(b"\0")

    def element(self, start: int, end: int, depth: int) -> tuple[Element, int]:
        self.elements += 1
        if self.elements > MAX_ELEMENTS:
            raise refuse("too many elements")
        tag, vr, length, offset = self.header(start)
        if length != UNDEFINED and offset + length > end:
            raise refuse(f"element {tag:08x} is longer than what holds it")
        element = Element(tag, vr)
        unlimited = length == UNDEFINED
        if unlimited and (vr in (b"OB", b"OW") or (not vr and tag == PIXEL_DATA)):
            element.fragments, offset = self.fragments(offset, end)
        elif vr == b"SQ" or unlimited or (not vr and _vr_of(tag) == b"SQ"):
            offset = self.sequence(element, offset, length, end, depth)
        else:
            # Pixel data stays as it is: how wide its numbers are depends on Bits Allocated, not on the VR.
            value = self.data[offset : offset + length]
            swap = self.order == "big" and (depth > 0 or tag not in PIXELS)
            element.value = swapped(value, _WIDTH[vr]) if swap and vr in _WIDTH else value
            offset += length
        element.raw = self.data[start:offset]
        return element, offset

    def header(self, offset: int) -> tuple[int, bytes, int, int]:
        """(tag, VR, length, offset of the value) of the element at `offset`."""
        tag = self.tag(offset)
        if not self.explicit or tag >> 16 == 0xFFFE:
            return tag, b"", self.number(offset + 4, 4), offset + 8
        vr = bytes(self.data[offset + 4 : offset + 6])
        if vr not in _VRS:
            raise refuse(f"unknown VR in element {tag:08x}")
        if vr in _LONG:
            return tag, vr, self.number(offset + 8, 4), offset + 12
        return tag, vr, self.number(offset + 6, 2), offset + 8

    def sequence(self, element: Element, offset: int, length: int, end: int, depth: int) -> int:
        reader = self
        if element.vr == b"UN":
            # A UN of undefined length is a sequence in Implicit VR Little Endian (PS3.5 section 6.2.2).
            reader = _Reader(self.data, SYNTAXES["1.2.840.10008.1.2"])
            reader.elements = self.elements
        element.vr = b"SQ"
        element.items = []
        stop = end if length == UNDEFINED else offset + length
        while offset < stop:
            tag, item_length = reader.tag(offset), reader.number(offset + 4, 4)
            offset += 8
            if tag == SEQUENCE_END and length == UNDEFINED:
                self.elements = reader.elements
                return offset
            if tag != ITEM or (item_length != UNDEFINED and offset + item_length > stop):
                raise refuse(f"bad item in sequence {element.tag:08x}")
            item_end = stop if item_length == UNDEFINED else offset + item_length
            item, offset = reader.dataset(offset, item_end, depth + 1, item_length == UNDEFINED)
            element.items.append(item)
        if length == UNDEFINED:
            raise refuse(f"sequence {element.tag:08x} without its end")
        self.elements = reader.elements
        return offset

    def fragments(self, offset: int, end: int) -> tuple[list[memoryview], int]:
        fragments: list[memoryview] = []
        while offset < end:
            tag, length = self.tag(offset), self.number(offset + 4, 4)
            offset += 8
            if tag == SEQUENCE_END:
                return fragments, offset
            if tag != ITEM or offset + length > end:
                raise refuse("bad fragment in encapsulated pixel data")
            fragments.append(self.data[offset : offset + length])
            offset += length
        raise refuse("encapsulated pixel data without its end")


def swapped(value: bytes | memoryview, width: int) -> bytes:
    """The bytes of each number of `width` bytes in reverse order."""
    if len(value) % width:
        raise refuse("a number is cut off")
    result = bytearray(len(value))
    for byte in range(width):
        result[byte::width] = value[width - 1 - byte :: width]
    return bytes(result)


@lru_cache(maxsize=8192)
def _vr_of(tag: int) -> bytes:
    """The data dictionary's VR, which may be a choice ("US or SS"); b"UN" if unknown."""
    if tag >> 16 & 1:
        return b"LO" if 0x10 <= tag & 0xFFFF <= 0xFF else b"UN"
    if tag & 0xFFFF == 0:
        return b"UL"
    if dictionary_has_tag(tag) or repeater_has_tag(tag):
        return dictionary_VR(tag).encode()
    return b"UN"


@dataclass(slots=True)
class Part10:
    """A parsed object. `dataset` is all of it; its pixel values are views into the buffer read."""

    preamble: bytes
    meta: Dataset
    dataset: Dataset
    syntax: Syntax


def read(data: memoryview, max_bytes: int) -> Part10:
    """Parse a Part 10 object; a deflated dataset may inflate to `max_bytes`. Refusal NOT_ACCEPTABLE."""
    if len(data) < 132 or bytes(data[128:132]) != b"DICM":
        raise refuse("not a Part 10 object")
    reader = _Reader(data, SYNTAXES[EXPLICIT_LITTLE])
    meta, offset = Dataset(), 132
    while offset + 8 <= len(data) and reader.number(offset, 2) == 2:
        element, offset = reader.element(offset, len(data), 0)
        meta.elements.append(element)
    syntax = SYNTAXES.get(meta.text(0x00020010))
    if syntax is None:
        raise refuse("unknown transfer syntax")
    body = data[offset:]
    if syntax.deflated:
        body = memoryview(_inflate(body, max_bytes))
    dataset, _ = _Reader(body, syntax).dataset(0, len(body), 0, delimited=False)
    return Part10(bytes(data[:128]), meta, dataset, syntax)


def _inflate(body: memoryview, max_bytes: int) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(body, max_bytes)
    except zlib.error:
        raise refuse("the deflated dataset is broken") from None
    if not inflater.eof:
        raise refuse("deflated dataset cut off or over the memory limit")
    return inflated


class Writer:
    """Writes elements in a little endian encoding."""

    def __init__(self, explicit: bool) -> None:
        self.explicit = explicit

    def header(self, tag: int, vr: bytes, length: int) -> bytes:
        """The element's tag, VR and length as they are written."""
        head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
        if not self.explicit:
            return head + length.to_bytes(4, "little")
        if vr not in _LONG and length > 0xFFFE:
            vr = b"UN"  # too long for a 16-bit length (PS3.5 section 6.2.2, note 8)
        if vr in _LONG:
            return head + vr + b"\0\0" + length.to_bytes(4, "little")
        return head + vr + length.to_bytes(2, "little")

    def element(self, element: Element, signed: bool, dataset: Dataset) -> list[bytes | memoryview]:
        """An element of `dataset`; `signed` is the Pixel Representation that is in force."""
        if element.items is not None:
            body = b"".join(self._item(item, signed) for item in element.items)
            return [self.header(element.tag, b"SQ", len(body)), body]
        vr = element.vr or (resolve(element.tag, signed, dataset) if self.explicit else b"")
        value = element.value
        padding = b"\0" if len(value) % 2 else b""
        return [self.header(element.tag, vr, len(value) + len(padding)), value, padding]

    def _item(self, item: Dataset, signed: bool) -> bytes:
        representation = item.get(0x00280103)
        if representation is not None:
            signed = item.integer(0x00280103) == 1
        parts: list[bytes | memoryview] = []
        for element in item.elements:
            if element.tag & 0xFFFF:
                parts += self.element(element, signed, item)
        body = b"".join(parts)
        return b"\xfe\xff\x00\xe0" + len(body).to_bytes(4, "little") + body


def resolve(tag: int, signed: bool, dataset: Dataset) -> bytes:
    """The VR of an element read from Implicit VR (PS3.5 section A.1, PS3.6)."""
    vr = _vr_of(tag)
    if b" or " not in vr:
        return vr
    if tag == PIXEL_DATA:
        return b"OW" if dataset.integer(0x00280100, 16) > 8 else b"OB"
    if tag >> 16 == 0x5400:
        return b"OB" if dataset.integer(0x54001004, 16) == 8 else b"OW"
    if vr == b"US or SS":
        return b"SS" if signed else b"US"
    return b"OW"


def encoded(
    dataset: Dataset, source: Syntax, target: Syntax, pixels: Iterable[bytes | memoryview]
) -> Iterator[bytes | memoryview]:
    """The dataset in the target's encoding, with `pixels` (elements as written) in place of its own.

    Elements are copied as they are where both encodings are the same.
    """
    same = source.explicit == target.explicit and not source.big_endian
    writer = Writer(target.explicit)
    signed = dataset.integer(0x00280103) == 1
    for element in dataset.elements:
        if element.tag in PIXELS:
            yield from pixels
        elif same and element.raw is not None:
            yield element.raw
        elif element.tag & 0xFFFF:
            yield from writer.element(element, signed, dataset)


def has_fragments(element: Element) -> bool:
    """Whether an encapsulated value lies inside the element (an icon's pixel data)."""
    return element.fragments is not None or any(
        has_fragments(inner) for item in element.items or () for inner in item.elements
    )


def meta_bytes(part10: Part10, transfer_syntax_uid: str) -> bytes:
    """Preamble and file meta information (PS3.10 section 7.1) for another transfer syntax."""
    part10.meta.drop(0x00020000)
    uid = transfer_syntax_uid.encode()
    part10.meta.put(Element(0x00020010, b"UI", uid + b"\0" * (len(uid) % 2)))
    writer = Writer(explicit=True)
    body = b"".join(
        part for element in part10.meta.elements for part in writer.element(element, False, part10.meta)
    )
    length = writer.header(0x00020000, b"UL", 4) + len(body).to_bytes(4, "little")
    return part10.preamble + b"DICM" + length + body
