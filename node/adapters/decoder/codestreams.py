"""One frame between its codestream and an array, for each compressed transfer syntax.

Arrays are (rows, columns) or (rows, columns, samples) of the integer type that Bits Allocated and
Pixel Representation ask for.
"""

import contextlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from rle import rle

from node.adapters.decoder import headers
from node.adapters.decoder.geometry import Geometry
from node.adapters.decoder.part10 import refuse
from node.domain import syntaxes as ts

Array = NDArray[Any]
Buffer = bytes | bytearray | memoryview

BASELINE_QUALITY = 90  # of the one lossy encoder (libjpeg's scale)

_JPEG = {ts.JPEG_BASELINE, ts.JPEG_EXTENDED, ts.JPEG_LOSSLESS, ts.JPEG_LOSSLESS_SV1}
_JPEG_LOSSY = {ts.JPEG_BASELINE, ts.JPEG_EXTENDED}
_JPEG_LS = {ts.JPEG_LS_LOSSLESS, ts.JPEG_LS_NEAR_LOSSLESS}
_JPEG_2000 = {ts.JPEG_2000_LOSSLESS, ts.JPEG_2000}
_HTJ2K = {ts.HTJ2K_LOSSLESS, ts.HTJ2K_LOSSLESS_RPCL, ts.HTJ2K}
_JPEG_XL = {ts.JPEG_XL_LOSSLESS, ts.JPEG_XL_RECOMPRESSION, ts.JPEG_XL}
_RAW = {ts.ENCAPSULATED_UNCOMPRESSED, ts.DEFLATED_FRAMES}

_RGB: dict[str, Any] = {"colorspace": "RGB", "outcolorspace": "RGB"}

RAW_FRAMES = frozenset(_RAW)  # frames in these are native bytes, as they are or deflated


def claim(uid: str, data: bytes) -> headers.Claim | None:
    """What the codestream's header says; None for syntaxes without such a header."""
    if uid in _JPEG | _JPEG_LS:
        return headers.jpeg(data)
    if uid in _JPEG_2000 | _HTJ2K:
        return headers.jpeg2000(data)
    return headers.jpeg_xl(data) if uid in _JPEG_XL else None


def decoded_photometric(uid: str, geometry: Geometry) -> str:
    """Photometric Interpretation of the array that `decode` returns."""
    if geometry.samples != 3 or uid in _RAW:
        return geometry.photometric
    if uid in _JPEG_LOSSY | _JPEG_XL or geometry.photometric in ("YBR_RCT", "YBR_ICT"):
        return "RGB"
    return "YBR_FULL" if geometry.photometric == "YBR_FULL_422" else geometry.photometric


def decode(uid: str, data: bytes, geometry: Geometry) -> Array:
    """Decode a frame; Refusal NOT_ACCEPTABLE if it is broken or not what the dataset says."""
    told = claim(uid, data)
    if told is not None:
        if (told.height, told.width) != (geometry.rows, geometry.columns):
            raise refuse("codestream and dataset differ in size")
        if told.components not in (0, geometry.samples):
            raise refuse("codestream and dataset differ in samples")
        if told.precision > geometry.allocated:
            raise refuse("codestream is deeper than Bits Allocated")
    try:
        array = _decode(uid, data, geometry, told)
    except MemoryError:
        raise
    except Exception as error:
        raise refuse(f"frame cannot be decoded ({type(error).__name__})") from error
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.shape != geometry.shape:
        if geometry.samples > 1 and array.shape == (geometry.samples, geometry.rows, geometry.columns):
            array = array.transpose(1, 2, 0)
        else:
            raise refuse("decoded frame differs from the dataset in size")
    return _as_declared(array, geometry, told)


def _decode(uid: str, data: bytes, geometry: Geometry, told: headers.Claim | None) -> Array:
    if uid == ts.RLE_LOSSLESS:
        return _decode_rle(data, geometry)
    if uid in _JPEG_LS:
        return np.asarray(imagecodecs.jpegls_decode(data))
    if uid in _JPEG_2000:
        return np.asarray(imagecodecs.jpeg2k_decode(data, numthreads=1))
    if uid in _HTJ2K:
        return np.asarray(imagecodecs.htj2k_decode(data))
    if uid in _JPEG_XL:
        return np.asarray(imagecodecs.jpegxl_decode(data, numthreads=1))
    assert told is not None  # noqa: S101 - JPEG is what is left
    return _decode_jpeg(data, geometry, told)


