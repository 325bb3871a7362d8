"""Frames through every encoder and back, and codestreams that lie about their size."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.adapters.decoder import codestreams, headers
from node.adapters.decoder.codestreams import Array, Frame
from node.adapters.decoder.geometry import Geometry
from node.domain import syntaxes as ts
from node.domain.errors import Reason, Refusal

LOSSLESS = sorted(
    ts.ENCODABLE - ts.NATIVE - {ts.JPEG_BASELINE, ts.ENCAPSULATED_UNCOMPRESSED, ts.DEFLATED_FRAMES}
)


def a_frame(
    rows: int,
    columns: int,
    samples: int = 1,
    allocated: int = 16,
    stored: int = 12,
    signed: bool = False,
    seed: int = 0,
    wide: bool = False,
) -> tuple[Array, Geometry]:
    """Noise in `stored` bits, or in all allocated ones if `wide`."""
    photometric = "RGB" if samples == 3 else "MONOCHROME2"
    geometry = Geometry(rows, columns, samples, 1, allocated, stored, signed, photometric, False, False)
    bits = allocated if wide else stored
    low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if signed else (0, 1 << bits)
    noise = np.random.default_rng(seed).integers(low, high, geometry.shape)
    return noise.astype(geometry.dtype), geometry


@st.composite
def frames(draw: st.DrawFn) -> tuple[Array, Geometry]:
    allocated = draw(st.sampled_from([8, 16]))
    return a_frame(
        draw(st.integers(1, 70)),
        draw(st.integers(1, 70)),
        draw(st.sampled_from([1, 3])),
        allocated,
        draw(st.integers(1, allocated)),
        draw(st.booleans()),
        draw(st.integers(0, 1000)),
        draw(st.booleans()),
    )


@pytest.mark.parametrize("uid", LOSSLESS)
@given(frame=frames())
@settings(max_examples=40, deadline=None)
def test_a_lossless_syntax_gives_back_every_value(uid: str, frame: tuple[Array, Geometry]) -> None:
    array, geometry = frame
    coloured = Frame(array, geometry, geometry.photometric)
    try:
        coded = codestreams.encode(uid, coloured)
    except Refusal as refusal:  # OpenJPEG has no room for noise in colours of one bit
        assert refusal.reason is Reason.NOT_ACCEPTABLE
        assert uid in (ts.JPEG_2000, ts.JPEG_2000_LOSSLESS) and (geometry.samples, coloured.precision) == (
            3,
            1,
        )
        return
    assert np.array_equal(codestreams.decode(uid, coded, geometry), array)


@pytest.mark.parametrize("uid", LOSSLESS)
def test_colours_that_are_not_rgb_are_kept_or_refused(uid: str) -> None:
    array, geometry = a_frame(33, 21, samples=3, allocated=8, stored=8)
    try:
        coded = codestreams.encode(uid, Frame(array, geometry, "YBR_FULL"))
    except Refusal as refusal:
        assert uid in (ts.JPEG_XL, ts.JPEG_XL_LOSSLESS) and refusal.reason is Reason.NOT_ACCEPTABLE
        return
    assert np.array_equal(codestreams.decode(uid, coded, geometry), array)
    assert codestreams.encoded_photometric(uid, "YBR_FULL", 3) == "YBR_FULL"


def test_baseline_jpeg_is_close_and_says_that_it_is_ycbcr() -> None:
    rows, columns = np.mgrid[:64, :80]
    array = np.dstack([rows * 3, columns * 2, rows + columns]).astype("u1")
    geometry = Geometry(64, 80, 3, 1, 8, 8, False, "RGB", False, False)
    coded = codestreams.encode(ts.JPEG_BASELINE, Frame(array, geometry, "RGB"))
    decoded = codestreams.decode(ts.JPEG_BASELINE, coded, geometry)
    assert np.abs(decoded.astype(int) - array.astype(int)).mean() < 3
    assert codestreams.encoded_photometric(ts.JPEG_BASELINE, "RGB", 3) == "YBR_FULL_422"


def test_baseline_jpeg_refuses_what_it_cannot_hold() -> None:
    for array, geometry in (a_frame(8, 8), a_frame(8, 8, allocated=8, stored=8, signed=True)):
        with pytest.raises(Refusal) as refused:
            codestreams.encode(ts.JPEG_BASELINE, Frame(array, geometry, "MONOCHROME2"))
        assert refused.value.reason is Reason.NOT_ACCEPTABLE


def test_jpeg_ls_begins_with_its_frame() -> None:
    array, geometry = a_frame(8, 8)
    coded = codestreams.encode(ts.JPEG_LS_LOSSLESS, Frame(array, geometry, "MONOCHROME2"))
    assert coded[:4] == b"\xff\xd8\xff\xf7"


@pytest.mark.parametrize("size", [40, 64, 65, 512, 3000])
def test_rpcl_streams_have_what_the_syntax_asks_for(size: int) -> None:
    """RPCL order, tile-part lengths, and a smallest resolution of at most 64 (PS3.5 section A.4.4)."""
    array, geometry = a_frame(size, 16)
    coded = codestreams.encode(ts.HTJ2K_LOSSLESS_RPCL, Frame(array, geometry, "MONOCHROME2"))
    style = coded[coded.index(b"\xff\x52") + 4 :]
    order, levels = style[1], style[5]
    assert order == 2
    assert b"\xff\x55" in coded[: coded.index(b"\xff\x90")]
    assert size >> levels <= 64


def siz(width: int, height: int, tile: int = 0, components: int = 1, depth: int = 15) -> bytes:
    """A JPEG 2000 codestream's start with nothing behind it."""
    tile_width, tile_height = (tile, tile) if tile else (width, height)
    sizes = struct.pack(">8IH", width, height, 0, 0, tile_width, tile_height, 0, 0, components)
    return b"\xff\x4f\xff\x51\x00\x29\x00\x00" + sizes + bytes([depth, 1, 1]) * components


