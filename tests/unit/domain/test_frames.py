import struct

import pytest

from node.domain.errors import Reason, Refusal
from node.domain.frames import Pieces, frame_ranges
from node.domain.header import read_header
from tests.unit.domain.encoding import EXPLICIT, JPEG, LIMITS, SEQUENCE_END, UNDEFINED, element, item


def short(tag: int, value: int) -> bytes:
    return element(tag, "US", struct.pack("<H", value))


def image(
    pixels: bytes, frames: int = 1, bits: int = 8, samples: int = 1, rows: int = 2, columns: int = 3,
    photometric: bytes = b"", more: bytes = b"", syntax: str = EXPLICIT,
) -> list[bytes]:  # fmt: skip
    """The bytes of each frame of an image."""
    head = [short(0x00280002, samples)]
    if photometric:
        head.append(element(0x00280004, "CS", photometric))
    if frames:
        head.append(element(0x00280008, "IS", str(frames).encode()))
    head += [short(0x00280010, rows), short(0x00280011, columns), short(0x00280100, bits), more, pixels]
    encoded = b"".join(head)
    ranges: list[Pieces] = frame_ranges(read_header(encoded, syntax, LIMITS))
    return [b"".join(encoded[at : at + size] for at, size in pieces) for pieces in ranges]


def refused(*args: object, **kwargs: object) -> bool:
    with pytest.raises(Refusal) as refusal:
        image(*args, **kwargs)  # type: ignore[arg-type]
    return refusal.value.reason is Reason.NOT_ACCEPTABLE


# --- Native --------------------------------------------------------------------------------------


def test_native_frames_follow_each_other() -> None:
    data = bytes(range(36))
    pixels = element(0x7FE00010, "OW", data)
    assert image(pixels, frames=3, bits=16) == [data[:12], data[12:24], data[24:]]
    assert image(pixels, frames=2, samples=3) == [data[:18], data[18:]]
    assert image(pixels, frames=0, bits=16) == [data[:12]]  # no Number of Frames is one


def test_padding_belongs_to_no_frame() -> None:
    assert image(element(0x7FE00010, "OB", b"abcdefghi\0"), rows=3) == [b"abcdefghi"]


def test_subsampled_chrominance_takes_two_thirds() -> None:
    data = bytes(range(16))
    assert image(element(0x7FE00010, "OB", data), samples=3, columns=4, photometric=b"YBR_FULL_422") == [data]


def test_float_pixels() -> None:
    data = bytes(range(48))
    assert image(element(0x7FE00008, "OF", data), frames=2) == [data[:24], data[24:]]
    assert image(element(0x7FE00009, "OD", data)) == [data]


def test_single_bit_frames_only_on_byte_boundaries() -> None:
    assert image(element(0x7FE00010, "OB", b"abcd"), frames=2, bits=1, rows=4, columns=4) == [b"ab", b"cd"]
    assert image(element(0x7FE00010, "OB", b"ab"), bits=1, rows=3, columns=3) == [b"ab"]
    assert refused(element(0x7FE00010, "OB", b"abcd"), frames=3, bits=1, rows=3, columns=3)


def test_pixels_that_do_not_hold_their_frames_are_refused() -> None:
    assert refused(element(0x7FE00010, "OB", bytes(10)), frames=2)
    assert refused(element(0x7FE00010, "OB", bytes(10)), rows=0)
    assert refused(b"")


# --- Encapsulated --------------------------------------------------------------------------------


def encapsulated(*fragments: bytes, table: tuple[int, ...] = ()) -> bytes:
    content = item(struct.pack(f"<{len(table)}I", *table)) + b"".join(item(part) for part in fragments)
    return element(0x7FE00010, "OB", content + SEQUENCE_END, UNDEFINED)


def test_one_fragment_a_frame() -> None:
    assert image(encapsulated(b"aa", b"bbbb"), frames=2, syntax=JPEG) == [b"aa", b"bbbb"]


def test_one_frame_of_several_fragments() -> None:
    assert image(encapsulated(b"aa", b"bb", b"cc"), syntax=JPEG) == [b"aabbcc"]


def test_a_basic_offset_table_groups_fragments() -> None:
    pixels = encapsulated(b"aa", b"bb", b"cccc", table=(0, 20))
    assert image(pixels, frames=2, syntax=JPEG) == [b"aabb", b"cccc"]


def test_an_extended_offset_table_groups_fragments_and_trims_padding() -> None:
    more = element(0x7FE00001, "OV", struct.pack("<2Q", 0, 10)) + element(
        0x7FE00002, "OV", struct.pack("<2Q", 1, 3)
    )
    assert image(encapsulated(b"a\0", b"bbb\0"), frames=2, more=more, syntax=JPEG) == [b"a", b"bbb"]


def test_a_long_extended_offset_table_is_kept() -> None:
    offsets = struct.pack("<1000Q", *range(0, 20_000, 20))
    more = element(0x7FE00001, "OV", offsets)
    pixels = encapsulated(*[b"%02d" % (n % 100) for n in range(2000)])
    frames = image(pixels, frames=1000, more=more, syntax=JPEG)
    assert len(frames) == 1000 and frames[999] == b"9899"


def test_a_wrong_table_does_no_harm_where_none_is_needed() -> None:
    """Tables of files over 4 GiB have overflown."""
    assert image(encapsulated(b"aa", b"bb", table=(0, 7)), frames=2, syntax=JPEG) == [b"aa", b"bb"]
    assert image(encapsulated(b"aa", b"bb", table=(0, 10)), syntax=JPEG) == [b"aabb"]


def test_frames_are_limited() -> None:
    assert refused(element(0x7FE00010, "OB", bytes((1 << 20) + 1)), frames=(1 << 20) + 1, rows=1, columns=1)


@pytest.mark.parametrize("table", [(), (0, 5), (10, 20), (0, 0), (0, 30), (20, 0)])
def test_frames_that_nothing_tells_apart_are_refused(table: tuple[int, ...]) -> None:
    assert refused(encapsulated(b"aa", b"bb", b"cc", table=table), frames=2, syntax=JPEG)


def test_native_pixels_in_a_compressed_syntax_are_refused() -> None:
    assert refused(element(0x7FE00010, "OB", bytes(6)), syntax=JPEG)