def _decode_rle(data: bytes, geometry: Geometry) -> Array:
    """PS3.5 annex G. The decoder returns the samples one plane after the other."""
    if geometry.allocated not in (8, 16, 32, 64):
        raise refuse("Bits Allocated is not whole bytes")
    plain = rle.decode_frame(data, geometry.rows * geometry.columns, geometry.allocated, "<")
    array = np.frombuffer(plain, geometry.unsigned_dtype)
    if geometry.samples == 1:
        return array.reshape(geometry.shape)
    return array.reshape(geometry.samples, geometry.rows, geometry.columns).transpose(1, 2, 0)


def _decode_jpeg(data: bytes, geometry: Geometry, told: headers.Claim) -> Array:
    """Lossy colours come out as RGB, lossless ones as they are (PS3.5 section 8.2.1).

    Photometric Interpretation says what is in the stream, unless the stream's own markers say better:
    many files say RGB and hold YCbCr, or the reverse.
    """
    if geometry.samples == 1:
        colours: dict[str, Any] = {}
    elif told.lossless:
        colours = _RGB
    else:
        ycbcr = told.ycbcr if told.ycbcr is not None else geometry.photometric != "RGB"
        colours = {"colorspace": "YCBCR" if ycbcr else "RGB", "outcolorspace": "RGB"}
    try:
        return np.asarray(imagecodecs.jpeg8_decode(data, **colours))
    except imagecodecs.Jpeg8Error:
        if not told.lossless:
            raise
        return np.asarray(imagecodecs.jpegsof3_decode(data))  # reads some streams that are not quite right


def _as_declared(array: Array, geometry: Geometry, told: headers.Claim | None) -> Array:
    """The array in the dataset's own type, where codestream and dataset disagree on the sign."""
    if array.dtype.kind not in "iu":
        raise refuse("codestream holds other than integers")
    bits = array.dtype.itemsize * 8
    precision = told.precision if told is not None and told.precision else bits
    if geometry.signed and array.dtype.kind == "u":
        shift = bits - precision
        array = (array << shift).view(f"i{array.dtype.itemsize}") >> shift
    elif not geometry.signed and array.dtype.kind == "i":
        array = array.view(f"u{array.dtype.itemsize}") & np.array((1 << precision) - 1, f"u{bits // 8}")
    return np.ascontiguousarray(array.astype(geometry.dtype, copy=False))


def encoded_photometric(uid: str, photometric: str, samples: int) -> str:
    """Photometric Interpretation of what `encode` makes of such an array."""
    if samples != 3:
        return photometric
    if uid == ts.JPEG_BASELINE:
        return "YBR_FULL_422"
    if uid in _JPEG_2000 | _HTJ2K and photometric == "RGB":
        return "YBR_RCT"
    return photometric


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame to encode: its array, its dataset's geometry, and the array's own colours."""

    array: Array
    geometry: Geometry
    photometric: str

    @property
    def precision(self) -> int:
        """Bits Stored, or Bits Allocated if some value needs more (old overlays in the high bits)."""
        low, high, stored = int(self.array.min()), int(self.array.max()), self.geometry.stored
        if self.geometry.signed:
            fits = -(1 << (stored - 1)) <= low and high < 1 << (stored - 1)
        else:
            fits = high < 1 << stored
        return stored if fits else self.geometry.allocated

    def unsigned(self, precision: int) -> Array:
        """Two's complement in `precision` bits, for codecs that only know unsigned numbers."""
        if self.array.dtype.kind == "u":
            return self.array
        plain = self.array.view(f"u{self.array.dtype.itemsize}")
        return np.asarray(plain & np.array((1 << precision) - 1, plain.dtype))


def encode(uid: str, frame: Frame) -> bytes:
    """Encode a frame; Refusal NOT_ACCEPTABLE if the syntax cannot hold it."""
    geometry = frame.geometry
    if uid == ts.RLE_LOSSLESS:
        little = frame.array.tobytes()
        return bytes(
            rle.encode_frame(
                little, geometry.rows, geometry.columns, geometry.samples, geometry.allocated, "<"
            )
        )
    if geometry.allocated > 16:
        raise refuse("more than 16 bits per sample in this syntax")
    if geometry.samples not in (1, 3):
        raise refuse("samples per pixel other than 1 and 3")
    try:
        return bytes(_ENCODERS[uid](frame))
    except (ValueError, RuntimeError) as error:
        raise refuse(f"frame cannot be encoded ({type(error).__name__})") from error


def _encode_jpeg_2000(frame: Frame) -> Buffer:
    return imagecodecs.jpeg2k_encode(
        frame.array,
        level=0,
        codecformat="J2K",
        reversible=True,
        numthreads=1,
        bitspersample=frame.precision,
        mct=frame.photometric == "RGB",
    )


