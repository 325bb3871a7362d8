"""Where each frame of an image lies in its dataset (PS3.3 C.7.6.3, PS3.5 section A.4)."""

import struct
from itertools import pairwise

from node.domain.errors import Reason, Refusal
from node.domain.header import Header, PixelData
from node.domain.syntaxes import SYNTAXES
from node.domain.walk import DOUBLE_PIXELS, FLOAT_PIXELS, PIXELS

MAX_FRAMES = 1 << 20
Pieces = list[tuple[int, int]]


def frame_ranges(header: Header) -> list[Pieces]:
    """For each frame the (offset, length) pieces that, joined, are its bytes within the dataset.

    Refusal(NOT_ACCEPTABLE) if there are no pixels, frames do not lie on byte boundaries, or nothing in
    the header tells which fragments a frame has (only the compressed stream's own markers would).
    """
    pixel = header.pixel
    if pixel is None:
        raise _unclear("no pixel data")
    number = header.numbers(0x00280008)
    frames = int(number[0]) if number and number[0] >= 1 else 1
    if frames > MAX_FRAMES:
        raise _unclear(f"more than {MAX_FRAMES} frames")
    syntax = SYNTAXES.get(header.transfer_syntax_uid)
    if syntax is not None and syntax.encapsulated != pixel.encapsulated and pixel.tag == PIXELS:
        raise _unclear("pixel data is not as the transfer syntax has it")
    if pixel.encapsulated:
        return _encapsulated(header, pixel, frames)
    return _native(header, pixel, frames)


def _native(header: Header, pixel: PixelData, frames: int) -> list[Pieces]:
    if pixel.tag in (FLOAT_PIXELS, DOUBLE_PIXELS):
        bits = 32 if pixel.tag == FLOAT_PIXELS else 64
    else:
        bits = _one(header, 0x00280100)
    total_bits = _one(header, 0x00280010) * _one(header, 0x00280011) * bits
    samples = int((header.numbers(0x00280002) or [1])[0])
    if samples == 3 and header.text(0x00280004) == "YBR_FULL_422":
        total_bits *= 2  # two luminance samples share their chrominance (C.7.6.3.1.2)
    else:
        total_bits *= samples
    if total_bits % 8 and frames > 1:
        raise _unclear("frames are not byte-aligned")
    size = (total_bits + 7) // 8
    if not size or size * frames > pixel.length:
        raise _unclear("pixel data is shorter than its frames")
    return [[(pixel.offset + index * size, size)] for index in range(frames)]


def _encapsulated(header: Header, pixel: PixelData, frames: int) -> list[Pieces]:
    fragments = pixel.fragments
    if not fragments:
        raise _unclear("no fragments")
    # A frame has one fragment at least, so in these cases no table is needed, and a wrong one does no harm.
    if frames == 1:
        return _trimmed(header, [fragments])
    if len(fragments) == frames:
        return _trimmed(header, [[fragment] for fragment in fragments])
    extended = header.get(0x7FE00001)
    if extended:
        return _by_offsets(fragments, struct.unpack_from(f"<{len(extended) // 8}Q", extended), frames)
    if pixel.offset_table:
        return _by_offsets(fragments, pixel.offset_table, frames)
    raise _unclear("no offset table tells the frames' fragments")


def _by_offsets(fragments: Pieces, offsets: tuple[int, ...], frames: int) -> list[Pieces]:
    """Group fragments by the offsets of their items, counted from the first one's."""
    if len(offsets) != frames:
        raise _unclear("offset table and number of frames differ")
    base = fragments[0][0]
    starts = {start - base: index for index, (start, _) in enumerate(fragments)}
    try:
        first = [starts[offset] for offset in offsets]
    except KeyError:
        raise _unclear("offset table points between fragments") from None
    if first[0] or any(low >= high for low, high in pairwise(first)):
        raise _unclear("offset table is not ascending")
    return [fragments[low:high] for low, high in zip(first, [*first[1:], len(fragments)], strict=True)]


def _trimmed(header: Header, frames: list[Pieces]) -> list[Pieces]:
    """Cut the padding off one-fragment frames that Extended Offset Table Lengths (7FE0,0002) leave out."""
    raw = header.get(0x7FE00002) or b""
    if len(raw) != 8 * len(frames):
        return frames
    lengths = struct.unpack(f"<{len(frames)}Q", raw)
    return [
        [(pieces[0][0], length)] if len(pieces) == 1 and 0 < length <= pieces[0][1] else pieces
        for pieces, length in zip(frames, lengths, strict=True)
    ]


def _one(header: Header, tag: int) -> int:
    numbers = header.numbers(tag)
    if not numbers:
        raise _unclear(f"no value of ({tag >> 16:04X},{tag & 0xFFFF:04X})")
    return int(numbers[0])


def _unclear(comment: str) -> Refusal:
    return Refusal(Reason.NOT_ACCEPTABLE, comment)
