"""An object's frames: found, checked against the memory limit, and decoded one at a time."""

import numpy as np

from node.adapters.decoder import codestreams
from node.adapters.decoder.codestreams import Array
from node.adapters.decoder.geometry import Geometry, geometry_of, pixel_element
from node.adapters.decoder.part10 import Part10, refuse, swapped
from node.domain import syntaxes as ts

# Decoders hold a frame as 32-bit numbers, the array made of them and a copy with its bytes in order.
_WORKING_BYTES_PER_SAMPLE = 12


class Image:
    """Pixels of a parsed object. Frames are numbered from 0."""

    def __init__(self, part10: Part10, max_bytes: int) -> None:
        element = pixel_element(part10.dataset)
        if element is None:
            raise refuse("the object has no pixel data")
        if part10.syntax.uid not in ts.DECODABLE:
            raise refuse("pixels in this transfer syntax are not decoded")
        self.element = element
        self.uid = part10.syntax.uid
        self.big_endian = part10.syntax.big_endian
        self.geometry: Geometry = geometry_of(part10.dataset, element.tag)
        geometry = self.geometry
        samples = geometry.rows * geometry.columns * geometry.samples
        working = samples * (_WORKING_BYTES_PER_SAMPLE + geometry.allocated // 8)
        if element.fragments is None:
            self._fragments: list[list[memoryview]] = []
            if geometry.native_frame_bits * geometry.frames > len(element.value) * 8:
                raise refuse("pixel data is shorter than the dataset says")
        else:
            self._fragments = _frames(part10, element.fragments, geometry.frames)
        if working > max_bytes:
            raise refuse("a frame is over the memory limit")
        self.photometric = (
            geometry.photometric
            if element.fragments is None
            else codestreams.decoded_photometric(self.uid, geometry)
        )

    def codestream(self, frame: int) -> bytes:
        """A frame's compressed bytes (encapsulated syntaxes only)."""
        return b"".join(self._fragments[self._checked(frame)])

    def array(self, frame: int) -> Array:
        """A frame as (rows, columns[, samples]), YBR_FULL_422 with its chrominance repeated."""
        if self._fragments and self.uid not in codestreams.RAW_FRAMES:
            return codestreams.decode(self.uid, self.codestream(frame), self.geometry)
        return self._native_array(self._raw(frame))

    def native(self, frame: int) -> bytes | memoryview:
        """A frame as native little endian bytes, in the planar configuration of `planar`."""
        if self._fragments and self.uid not in codestreams.RAW_FRAMES:
            return self.array(frame).tobytes()
        if self.geometry.allocated == 1:
            return np.packbits(self.array(frame), bitorder="little").tobytes()
        return self._raw(frame)

    @property
    def planar(self) -> bool:
        """Whether `native` has the samples one plane after the other."""
        raw = not self._fragments or self.uid in codestreams.RAW_FRAMES
        return raw and self.geometry.planar and self.geometry.samples > 1

    def _checked(self, frame: int) -> int:
        if not 0 <= frame < self.geometry.frames:
            raise refuse("no such frame")
        return frame

    def _raw(self, frame: int) -> bytes | memoryview:
        """The native bytes of a frame that is stored uncompressed, little endian."""
        geometry, bits = self.geometry, self.geometry.native_frame_bits
        if self._fragments:
            data: bytes | memoryview = self.codestream(frame)
            size = (bits + 7) // 8
            data = codestreams.inflate(data, size) if self.uid == ts.DEFLATED_FRAMES else data[:size]
            if len(data) < size:
                raise refuse("a frame is shorter than the dataset says")
            return data
        first = self._checked(frame) * bits
        # In big endian OW, 8-bit samples and single bits lie swapped in words (PS3.5 section 8.1.2).
        width = max(2, geometry.allocated // 8) if self.big_endian and self.element.vr != b"OB" else 1
        start, stop = first // 8, (first + bits + 7) // 8
        begin = start // width * width
        end = min(len(self.element.value), -(-stop // width) * width)
        value = memoryview(self.element.value)[begin:end]
        data = memoryview(swapped(value, width)) if width > 1 else value
        data = data[start - begin : stop - begin]
        if geometry.allocated == 1 and first % 8:
            unpacked = np.unpackbits(np.frombuffer(data, "u1"), bitorder="little")[first % 8 :][:bits]
            return np.packbits(unpacked, bitorder="little").tobytes()
        return data

    def _native_array(self, data: bytes | memoryview) -> Array:
        geometry = self.geometry
        if geometry.allocated == 1:
            bits = np.unpackbits(np.frombuffer(data, "u1"), bitorder="little")
            return bits[: geometry.rows * geometry.columns].reshape(geometry.shape)
        samples = np.frombuffer(data, geometry.dtype)
        if geometry.subsampled:
            # Y1 Y2 Cb Cr for each pair of pixels
            quads = samples.reshape(-1, 4)
            luminance = quads[:, :2].reshape(-1)
            chrominance = np.repeat(quads[:, 2:], 2, axis=0)
            return np.column_stack([luminance, chrominance]).reshape(geometry.shape)
        if geometry.samples > 1 and geometry.planar:
            planes = samples.reshape(geometry.samples, geometry.rows, geometry.columns)
            return np.ascontiguousarray(planes.transpose(1, 2, 0))
        return samples.reshape(geometry.shape)


def _frames(part10: Part10, fragments: list[memoryview], frames: int) -> list[list[memoryview]]:
    """Which fragments make up which frame (PS3.5 section A.4), by offset tables where there are any."""
    if not fragments:
        raise refuse("no fragments")
    table, fragments = fragments[0], fragments[1:]
    if frames == 1:
        return [fragments]
    if len(fragments) == frames:
        return [[fragment] for fragment in fragments]
    if len(fragments) < frames:
        raise refuse("fewer fragments than frames")
    offsets = _offsets(part10, bytes(table))
    if len(offsets) != frames:
        starts = [bytes(fragment[:2]) in (b"\xff\xd8", b"\xff\x4f", b"\xff\x0a") for fragment in fragments]
        if sum(starts) != frames or not starts[0]:
            raise refuse("frames cannot be told apart")
        firsts = [index for index, start in enumerate(starts) if start]
    else:
        positions, position = {}, 0
        for index, fragment in enumerate(fragments):
            positions[position] = index
            position += 8 + len(fragment)
        if any(offset not in positions for offset in offsets) or offsets != sorted(set(offsets)):
            raise refuse("offset table does not point to fragments")
        firsts = [positions[offset] for offset in offsets]
    ends = [*firsts[1:], len(fragments)]
    return [fragments[first:end] for first, end in zip(firsts, ends, strict=True)]


def _offsets(part10: Part10, basic: bytes) -> list[int]:
    """Offsets of frames from the first fragment: extended table, or basic one (PS3.5 section A.4)."""
    extended = part10.dataset.get(0x7FE00001)
    table, width = (bytes(extended.value), 8) if extended is not None else (basic, 4)
    return [int.from_bytes(table[at : at + width], "little") for at in range(0, len(table), width)]
