"""What a codestream says about itself, read without decoding it.

Decoders allocate what a codestream's own header claims; this is read first and compared with Rows and
Columns, so that a kilobyte that claims a gigapixel is refused before anything is allocated.
"""

from dataclasses import dataclass

from node.adapters.decoder.part10 import refuse

_SOF_LOSSLESS = {0xC3, 0xF7}
_SOF = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}


@dataclass(frozen=True, slots=True)
class Claim:
    """Width and height in pixels, components, and bits per component; 0 where the header is silent.

    `ycbcr`: JPEG only; what its markers say about its colours, None if they say nothing.
    """

    width: int
    height: int
    components: int = 0
    precision: int = 0
    signed: bool = False
    ycbcr: bool | None = None
    lossless: bool = False


def jpeg(data: bytes) -> Claim:
    """JPEG and JPEG-LS: markers up to the frame header (ISO 10918-1 annex B, 14495-1 annex C)."""
    if data[:2] != b"\xff\xd8":
        raise refuse("not a JPEG codestream")
    offset, jfif, adobe = 2, False, None
    while offset + 4 <= len(data):
        if data[offset] != 0xFF:
            raise refuse("broken JPEG markers")
        marker = data[offset + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:  # fill, or no segment
            offset += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[offset + 2 : offset + 4], "big")
        segment = data[offset + 4 : offset + 2 + length]
        if marker == 0xE0 and segment[:5] == b"JFIF\0":
            jfif = True
        elif marker == 0xEE and segment[:5] == b"Adobe" and len(segment) >= 12:
            adobe = segment[11]
        elif marker in _SOF and len(segment) >= 6:
            height, width = int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big")
            identifiers = segment[6::3][: segment[5]]
            ycbcr = bool(adobe) if adobe is not None else False if identifiers == b"RGB" else jfif or None
            return Claim(width, height, segment[5], segment[0], ycbcr=ycbcr, lossless=marker in _SOF_LOSSLESS)
        elif marker in (0xD9, 0xDA):
            break
        offset += 2 + length
    raise refuse("JPEG codestream without a frame header")


def jpeg2000(data: bytes) -> Claim:
    """JPEG 2000 and HTJ2K: the SIZ marker (ISO 15444-1 section A.5.1), raw or in a JP2 box."""
    start = 0 if data[:2] == b"\xff\x4f" else data.find(b"\xff\x4f\xff\x51", 0, 65536)
    siz = data[start + 2 : start + 42 + 3] if start >= 0 else b""
    if len(siz) < 43 or siz[:2] != b"\xff\x51":
        raise refuse("not a JPEG 2000 codestream")
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top = (
        int.from_bytes(siz[at : at + 4], "big") for at in range(6, 38, 4)
    )
    width, height = right - left, bottom - top
    if min(width, height, tile_width, tile_height) < 1 or tile_left > left or tile_top > top:
        raise refuse("impossible JPEG 2000 geometry")
    tiles = -(-(right - tile_left) // tile_width) * -(-(bottom - tile_top) // tile_height)
    if tiles > 65535:
        raise refuse("too many JPEG 2000 tiles")
    depth = siz[40]
    return Claim(width, height, int.from_bytes(siz[38:40], "big"), (depth & 0x7F) + 1, depth >= 0x80)


def jpeg_xl(data: bytes) -> Claim:
    """JPEG XL: the size header (ISO 18181-1 section 6.2), raw or in a container's box."""
    bits = _Bits(_jpeg_xl_codestream(data))
    small = bits.take(1)
    height = 8 * (bits.take(5) + 1) if small else bits.take((9, 13, 18, 30)[bits.take(2)]) + 1
    ratio = bits.take(3)
    if ratio:
        numerator, denominator = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
        return Claim(height * numerator // denominator, height)
    width = 8 * (bits.take(5) + 1) if small else bits.take((9, 13, 18, 30)[bits.take(2)]) + 1
    return Claim(width, height)


def _jpeg_xl_codestream(data: bytes) -> bytes:
    """The codestream's first bytes after its signature."""
    offset = 0
    while data[:2] != b"\xff\x0a" and offset + 8 <= len(data):
        size, kind = int.from_bytes(data[offset : offset + 4], "big"), data[offset + 4 : offset + 8]
        start = offset + 8
        if size == 1:
            size, start = int.from_bytes(data[start : start + 8], "big"), start + 8
        if kind in (b"jxlc", b"jxlp"):
            start += 4 if kind == b"jxlp" else 0
            if data[start : start + 2] == b"\xff\x0a":
                return data[start + 2 : start + 18]
        if size < 8:
            break
        offset += size
    if data[:2] == b"\xff\x0a":
        return data[2:18]
    raise refuse("not a JPEG XL codestream")


class _Bits:
    """Bits out of bytes, least significant first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        taken = self._value & ((1 << count) - 1)
        self._value >>= count
        return taken
