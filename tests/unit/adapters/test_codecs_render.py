"""Frames for display: what each step of the grayscale pipeline does to known values."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from pydicom import Dataset
from pydicom.sequence import Sequence

from node.adapters.decoder.part10 import read
from node.adapters.decoder.render import Order, render, windowed
from node.domain import syntaxes as ts
from node.domain.errors import Reason, Refusal
from tests.unit.adapters.test_codecs_part10 import written

LIMIT = 1 << 28


def an_image(pixels: Any, **attributes: Any) -> Dataset:
    """A synthetic image object with these pixels, (rows, columns[, 3]) or frames of them."""
    array = np.asarray(pixels)
    colour = array.shape[-1] == 3 and attributes.get("SamplesPerPixel") == 3
    shape = array.shape[:-1] if colour else array.shape
    dataset = Dataset()
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    if len(shape) == 3:
        dataset.NumberOfFrames = shape[0]
    dataset.Rows, dataset.Columns = shape[-2:]
    dataset.BitsAllocated = array.dtype.itemsize * 8
    dataset.BitsStored = dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(array.dtype.kind == "i")
    dataset.PixelData = array.tobytes() + b"\0" * (array.nbytes % 2)
    dataset["PixelData"].VR = "OW" if dataset.BitsAllocated > 8 else "OB"
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def shown(dataset: Dataset, frame: int = 0, **order: Any) -> Any:
    """The rendered picture as an array, without loss."""
    part10 = read(memoryview(written(dataset, ts.EXPLICIT_LITTLE)), LIMIT)
    png = render(part10, Order(frame, "image/png", **order), LIMIT)
    return np.asarray(Pillow.open(io.BytesIO(png)))


RAMP = np.arange(256, dtype="<u2").reshape(16, 16)


def test_without_a_window_the_whole_range_is_shown() -> None:
    assert shown(an_image(RAMP * 16)).tolist() == RAMP.tolist()


def test_pixel_padding_does_not_count_in_the_range() -> None:
    pixels = RAMP.astype("<i2").copy()
    pixels[0, 0] = -2000
    assert shown(an_image(pixels, PixelPaddingValue=-2000))[0, :3].tolist() == [0, 0, 1]


def test_rescale_comes_before_the_window() -> None:
    """Stored 0…255 means -1000…: a window around -900 of width 101 ends at -850."""
    dataset = an_image(
        RAMP, RescaleSlope="1", RescaleIntercept="-1000", WindowCenter="-900", WindowWidth="101"
    )
    picture = shown(dataset).reshape(-1)
    assert picture[49] == 0 and picture[150] == 255 and picture[100] == 129


def test_a_window_asked_for_replaces_the_datasets() -> None:
    dataset = an_image(RAMP, WindowCenter="10", WindowWidth="10")
    assert shown(dataset, window=(128.0, 256.0, "linear")).tolist() == RAMP.tolist()


def test_window_functions_are_the_standards() -> None:
    """PS3.3 section C.11.2.1.2.1: y = ((x - (c - 0.5)) / (w - 1) + 0.5) * 255; and C.11.2.1.3."""
    values = np.array([-1e9, 0, 100, 150, 199.5, 1e9], np.float32)
    linear = windowed(values, 100, 200, "linear")
    assert linear == pytest.approx([0, 0, 128.14, 192.21, 255, 255], abs=0.01)
    exact = windowed(values, 100, 200, "linear-exact")
    assert exact == pytest.approx([0, 0, 127.5, 191.25, 254.36, 255], abs=0.01)
    sigmoid = windowed(values, 100, 200, "sigmoid")
    assert sigmoid == pytest.approx([0, 30.40, 127.5, 186.41, 224.36, 255], abs=0.05)
    assert windowed(values, 100, 1, "linear").tolist() == [0, 0, 255, 255, 255, 255]


@pytest.mark.parametrize(
    "window", [(1, 0, "linear"), (1, 0, "sigmoid"), (1, -3, "linear-exact"), (1, 9, "cubic")]
)
def test_windows_without_sense_are_refused(window: tuple[float, float, str]) -> None:
    with pytest.raises(Refusal) as refused:
        shown(an_image(RAMP), window=window)
    assert refused.value.reason is Reason.NOT_ACCEPTABLE


def test_a_window_of_nonsense_in_the_dataset_is_ignored() -> None:
    for centre, width in (("abc", "100"), ("10", "0"), ("10", "-5")):
        dataset = an_image(RAMP)
        dataset.add_new(0x00281050, "LO", centre)  # as a file would hold it, unchecked
        dataset.add_new(0x00281051, "LO", width)
        assert shown(dataset).tolist() == RAMP.tolist()


def test_monochrome1_is_shown_inverted() -> None:
    picture = shown(an_image(RAMP, PhotometricInterpretation="MONOCHROME1"))
    assert picture.tolist() == (255 - RAMP).tolist()


def test_presentation_lut_shape_decides_over_the_photometric_interpretation() -> None:
    dataset = an_image(RAMP, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="IDENTITY")
    assert shown(dataset).tolist() == RAMP.tolist()
    dataset = an_image(RAMP, PresentationLUTShape="INVERSE")
    assert shown(dataset).tolist() == (255 - RAMP).tolist()


def a_table(first: int, entries: list[int], bits: int) -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, "US", [len(entries), first, bits])
    item.add_new(0x00283006, "OW", np.array(entries, "<u2").tobytes())
    return item


def test_a_voi_table_replaces_the_window() -> None:
    dataset = an_image(RAMP, WindowCenter="1", WindowWidth="1")
    dataset.VOILUTSequence = Sequence([a_table(100, [0, 1023, 511], 10)])
    picture = shown(dataset).reshape(-1)
    assert (picture[99], picture[100], picture[101], picture[102], picture[200]) == (0, 0, 255, 127, 127)


def test_a_modality_table_comes_first() -> None:
    dataset = an_image(RAMP, WindowCenter="128", WindowWidth="256")
    dataset.ModalityLUTSequence = Sequence([a_table(0, list(range(255, -1, -1)), 16)])
    assert shown(dataset).tolist() == (255 - RAMP).tolist()


def test_each_frame_has_its_own_window() -> None:
    dataset = an_image(np.stack([RAMP, RAMP]))
    frames = []
    for centre in ("50", "200"):
        voi, frame = Dataset(), Dataset()
        voi.WindowCenter, voi.WindowWidth = centre, "1"
        frame.FrameVOILUTSequence = Sequence([voi])
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    assert [int((shown(dataset, at) == 255).sum()) for at in (0, 1)] == [206, 56]


def test_signed_pixels_are_signed() -> None:
    pixels = (RAMP.astype("<i2") - 128) * 8
    assert shown(an_image(pixels)).tolist() == RAMP.tolist()


def test_single_bits_are_black_and_white() -> None:
    dataset = an_image(np.packbits(RAMP % 2 == 1, axis=1, bitorder="little"))
    dataset.Rows, dataset.Columns, dataset.BitsAllocated, dataset.BitsStored = 16, 16, 1, 1
    dataset.HighBit = 0
    assert shown(dataset).tolist() == (RAMP % 2 * 255).tolist()


def test_a_palette_gives_its_colours() -> None:
    dataset = an_image(np.array([[0, 1], [2, 9]], "u1"), PhotometricInterpretation="PALETTE COLOR")
    for at, entries in enumerate(([0, 0xFFFF, 0], [0, 0, 0xFFFF], [0x8000, 0, 0])):
        dataset.add_new(0x00281101 + at, "US", [3, 0, 16])
        dataset.add_new(0x00281201 + at, "OW", np.array(entries, "<u2").tobytes())
    assert shown(dataset).tolist() == [[[0, 0, 127], [255, 0, 0]], [[0, 255, 0], [0, 255, 0]]]


def test_a_segmented_palette_is_expanded() -> None:
    """A discrete start, a linear rise, and both repeated by an indirect segment (PS3.3 C.7.9.2)."""
    dataset = an_image(np.arange(10, dtype="u1").reshape(2, 5), PhotometricInterpretation="PALETTE COLOR")
    segments = [0, 1, 0, 1, 4, 0xFF00, 2, 2, 0, 0]
    for at in range(3):
        dataset.add_new(0x00281101 + at, "US", [10, 0, 16])
        dataset.add_new(0x00281221 + at, "OW", np.array(segments, "<u2").tobytes())
    red = shown(dataset)[..., 0].reshape(-1).tolist()
    assert red == [0, 63, 127, 190, 254, 0, 63, 127, 190, 254]


def test_colour_by_plane_is_the_colour_by_pixel() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (5, 7, 3)).astype("u1")
    by_pixel = an_image(pixels, SamplesPerPixel=3)
    by_plane = an_image(pixels, SamplesPerPixel=3, PlanarConfiguration=1)
    by_plane.PixelData = pixels.transpose(2, 0, 1).tobytes() + b"\0"
    assert shown(by_plane).tolist() == shown(by_pixel).tolist() == pixels.tolist()


def test_ybr_full_is_shown_as_rgb() -> None:
    pixels = np.array([[[76, 85, 255], [255, 128, 128]]], "u1")  # red, white
    dataset = an_image(pixels, SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL")
    assert np.abs(shown(dataset).astype(int) - [[[255, 0, 0], [255, 255, 255]]]).max() <= 1


@pytest.mark.parametrize(
    ("viewport", "size"), [((8, 8), (8, 4)), ((64, 16), (32, 16)), ((100, 1000), (100, 50)), ((1, 1), (1, 1))]
)
def test_the_viewport_is_filled_without_distortion(viewport: tuple[int, int], size: tuple[int, int]) -> None:
    picture = shown(an_image(np.zeros((8, 16), "<u2")), viewport=viewport)
    assert picture.shape == (size[1], size[0])


def test_a_region_is_cut_out_with_the_whole_frames_shades() -> None:
    picture = shown(an_image(RAMP), region=(4, 2, 3, 5))
    assert picture.tolist() == RAMP[2:7, 4:7].tolist()


@pytest.mark.parametrize(
    "order",
    [
        {"region": (100, 0, 5, 5)},
        {"region": (0, 0, -1, 5)},
        {"region": (float("nan"), 0, 1, 1)},
        {"window": (float("inf"), 1, "linear")},
        {"viewport": (0, 10)},
        {"viewport": (10, 1 << 20)},
        {"frame": 1},
    ],
)
def test_orders_without_sense_are_refused(order: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as refused:
        shown(an_image(RAMP), **order)
    assert refused.value.reason is Reason.NOT_ACCEPTABLE


def test_jpeg_quality_changes_the_size() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype("u1")
    part10 = read(memoryview(written(an_image(noise), ts.EXPLICIT_LITTLE)), LIMIT)
    low, high = (len(render(part10, Order(0, "image/jpeg", quality=q), LIMIT)) for q in (10, 95))
    assert low * 2 < high


def test_a_frame_over_the_memory_limit_is_refused() -> None:
    part10 = read(memoryview(written(an_image(RAMP), ts.EXPLICIT_LITTLE)), LIMIT)
    with pytest.raises(Refusal) as refused:
        render(part10, Order(0, "image/png"), 4000)
    assert refused.value.comment == "a frame is over the memory limit"


def test_pixel_data_shorter_than_claimed_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        shown(an_image(RAMP, NumberOfFrames=2_000_000_000))
    assert refused.value.comment == "pixel data is shorter than the dataset says"


def test_an_object_without_pixels_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        shown(Dataset())
    assert refused.value.comment == "the object has no pixel data"
