"""What a dataset claims about its pixels (Image Pixel module, PS3.3 section C.7.6.3)."""

from dataclasses import dataclass

from node.adapters.decoder.part10 import (
    DOUBLE_PIXEL_DATA,
    FLOAT_PIXEL_DATA,
    PIXEL_DATA,
    Dataset,
    Element,
    refuse,
)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes in pixels and bits. `floating`: 32 or 64 bit numbers with a fraction."""

    rows: int
    columns: int
    samples: int
    frames: int
    allocated: int
    stored: int
    signed: bool
    photometric: str
    planar: bool
    floating: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a frame's array."""
        return (self.rows, self.columns) if self.samples == 1 else (self.rows, self.columns, self.samples)

    @property
    def dtype(self) -> str:
        """numpy type of a sample, little endian."""
        return f"<{'f' if self.floating else 'i' if self.signed else 'u'}{max(1, self.allocated // 8)}"

    @property
    def unsigned_dtype(self) -> str:
        """numpy type of a sample's bits."""
        return f"<u{max(1, self.allocated // 8)}"

    @property
    def subsampled(self) -> bool:
        """Native chrominance at half the width: two samples per pixel (PS3.3 section C.7.6.3.1.2)."""
        return self.photometric.endswith("_422")

    @property
    def native_frame_bits(self) -> int:
        """Bits of a frame in a native transfer syntax."""
        samples = 2 if self.subsampled and self.samples == 3 else self.samples
        return self.rows * self.columns * samples * self.allocated

    @property
    def decoded_frame_bytes(self) -> int:
        """Bytes of a frame's array."""
        return self.rows * self.columns * self.samples * max(1, self.allocated // 8)


def pixel_element(dataset: Dataset) -> Element | None:
    """The element that holds the pixels, if the object has any."""
    for tag in (PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_PIXEL_DATA):
        element = dataset.get(tag)
        if element is not None:
            return element
    return None


def geometry_of(dataset: Dataset, tag: int = PIXEL_DATA) -> Geometry:
    """Read and check the Image Pixel module for the pixel element `tag`; Refusal NOT_ACCEPTABLE."""
    floating = tag != PIXEL_DATA
    allocated = {FLOAT_PIXEL_DATA: 32, DOUBLE_PIXEL_DATA: 64}.get(tag) or dataset.integer(0x00280100)
    text = dataset.text(0x00280008)
    frames = int(text) if text.isascii() and text.isdigit() else 1
    geometry = Geometry(
        rows=dataset.integer(0x00280010),
        columns=dataset.integer(0x00280011),
        samples=dataset.integer(0x00280002, 1),
        frames=max(1, frames),
        allocated=allocated,
        stored=allocated if floating else dataset.integer(0x00280101, allocated),
        signed=dataset.integer(0x00280103) == 1,
        photometric=dataset.text(0x00280004) or "MONOCHROME2",
        planar=dataset.integer(0x00280006) == 1,
        floating=floating,
    )
    if geometry.rows < 1 or geometry.columns < 1:
        raise refuse("no rows or columns")
    if geometry.allocated not in (1, 8, 16, 32, 64) or not 1 <= geometry.stored <= geometry.allocated:
        raise refuse("unusual Bits Allocated or Bits Stored")
    if geometry.samples not in (1, 3, 4) or (geometry.subsampled and geometry.samples != 3):
        raise refuse("unusual Samples per Pixel")
    if geometry.allocated == 1 and geometry.samples != 1:
        raise refuse("colour in single bits")
    return geometry
