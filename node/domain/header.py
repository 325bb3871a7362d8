"""Headers of datasets: reading them as they arrive, asking them, keeping them small.

`HeaderReader` takes the encoded dataset in chunks and checks it to its last byte (`node.domain.walk`
says how); `Header` is what remains: all values but the large opaque ones, of which it knows the place.
"""

import struct
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from node.domain import jsonmodel
from node.domain.errors import Reason, Refusal
from node.domain.inflate import Inflater
from node.domain.model import Attributes
from node.domain.region import Region
from node.domain.syntaxes import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from node.domain.text import character_set
from node.domain.walk import (
    DOUBLE_PIXELS,
    FLOAT_PIXELS,
    NO_LIMITS,
    PIXELS,
    Element,
    Elements,
    Limits,
    Walk,
)

__all__ = ["Header", "HeaderReader", "Limits", "PixelData", "read_header"]

Path = tuple[str | int, ...]
BulkURI = Callable[[Path, int, int], str]

_SLICE_BYTES = 8192  # how much is copied at once while the header is being read
_PACKED_VERSION = b"\1"  # of the packed form and of the rule what is cut, which it relies on
_PACKED = struct.Struct("<QBI")  # dataset length, length of the transfer syntax UID, number of regions
_NATIVE = frozenset({IMPLICIT_LITTLE, EXPLICIT_LITTLE, DEFLATED, EXPLICIT_BIG})

# Attributes that decide how pixels are laid out, and who it is: no other VR will do (UN is what a system
# writes that did not know the attribute), and for numbers no other length.
_DEMANDED = {
    0x00080016: ("UI", 0),
    0x00080018: ("UI", 0),
    0x0020000D: ("UI", 0),
    0x0020000E: ("UI", 0),
    0x00280002: ("US", 2),
    0x00280004: ("CS", 0),
    0x00280006: ("US", 2),
    0x00280008: ("IS", 0),
    0x00280010: ("US", 2),
    0x00280011: ("US", 2),
    0x00280100: ("US", 2),
    0x00280101: ("US", 2),
    0x00280102: ("US", 2),
    0x00280103: ("US", 2),
}
_PIXEL_VRS = {PIXELS: ("OB", "OW", "UN"), FLOAT_PIXELS: ("OF",), DOUBLE_PIXELS: ("OD",)}


@dataclass(frozen=True, slots=True)
class PixelData:
    """Where the pixels lie in the dataset (inflated, if it was deflated).

    Native: `length` bytes at `offset`. Encapsulated: items from `offset`, `length` bytes without the
    delimiter; `fragments` are (offset, length) of the fragments' contents, the Basic Offset Table's
    entries are in `offset_table`, counted from the first fragment's item.
    """

    tag: int
    vr: str
    offset: int
    length: int
    encapsulated: bool
    fragments: list[tuple[int, int]]
    offset_table: tuple[int, ...]