def _encode_htj2k(frame: Frame) -> Buffer:
    """RPCL order with tile-part lengths, smallest resolution at most 64 pixels (PS3.5 section A.4.4)."""
    larger = max(frame.geometry.rows, frame.geometry.columns)
    resolutions = max(1, ((larger - 1) // 64).bit_length())
    array, colours = frame.array, frame.photometric == "RGB"
    planar = array.ndim == 3 and not colours
    if planar:
        array = np.ascontiguousarray(array.transpose(2, 0, 1))
    return imagecodecs.htj2k_encode(
        array, reversible=True, rgb=colours, planar=planar or None, tlm=True, resolutions=resolutions
    )


def _encode_jpeg_ls(frame: Frame) -> Buffer:
    """Without the SPIFF header that the encoder puts first; DICOM's codestream begins with its frame."""
    pixels = frame.unsigned(frame.geometry.allocated)
    # Noise grows, and the encoder's own guess at the room it needs is too small for small frames of it.
    data = bytes(imagecodecs.jpegls_encode(pixels, out=2 * pixels.nbytes + 4096))
    offset = 2
    while data[offset : offset + 2] == b"\xff\xe8":
        offset += 2 + int.from_bytes(data[offset + 2 : offset + 4], "big")
    return data[:2] + data[offset:]


def _encode_jpeg_lossless(frame: Frame) -> Buffer:
    precision = max(2, frame.precision)
    colours = _RGB if frame.geometry.samples == 3 else {}
    array = frame.unsigned(precision)
    return imagecodecs.jpeg8_encode(
        array.astype("<u1") if precision <= 8 else array,
        lossless=True,
        predictor=1,
        bitspersample=precision,
        **colours,
    )


def _encode_jpeg_xl(frame: Frame) -> Buffer:
    if frame.geometry.samples == 3 and frame.photometric != "RGB":
        raise refuse("JPEG XL holds grey or RGB only")
    return imagecodecs.jpegxl_encode(frame.unsigned(frame.geometry.allocated), lossless=True, numthreads=1)


def _encode_jpeg_baseline(frame: Frame) -> Buffer:
    geometry, photometric = frame.geometry, frame.photometric
    if geometry.allocated != 8 or geometry.signed or photometric not in _BASELINE_PHOTOMETRIC:
        raise refuse("baseline JPEG holds unsigned 8-bit grey or colour")
    if geometry.samples == 1:
        return imagecodecs.jpeg8_encode(frame.array, BASELINE_QUALITY)
    source = "RGB" if photometric == "RGB" else "YCBCR"
    return imagecodecs.jpeg8_encode(
        frame.array, BASELINE_QUALITY, subsampling="422", colorspace=source, outcolorspace="YCBCR"
    )


_BASELINE_PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL")
_ENCODERS: dict[str, Callable[[Frame], Buffer]] = {
    **dict.fromkeys(_JPEG_2000, _encode_jpeg_2000),
    **dict.fromkeys(_HTJ2K, _encode_htj2k),
    ts.JPEG_LS_LOSSLESS: _encode_jpeg_ls,
    ts.JPEG_LOSSLESS: _encode_jpeg_lossless,
    ts.JPEG_LOSSLESS_SV1: _encode_jpeg_lossless,
    ts.JPEG_XL_LOSSLESS: _encode_jpeg_xl,
    ts.JPEG_XL: _encode_jpeg_xl,
    ts.JPEG_BASELINE: _encode_jpeg_baseline,
}


def inflate(data: bytes | memoryview, max_bytes: int) -> bytes:
    """A frame of Deflated Image Frame Compression (PS3.5 section A.4.13)."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return inflater.decompress(data, max_bytes)
    except zlib.error:
        raise refuse("a deflated frame is broken") from None


def deflate(data: bytes) -> bytes:
    """The reverse of `inflate`."""
    deflater = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


def warm_up() -> None:
    """Load every codec: they are loaded on first use otherwise, when there are no files any more."""
    array = np.arange(64, dtype="<u1").reshape(8, 8)
    geometry = Geometry(8, 8, 1, 1, 8, 8, False, "MONOCHROME2", False, False)
    for uid in (*_ENCODERS, ts.RLE_LOSSLESS):
        decode(uid, encode(uid, Frame(array, geometry, "MONOCHROME2")), geometry)
    with contextlib.suppress(ValueError, RuntimeError):
        imagecodecs.jpegsof3_decode(b"")