def test_headers_tell_what_was_encoded() -> None:
    array, geometry = a_frame(37, 53)
    for uid in LOSSLESS:
        if uid == ts.RLE_LOSSLESS:
            continue
        coded = codestreams.encode(uid, Frame(array, geometry, "MONOCHROME2"))
        told = codestreams.claim(uid, coded)
        assert told is not None
        assert (told.height, told.width) == (37, 53), uid
        if uid == ts.JPEG_2000_LOSSLESS:
            assert (told.components, told.precision, told.signed) == (1, 12, False)


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (256, 256), (300, 400), (1000, 7), (5, 2000)])
def test_jpeg_xl_sizes_are_read_in_each_of_their_forms(rows: int, columns: int) -> None:
    array, geometry = a_frame(rows, columns)
    coded = codestreams.encode(ts.JPEG_XL_LOSSLESS, Frame(array, geometry, "MONOCHROME2"))
    told = headers.jpeg_xl(coded)
    assert (told.height, told.width) == (rows, columns)


def test_a_kilobyte_that_claims_a_gigapixel_is_refused_before_it_is_decoded() -> None:
    _, geometry = a_frame(64, 64)
    with pytest.raises(Refusal) as refused:
        codestreams.decode(ts.JPEG_2000, siz(65535, 65535) + bytes(1000), geometry)
    assert refused.value.comment == "codestream and dataset differ in size"


def test_millions_of_tiles_are_refused() -> None:
    with pytest.raises(Refusal) as refused:
        headers.jpeg2000(siz(60000, 60000, tile=1))
    assert refused.value.comment == "too many JPEG 2000 tiles"


@pytest.mark.parametrize("uid", LOSSLESS)
@pytest.mark.parametrize("cut", [0, 1, 3, 20, -1])
def test_a_cut_codestream_is_refused_or_decoded_to_its_size(uid: str, cut: int) -> None:
    """Some codecs fill up what is missing; none may return another size or another exception."""
    array, geometry = a_frame(40, 40)
    coded = codestreams.encode(uid, Frame(array, geometry, "MONOCHROME2"))
    coded = coded[: len(coded) // 2] if cut < 0 else coded[:cut]
    try:
        decoded = codestreams.decode(uid, coded, geometry)
    except Refusal as refusal:
        assert refusal.reason is Reason.NOT_ACCEPTABLE
    else:
        assert decoded.shape == geometry.shape


@pytest.mark.parametrize("read", [headers.jpeg, headers.jpeg2000, headers.jpeg_xl])
@given(
    data=st.binary(max_size=200), start=st.sampled_from([b"", b"\xff\xd8", b"\xff\x4f\xff\x51", b"\xff\x0a"])
)
@settings(max_examples=200, deadline=None)
def test_headers_of_any_bytes_are_read_or_refused(read: object, data: bytes, start: bytes) -> None:
    assert callable(read)
    try:
        told = read(start + data)
    except Refusal as refusal:
        assert refusal.reason is Reason.NOT_ACCEPTABLE
    else:
        assert told.width >= 0


def test_the_sign_follows_the_dataset_where_the_codestream_differs() -> None:
    """Unsigned 12-bit 0xFFF under Pixel Representation 1 means -1."""
    array, unsigned = a_frame(16, 16, stored=12)
    coded = codestreams.encode(ts.JPEG_2000_LOSSLESS, Frame(array, unsigned, "MONOCHROME2"))
    signed = Geometry(16, 16, 1, 1, 16, 12, True, "MONOCHROME2", False, False)
    decoded = codestreams.decode(ts.JPEG_2000_LOSSLESS, coded, signed)
    assert np.array_equal(decoded, np.where(array >= 2048, array.astype(int) - 4096, array))


def test_a_frame_may_inflate_to_its_size_only() -> None:
    bomb = codestreams.deflate(bytes(1 << 20))
    assert len(codestreams.inflate(bomb, 1000)) == 1000