class HeaderReader:
    """Push parser for one dataset in the given transfer syntax.

    Raises Refusal from `feed` and `finish`: NOT_UNDERSTOOD for what breaks the encoding (PS3.5), TOO_LARGE
    beyond a limit, MISMATCH for an attribute with a VR that is not its own. After a Refusal the reader
    is not used any more. Unknown transfer syntaxes are read as Explicit VR Little Endian, as all
    compressed ones are.
    """

    def __init__(self, transfer_syntax_uid: str, limits: Limits) -> None:
        self._transfer_syntax_uid = transfer_syntax_uid
        self._limits = limits
        self._walk = _walk(transfer_syntax_uid, limits)
        self._inflater = Inflater(limits.max_object_bytes) if transfer_syntax_uid == DEFLATED else None
        self._length = 0
        self._finished = False

    @property
    def ready(self) -> bool:
        """All before the pixel data has been read, or all there is."""
        return self._finished or self._walk.seen_pixels

    def passed(self, tag: int) -> bool:
        """Whether a top-level element with a higher tag has been read: `tag` will not come any more,
        unless the dataset is out of order."""
        return any(other > tag for other in self._walk.top)

    def peek(self, tag: int) -> bytes | None:
        """The raw value of a top-level element, if it has been read already; None if not, or if it was cut or
        is a sequence. Also after a Refusal."""
        element = self._walk.top.get(tag)
        if element is None or element[1] < 0 or element[3] is not None:
            return None
        return bytes(self._walk.buffer[element[1] : element[1] + element[2]])

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the dataset; the buffer may be reused after the call."""
        if self._inflater is None:
            self._feed(memoryview(data))
        else:
            for piece in self._inflater.feed(data):
                self._feed(memoryview(piece))

    def finish(self) -> "Header":
        """The dataset has ended: check that it is whole, and return its header."""
        if self._inflater is not None:
            self._inflater.finish()
        walk = self._walk
        walk.complete()
        self._finished = True
        header = Header(self._transfer_syntax_uid, bytes(walk.buffer), walk, self._length)
        _check(header)
        return header

    def _feed(self, data: memoryview) -> None:
        walk = self._walk
        size = len(data)
        self._length += size
        if self._length > self._limits.max_object_bytes:
            raise Refusal(Reason.TOO_LARGE, f"dataset over {self._limits.max_object_bytes} bytes")
        at = 0
        while at < size:
            if walk.skip:
                taken = min(walk.skip, size - at)
                walk.skip -= taken
                at += taken
                continue
            if walk.region is not None:
                at += walk.region.feed(data[at:])
                if walk.region.done:
                    walk.end_region()
                continue
            if walk.padding:
                at += walk.pad(data[at : at + _SLICE_BYTES])
                continue
            buffer = walk.buffer
            piece = data[at : at + max(_SLICE_BYTES, walk.need - len(buffer))]
            buffer += piece
            at += len(piece)
            if len(buffer) < walk.need:
                continue
            walk.advance()
            if walk.skip or walk.region is not None:
                # What was gathered beyond the cut came with this piece: it is taken again as such.
                at -= len(buffer) - walk.pos
                del buffer[walk.pos :]


class Header:
    """A dataset without its bulk. Get one from `HeaderReader.finish`, `read_header` or `unpack`.

    `transfer_syntax_uid`: how the dataset is encoded; `dataset_length`: its bytes (inflated);
    `ascending`: False if tags are out of order somewhere.
    """

    __slots__ = (
        "_big", "_charset", "_elements", "_implicit", "_kept", "_regions",
        "ascending", "dataset_length", "transfer_syntax_uid",
    )  # fmt: skip

    def __init__(self, transfer_syntax_uid: str, kept: bytes, walk: Walk, dataset_length: int) -> None:
        self.transfer_syntax_uid = transfer_syntax_uid
        self.dataset_length = dataset_length
        self.ascending = walk.ascending
        self._kept = kept
        self._elements = walk.top
        self._regions = walk.regions
        self._implicit = transfer_syntax_uid == IMPLICIT_LITTLE
        self._big = transfer_syntax_uid == EXPLICIT_BIG
        self._charset = character_set(self.get(0x00080005) or b"")

    # --- Values -----------------------------------------------------------------------------------

    def __contains__(self, tag: int) -> bool:
        return tag in self._elements

    def tags(self) -> list[int]:
        """The tags at the top level, ascending."""
        return sorted(self._elements)

    def vr(self, tag: int) -> str | None:
        """The VR of a top-level element, as encoded or from the dictionary; None if it is absent."""
        element = self._elements.get(tag)
        return element and ("SQ" if element[3] is not None else element[0])

    def get(self, tag: int) -> bytes | None:
        """The raw value of a top-level element; None if absent, cut or a sequence."""
        element = self._elements.get(tag)
        if element is None or element[1] < 0 or element[3] is not None:
            return None
        start = element[1]
        return self._kept[start : start + element[2]]

    def values(self, tag: int) -> list[str]:
        """The values of a top-level element as text; [] if absent, empty, cut or not text or numbers."""
        element = self._elements.get(tag)
        return [] if element is None else jsonmodel.texts(tag, element, self._scope())

    def text(self, tag: int) -> str:
        """The first value of a top-level element as text; "" if there is none."""
        values = self.values(tag)
        return values[0] if values else ""

    def numbers(self, tag: int) -> list[int | float]:
        """The values of a top-level element that are numbers; [] if there are none."""
        element = self._elements.get(tag)
        if element is None:
            return []
        values = jsonmodel.attribute(tag, element, self._scope()).get("Value", [])
        return [value for value in values if isinstance(value, (int, float))]

    # --- JSON -------------------------------------------------------------------------------------

    def attributes(self, bulk_uri: BulkURI | None = None) -> Attributes:
        """The dataset in the DICOM JSON model (PS3.18 annex F), text in Unicode.

        `bulk_uri(path, offset, length)` gives the BulkDataURI of a value that was cut; without it such
        attributes have no value. A path is tag, item index, tag, …, tags as eight hexadecimal digits.
        """
        return jsonmodel.dataset(self._elements, self._scope(bulk_uri))

    def attribute(self, tag: int) -> dict[str, object] | None:
        """One top-level attribute in the DICOM JSON model, None if absent; cut values are left out."""
        element = self._elements.get(tag)
        return None if element is None else jsonmodel.attribute(tag, element, self._scope())

    def select(self, tags: "list[tuple[int, str]]") -> Attributes:
        """`attribute` for those of the tags, given with their hexadecimal form, that are present."""
        elements = self._elements
        scope = self._scope()
        return {name: jsonmodel.attribute(tag, elements[tag], scope) for tag, name in tags if tag in elements}

    def _scope(self, bulk_uri: BulkURI | None = None) -> jsonmodel.Scope:
        return jsonmodel.Scope(self._kept, self._charset, self._big, self._implicit, self._signed(), bulk_uri)

    def _signed(self) -> bool:
        return self._implicit and self.get(0x00280103) == b"\1\0"

    # --- Bulk -------------------------------------------------------------------------------------

    def bulk(self, path: Path) -> tuple[int, int]:
        """(offset, length) within the dataset of the cut value at a path; Refusal(NOT_FOUND)."""
        elements: Elements = self._elements
        element: Element | None = None
        for step in path:
            if isinstance(step, str):
                try:
                    element = elements.get(int(step, 16))
                except ValueError:
                    element = None
            elif element is not None and element[3] is not None and 0 <= step < len(element[3]):
                elements, element = element[3][step], None
            else:
                element = None
                break
        if element is None or element[1] >= 0:
            raise Refusal(Reason.NOT_FOUND, "no bulk data there")
        return ~element[1], element[2]

    @property
    def pixel(self) -> PixelData | None:
        """Where the pixels of the top level lie; None if it has none."""
        for tag in (PIXELS, FLOAT_PIXELS, DOUBLE_PIXELS):
            element = self._elements.get(tag)
            if element is not None and element[1] < 0:
                break
        else:
            return None
        vr, place, length, _ = element
        for region in self._regions:
            if region.offset == ~place:
                table = struct.unpack(
                    f"<{len(region.table) // 4}I", region.table[: len(region.table) // 4 * 4]
                )
                return PixelData(tag, vr, ~place, length, True, region.fragments(), table)
        return PixelData(tag, vr, ~place, length, False, [], ())

    def _region(self, place: int) -> Region | None:
        """The encapsulated data that a cut element's place points at."""
        return next((region for region in self._regions if region.offset == ~place), None)

    # --- Packed -----------------------------------------------------------------------------------

    def pack(self) -> bytes:
        """A compact form for `unpack`: a version byte, then everything compressed."""
        syntax = self.transfer_syntax_uid.encode("ascii")
        regions = [region.pack() for region in self._regions]
        fixed = _PACKED.pack(self.dataset_length, len(syntax), len(regions))
        return _PACKED_VERSION + zlib.compress(b"".join((fixed, syntax, *regions, self._kept)), 1)

    @classmethod
    def unpack(cls, packed: bytes) -> "Header":
        """The header that was packed; ValueError if it is of another version."""
        if packed[:1] != _PACKED_VERSION:
            raise ValueError("packed header of another version")
        content = zlib.decompress(packed[1:])
        length, syntax_bytes, count = _PACKED.unpack_from(content)
        at = _PACKED.size + syntax_bytes
        syntax = content[_PACKED.size : at].decode("ascii")
        regions: deque[Region] = deque()
        for _ in range(count):
            region, at = Region.unpack(content, at)
            regions.append(region)
        kept = content[at:]
        walk = _walk(syntax, NO_LIMITS, (kept, regions))
        walk.advance()
        walk.complete()
        return cls(syntax, kept, walk, length)


