"""A frame for display: the grayscale pipeline of PS3.4 annex N, or colour, then scaled and encoded.

Modality LUT → VOI LUT or window → presentation shape (PS3.3 sections C.11.1, C.11.2, C.11.6);
multi-frame functional groups take precedence over the top level (PS3.3 section C.7.6.16).
"""

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from node.adapters.decoder.codestreams import Array
from node.adapters.decoder.geometry import Geometry
from node.adapters.decoder.image import Image
from node.adapters.decoder.part10 import Dataset, Element, Part10, refuse

MAX_VIEWPORT = 16384
_SHARED_GROUPS, _FRAME_GROUPS = 0x52009229, 0x52009230
_MODALITY_MACRO, _VOI_MACRO = 0x00289145, 0x00289132
_RESCALE_INTERCEPT, _RESCALE_SLOPE = 0x00281052, 0x00281053
_WINDOW_CENTER, _WINDOW_WIDTH, _WINDOW_FUNCTION = 0x00281050, 0x00281051, 0x00281056
_MODALITY_LUTS, _VOI_LUTS = 0x00283000, 0x00283010
_LUT_DESCRIPTOR, _LUT_DATA = 0x00283002, 0x00283006
_PRESENTATION_SHAPE, _PIXEL_PADDING = 0x20500020, 0x00280120
_FUNCTIONS = {"LINEAR": "linear", "LINEAR_EXACT": "linear-exact", "SIGMOID": "sigmoid"}

Grey = NDArray[Any]  # float32
Bytes = NDArray[Any]  # uint8


@dataclass(frozen=True, slots=True)
class Order:
    """What a client asked for; see `node.ports.Codecs.render`. `frame` counts from 0."""

    frame: int
    media_type: str
    window: tuple[float, float, str] | None = None
    viewport: tuple[int, int] | None = None
    region: tuple[float, float, float, float] | None = None
    quality: int = 90


def render(part10: Part10, order: Order, max_bytes: int) -> bytes:
    """The frame as JPEG or PNG bytes; Refusal NOT_ACCEPTABLE."""
    numbers = (*(order.window or ())[:2], *(order.region or ()))
    if not all(map(math.isfinite, numbers)):
        raise refuse("window or region")
    if order.media_type not in ("image/jpeg", "image/png"):
        raise refuse("rendered media type")
    image = Image(part10, max_bytes)
    geometry = image.geometry
    samples = geometry.rows * geometry.columns * geometry.samples
    if samples * (20 + geometry.allocated // 8) > max_bytes:
        raise refuse("a frame is over the memory limit")
    array = image.array(order.frame)
    if geometry.samples >= 3:
        shown = _colour(array, image.photometric, geometry)
    elif image.photometric == "PALETTE COLOR":
        shown = _palette(array, part10.dataset)
    else:
        shown = _grey(array, part10.dataset, geometry, order)
    shown = np.ascontiguousarray(_cut(shown, order.region, geometry))
    return _encode(_scaled(Pillow.fromarray(shown), order.viewport), order)


def _cut(array: Bytes, region: tuple[float, float, float, float] | None, geometry: Geometry) -> Bytes:
    """The part of the picture inside `region` (left, top, width, height in pixels)."""
    if region is None:
        return array
    left, top, width, height = region
    columns = slice(max(0, int(left)), min(geometry.columns, int(np.ceil(left + width))))
    rows = slice(max(0, int(top)), min(geometry.rows, int(np.ceil(top + height))))
    if columns.start >= columns.stop or rows.start >= rows.stop:
        raise refuse("region outside the image")
    return array[rows, columns]


# --- Grey ----------------------------------------------------------------------------------------


def _grey(array: Array, dataset: Dataset, geometry: Geometry, order: Order) -> Bytes:
    groups = _groups(dataset, order.frame)
    values = _modality(array, groups, geometry)
    window = order.window or _own_window(groups)
    lut = _first_item(groups, _VOI_LUTS)
    if order.window is None and lut is not None:
        table, first, bits = _lut(lut, signed=geometry.signed or bool(values.min() < 0))
        shade = _look_up(values, table, first) * (255.0 / ((1 << bits) - 1))
    elif window is not None:
        shade = windowed(values, *window)
    else:
        shade = _full_range(values, array, dataset, geometry)
    shown = np.clip(np.rint(shade), 0, 255).astype(np.uint8)
    shape = dataset.text(_PRESENTATION_SHAPE)
    inverse = shape == "INVERSE" if shape else geometry.photometric == "MONOCHROME1"
    return 255 - shown if inverse else shown


def windowed(values: Grey, centre: float, width: float, function: str) -> Grey:
    """0 to 255 by the VOI LUT function (PS3.3 section C.11.2.1.2 and C.11.2.1.3)."""
    if function == "sigmoid":
        if width <= 0:
            raise refuse("window width must be positive")
        return 255.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -80, 80)))
    if function == "linear-exact":
        if width <= 0:
            raise refuse("window width must be positive")
        return np.clip((values - centre) / width + 0.5, 0, 1) * 255.0
    if function != "linear" or width < 1:
        raise refuse("window function or width")
    if width == 1:
        return np.where(values > centre - 0.5, np.float32(255), np.float32(0))
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1) * 255.0


