"""A whole object in another transfer syntax (PS3.5 section 10 and annex A)."""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace

from node.adapters.decoder import codestreams
from node.adapters.decoder.geometry import geometry_of, pixel_element
from node.adapters.decoder.image import Image
from node.adapters.decoder.part10 import (
    PIXEL_DATA,
    UNDEFINED,
    Dataset,
    Element,
    Part10,
    Writer,
    encoded,
    has_fragments,
    meta_bytes,
    refuse,
    swapped,
)
from node.domain import syntaxes as ts
from node.domain.syntaxes import SYNTAXES, Syntax

Piece = bytes | memoryview

PHOTOMETRIC, PLANAR = 0x00280004, 0x00280006
ICON_IMAGE_SEQUENCE = 0x00880200
EXTENDED_OFFSETS = (0x7FE00001, 0x7FE00002)
LOSSY, LOSSY_RATIO, LOSSY_METHOD = 0x00282110, 0x00282112, 0x00282114
_DEFLATE_BYTES = 1 << 20
_ITEM = b"\xfe\xff\x00\xe0"
_SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"


def transcode(part10: Part10, target_uid: str, max_bytes: int) -> Iterator[Piece]:
    """The object in another syntax, piece by piece; Refusal NOT_ACCEPTABLE, maybe in the middle."""
    source, target = part10.syntax, SYNTAXES.get(target_uid)
    if target is None or not ts.can_transcode(source.uid, target_uid):
        raise refuse("no way from this transfer syntax to that one")
    dataset = part10.dataset
    _drop_what_depends_on_the_syntax(dataset)
    pixels = _pixels(part10, target, max_bytes)
    yield meta_bytes(part10, target_uid)
    body = encoded(dataset, source, target, pixels)
    yield from _deflated(body) if target.deflated else body


def _drop_what_depends_on_the_syntax(dataset: Dataset) -> None:
    """Offset tables, and an icon that is compressed itself (optional, PS3.3 section C.7.6.1.1.6)."""
    for tag in EXTENDED_OFFSETS:
        dataset.drop(tag)
    for element in list(dataset.elements):
        if element.tag != PIXEL_DATA and has_fragments(element):
            if element.tag != ICON_IMAGE_SEQUENCE:
                raise refuse(f"compressed values inside element {element.tag:08x}")
            dataset.drop(element.tag)


def _pixels(part10: Part10, target: Syntax, max_bytes: int) -> Iterable[Piece]:
    """The pixel element as written in the target; the Image Pixel module is corrected before."""
    dataset = part10.dataset
    element = pixel_element(dataset)
    if element is None:
        if target.encapsulated:
            raise refuse("no pixel data to compress")
        return ()
    if element.fragments is None and not target.encapsulated:
        return _copied(part10, element, target)
    if element.tag != PIXEL_DATA:
        raise refuse("floating point pixels are not compressed")
    image = Image(part10, max_bytes)
    _note_lossy_source(dataset, part10.syntax)
    if target.encapsulated:
        return _compressed(dataset, image, target.uid)
    return _decompressed(dataset, image, target, max_bytes)


def _copied(part10: Part10, element: Element, target: Syntax) -> Iterable[Piece]:
    """Native pixels as they are, but for the order of bytes."""
    value = element.value
    if part10.syntax.big_endian and element.vr != b"OB":
        width = geometry_of(part10.dataset, element.tag).allocated // 8
        value = swapped(value, max(2, width))
    element = replace(element, value=value, raw=None)
    return Writer(target.explicit).element(element, False, part10.dataset)


def _decompressed(dataset: Dataset, image: Image, target: Syntax, max_bytes: int) -> Iterator[Piece]:
    geometry = image.geometry
    if geometry.native_frame_bits % 8 and geometry.frames > 1:
        raise refuse("frames that do not end on a byte")
    # The first frame now: what cannot be decoded is refused before anything is sent.
    first = image.native(0)
    length = len(first) * geometry.frames
    if length + length % 2 > min(max_bytes, UNDEFINED - 1):
        raise refuse("decoded pixel data is over the memory limit")
    if geometry.samples > 1:
        _put_text(dataset, PHOTOMETRIC, image.photometric)
        _put_number(dataset, PLANAR, int(image.planar))
    vr = b"OW" if geometry.allocated > 8 else b"OB"
    header = Writer(target.explicit).header(PIXEL_DATA, vr, length + length % 2)

    def pieces() -> Iterator[Piece]:
        yield header
        yield first
        for frame in range(1, geometry.frames):
            yield image.native(frame)
        yield b"\0" * (length % 2)

    return pieces()