def read_header(dataset: bytes | bytearray | memoryview, transfer_syntax_uid: str, limits: Limits) -> Header:
    """The header of a dataset that is wholly there; raises like `HeaderReader`."""
    reader = HeaderReader(transfer_syntax_uid, limits)
    reader.feed(dataset)
    return reader.finish()


def _walk(syntax: str, limits: Limits, packed: tuple[bytes, deque[Region]] | None = None) -> Walk:
    return Walk(syntax != IMPLICIT_LITTLE, syntax == EXPLICIT_BIG, limits, packed)


def _check(header: Header) -> None:
    """Refuse what no decoder should meet: attributes of the wrong kind, pixels of the wrong form."""
    elements = header._elements
    for tag, (vr, length) in _DEMANDED.items():
        element = elements.get(tag)
        if element is not None and (
            element[0] not in (vr, "UN") or (length and element[2] not in (0, length))
        ):
            raise Refusal(Reason.MISMATCH, f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is not one {vr}")
    for tag, vrs in _PIXEL_VRS.items():
        element = elements.get(tag)
        if element is not None and (element[0] not in vrs or element[1] >= 0):
            raise Refusal(Reason.MISMATCH, f"({tag >> 16:04X},{tag & 0xFFFF:04X}) has VR {element[0]}")
    pixels = elements.get(PIXELS)
    if pixels and header.transfer_syntax_uid in _NATIVE and header._region(pixels[1]):
        raise Refusal(Reason.NOT_UNDERSTOOD, "encapsulated pixels in an uncompressed transfer syntax")