def _modality(array: Array, groups: list[Dataset], geometry: Geometry) -> Grey:
    """Values after the Modality LUT; a table takes precedence (PS3.3 section C.11.1)."""
    table_item = next(
        (found for group in groups if (found := _item(group, _MODALITY_LUTS)) is not None), None
    )
    if table_item is not None:
        table, first, _ = _lut(table_item, signed=geometry.signed)
        return _look_up(array.astype(np.float32), table, first)
    slope = _number(groups, _RESCALE_SLOPE)
    intercept = _number(groups, _RESCALE_INTERCEPT)
    values = array.astype(np.float32)
    if slope not in (None, 1.0):
        values *= np.float32(slope)
    if intercept:
        values += np.float32(intercept)
    return values


def _own_window(groups: list[Dataset]) -> tuple[float, float, str] | None:
    """The dataset's first window, None if there is none or it makes no sense."""
    centre, width = _number(groups, _WINDOW_CENTER), _number(groups, _WINDOW_WIDTH)
    if centre is None or width is None:
        return None
    named = next((text for group in groups if (text := group.text(_WINDOW_FUNCTION))), "LINEAR")
    function = _FUNCTIONS.get(named, "linear")
    return (centre, width, function) if width >= 1 or (width > 0 and function != "linear") else None


def _full_range(values: Grey, array: Array, dataset: Dataset, geometry: Geometry) -> Grey:
    """Stretch from darkest to brightest, without pixel padding and numbers that are none."""
    counted = np.isfinite(values)
    padding = dataset.get(_PIXEL_PADDING)
    if padding is not None and not geometry.floating:
        counted &= array != dataset.integer(_PIXEL_PADDING, signed=geometry.signed)
    inside = values[counted]
    low, high = (float(inside.min()), float(inside.max())) if inside.size else (0.0, 0.0)
    if high <= low:
        high = low + 1.0
    return np.nan_to_num(np.clip((values - low) / (high - low), 0, 1), nan=0.0) * 255.0


def _groups(dataset: Dataset, frame: int) -> list[Dataset]:
    """Where to look for a frame's modality and VOI attributes, most specific first."""
    found: list[Dataset] = []
    frames, shared = dataset.get(_FRAME_GROUPS), dataset.get(_SHARED_GROUPS)
    holders = [frames.items[frame]] if frames and frames.items and frame < len(frames.items) else []
    holders += shared.items[:1] if shared and shared.items else []
    for holder in holders:
        found += [item for tag in (_MODALITY_MACRO, _VOI_MACRO) if (item := _item(holder, tag)) is not None]
    return [*found, dataset]


def _item(dataset: Dataset, tag: int) -> Dataset | None:
    """The first item of a sequence."""
    element = dataset.get(tag)
    return element.items[0] if element is not None and element.items else None


def _first_item(groups: list[Dataset], tag: int) -> Dataset | None:
    return next((item for group in groups if (item := _item(group, tag)) is not None), None)


def _number(groups: list[Dataset], tag: int) -> float | None:
    """The first value of the first decimal string found."""
    for group in groups:
        text = group.text(tag).split("\\")[0].strip()
        if text:
            try:
                number = float(text)
            except ValueError:
                continue
            return number if np.isfinite(number) else None
    return None


# --- Tables --------------------------------------------------------------------------------------