def _compressed(dataset: Dataset, image: Image, uid: str) -> Iterator[Piece]:
    """Frames in one fragment each, with an empty Basic Offset Table."""
    geometry = image.geometry
    raw = uid in codestreams.RAW_FRAMES
    if geometry.allocated == 1 and (not raw or geometry.native_frame_bits % 8):
        raise refuse("single bits are not compressed in this syntax")
    photometric, planar = image.photometric, raw and image.planar
    if image.photometric == "YBR_FULL_422" and not raw:
        photometric = "YBR_FULL"  # the arrays have full chrominance
    first = _encoded_frame(image, 0, uid, photometric)
    if uid == ts.JPEG_BASELINE:  # the ratio stands before the pixels, so all frames come first
        coded = [first, *(_encoded_frame(image, at, uid, photometric) for at in range(1, geometry.frames))]
        plain = geometry.decoded_frame_bytes * geometry.frames
        _note_lossy(dataset, plain / sum(map(len, coded)), ts.lossy_method(uid) or "")
        frames: Iterable[Piece] = coded
    else:
        rest = (_encoded_frame(image, at, uid, photometric) for at in range(1, geometry.frames))
        frames = _chain(first, rest)
    if geometry.samples > 1:
        written = photometric if raw else codestreams.encoded_photometric(uid, photometric, geometry.samples)
        _put_text(dataset, PHOTOMETRIC, written)
        _put_number(dataset, PLANAR, int(planar or uid == ts.RLE_LOSSLESS))

    def pieces() -> Iterator[Piece]:
        yield Writer(explicit=True).header(PIXEL_DATA, b"OB", UNDEFINED)
        yield _ITEM + b"\0\0\0\0"
        for frame in frames:
            odd = len(frame) % 2
            yield _ITEM + (len(frame) + odd).to_bytes(4, "little")
            yield frame
            yield b"\0" * odd
        yield _SEQUENCE_END

    return pieces()


def _encoded_frame(image: Image, frame: int, uid: str, photometric: str) -> Piece:
    if uid == ts.ENCAPSULATED_UNCOMPRESSED:
        return image.native(frame)
    if uid == ts.DEFLATED_FRAMES:
        return codestreams.deflate(bytes(image.native(frame)))
    return codestreams.encode(uid, codestreams.Frame(image.array(frame), image.geometry, photometric))


def _chain(first: Piece, rest: Iterable[Piece]) -> Iterator[Piece]:
    yield first
    yield from rest


def _note_lossy_source(dataset: Dataset, source: Syntax) -> None:
    """Once lossy, always said so (PS3.3 section C.7.6.1.1.5)."""
    method = ts.lossy_method(source.uid)
    if method is not None and dataset.text(LOSSY) != "01":
        _put_text(dataset, LOSSY, "01")
        _put_text(dataset, LOSSY_METHOD, method)


def _note_lossy(dataset: Dataset, ratio: float, method: str) -> None:
    """Say that pixels were compressed with loss now, after what was done to them before."""
    before = dataset.text(LOSSY) == "01"
    for tag, value in ((LOSSY_RATIO, f"{ratio:.2f}"), (LOSSY_METHOD, method)):
        earlier = dataset.text(tag) if before else ""
        _put_text(dataset, tag, f"{earlier}\\{value}" if earlier else value)
    _put_text(dataset, LOSSY, "01")


def _put_text(dataset: Dataset, tag: int, text: str) -> None:
    vr = b"DS" if tag == LOSSY_RATIO else b"CS"
    dataset.put(Element(tag, vr, text.encode("ascii", "replace") + b" " * (len(text) % 2)))


def _put_number(dataset: Dataset, tag: int, number: int) -> None:
    dataset.put(Element(tag, b"US", number.to_bytes(2, "little")))


def _deflated(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """One deflated stream, padded to an even length (PS3.5 section A.5)."""
    deflater = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    length = 0
    for piece in pieces:
        for at in range(0, len(piece), _DEFLATE_BYTES):  # its output is one buffer, however large
            coded = deflater.compress(memoryview(piece)[at : at + _DEFLATE_BYTES])
            length += len(coded)
            yield coded
    coded = deflater.flush()
    yield coded + b"\0" * ((length + len(coded)) % 2)