def _words(element: Element | None) -> NDArray[np.uint16]:
    value = bytes(element.value) if element is not None else b""
    return np.frombuffer(value[: len(value) // 2 * 2], "<u2")


def _lut(item: Dataset, *, signed: bool) -> tuple[NDArray[np.float32], int, int]:
    """(entries, first value mapped, bits per entry) of a LUT item (PS3.3 section C.11.1.1.1)."""
    return _table(item.get(_LUT_DESCRIPTOR), item.get(_LUT_DATA), signed)


def _table(
    descriptor: Element | None, data: Element | None, signed: bool
) -> tuple[NDArray[np.float32], int, int]:
    described = _words(descriptor)
    if len(described) < 3 or data is None:
        raise refuse("broken lookup table")
    length = int(described[0]) or 65536
    first = int(described[1:2].view("<i2")[0]) if signed else int(described[1])
    bits = int(described[2])
    if not 1 <= bits <= 16:
        raise refuse("broken lookup table")
    if len(data.value) >= 2 * length:
        entries = _words(data)[:length]
    elif bits <= 8 and len(data.value) >= length:  # two entries in a word
        entries = np.frombuffer(bytes(data.value), "u1")[:length].astype("<u2")
    else:
        raise refuse("broken lookup table")
    return entries.astype(np.float32), first, bits


def _look_up(values: Grey, table: NDArray[np.float32], first: int) -> Grey:
    index = np.clip(values - first, 0, len(table) - 1).astype(np.int32)
    return np.asarray(table[index])


def _palette(array: Array, dataset: Dataset) -> Bytes:
    """PALETTE COLOR (PS3.3 section C.7.6.3.1.5), also with segmented tables (C.7.9.2)."""
    planes = []
    for colour in range(3):
        descriptor = dataset.get(0x00281101 + colour)
        data = dataset.get(0x00281201 + colour)
        if data is None:
            segmented = dataset.get(0x00281221 + colour)
            described = _words(descriptor)
            if segmented is None or len(described) < 3:
                raise refuse("palette without tables")
            data = Element(0, b"OW", _expanded(segmented, int(described[0]) or 65536, int(described[2])))
        table, first, bits = _table(descriptor, data, bool(array.dtype.kind == "i"))
        # Some write 8-bit entries into the high byte of 16-bit ones, some say 16 bits and mean 8.
        full = 255 if bits <= 8 or bool((table < 256).all()) else 65535
        index = np.clip(array.astype(np.int32) - first, 0, len(table) - 1)
        planes.append((table * (255.0 / full)).clip(0, 255).astype(np.uint8)[index])
    return np.dstack(planes)


def _expanded(segmented: Element, length: int, bits: int) -> bytes:
    """Entries of a segmented palette: discrete, linear and indirect segments (PS3.3 C.7.9.2)."""
    value = bytes(segmented.value)
    numbers = list(value) if bits <= 8 and segmented.vr == b"OB" else _words(segmented).tolist()
    wide = 1 if bits <= 8 and segmented.vr == b"OB" else 2
    entries: list[int] = []
    starts: list[int] = []

    def run(at: int, opcode: int) -> int:
        count = numbers[at + 1]
        if opcode == 0:
            entries.extend(numbers[at + 2 : at + 2 + count])
            return at + 2 + count
        last = entries[-1]
        end = numbers[at + 2]
        entries.extend(round(last + (end - last) * step / count) for step in range(1, count + 1))
        return at + 3

    at = 0
    try:
        while at + 1 < len(numbers) and len(entries) < length:
            opcode = numbers[at]
            starts.append(at)
            if opcode in (0, 1):
                at = run(at, opcode)
            elif opcode == 2:
                offset = numbers[at + 2] | numbers[at + 3] << (8 * wide)
                source = starts.index(offset // wide if offset // wide in starts else offset)
                for segment in starts[source : source + numbers[at + 1]]:
                    run(segment, numbers[segment])
                at += 4
            else:
                break
    except (IndexError, ValueError, ZeroDivisionError):
        raise refuse("broken segmented palette") from None
    if len(entries) < length:
        raise refuse("broken segmented palette")
    return np.array(entries[:length], "<u2").tobytes()


# --- Colour and output ---------------------------------------------------------------------------


def _colour(array: Array, photometric: str, geometry: Geometry) -> Bytes:
    if geometry.floating or geometry.signed or geometry.samples != 3:
        raise refuse("colour of this type is not rendered")
    shift = max(0, geometry.stored - 8)
    eight: Bytes = (array >> shift).astype(np.uint8)
    if not photometric.startswith("YBR"):
        return eight
    ycbcr = eight.astype(np.float32)
    luminance, blue, red = ycbcr[..., 0], ycbcr[..., 1] - 128, ycbcr[..., 2] - 128
    if photometric.startswith("YBR_PARTIAL"):  # PS3.3 section C.7.6.3.1.2
        luminance = (luminance - 16) * (255 / 219)
        blue, red = blue * (255 / 224), red * (255 / 224)
    rgb = np.stack(
        [luminance + 1.402 * red, luminance - 0.344136 * blue - 0.714136 * red, luminance + 1.772 * blue], -1
    )
    return np.asarray(np.clip(np.rint(rgb), 0, 255).astype(np.uint8))


def _scaled(picture: Pillow.Image, viewport: tuple[int, int] | None) -> Pillow.Image:
    """Fit into the viewport, larger or smaller, aspect kept."""
    if viewport is None:
        return picture
    width, height = viewport
    if not (1 <= width <= MAX_VIEWPORT and 1 <= height <= MAX_VIEWPORT):
        raise refuse("viewport")
    scale = min(width / picture.width, height / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    if size == picture.size:
        return picture
    # A box average first where much is thrown away: as good to the eye and far cheaper.
    return picture.resize(size, Pillow.Resampling.LANCZOS, reducing_gap=3.0 if scale < 1 else None)


def _encode(picture: Pillow.Image, order: Order) -> bytes:
    out = io.BytesIO()
    if order.media_type == "image/png":
        picture.save(out, "PNG", compress_level=3)
    else:
        picture.save(out, "JPEG", quality=max(1, min(100, order.quality)))
    return out.getvalue()
