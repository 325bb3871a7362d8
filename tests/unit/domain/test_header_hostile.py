"""Datasets that lie, each in one way (reliability: bad input)."""

import struct
import time
import tracemalloc
import zlib

import pytest

from node.domain.errors import Reason, Refusal
from node.domain.header import HeaderReader, Limits, read_header
from tests.unit.domain.encoding import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    ITEM_END,
    JPEG,
    LIMITS,
    SEQUENCE_END,
    UNDEFINED,
    element,
    implicit,
    item,
    nested,
)

FRAGMENTS_60 = element(0x7FE00010, "OB", item(b"") + item(b"ab") * 60 + SEQUENCE_END, UNDEFINED)
PATIENT_ID = element(0x00100020, "LO", b"ID")


def reason(dataset: bytes, syntax: str = EXPLICIT, limits: Limits = LIMITS) -> Reason:
    with pytest.raises(Refusal) as refusal:
        read_header(dataset, syntax, limits)
    return refusal.value.reason


@pytest.mark.parametrize("defined", [False, True])
def test_depth_200_is_refused(defined: bool) -> None:
    assert reason(nested(200, defined)) is Reason.NOT_UNDERSTOOD


def test_depth_up_to_the_limit_is_read_and_converted() -> None:
    limits = Limits(1 << 20, 100, 1000, 1 << 20)
    attributes = read_header(nested(100), EXPLICIT, limits).attributes()
    for _ in range(100):
        attributes = attributes["00081140"]["Value"][0]
    assert attributes["00100020"]["Value"] == ["ID"]
    assert reason(nested(101), limits=limits) is Reason.NOT_UNDERSTOOD


def test_a_deep_sequence_hidden_in_an_unknown_value_stays_binary() -> None:
    content = b""
    for _ in range(200):
        content = implicit(0x00081140, item(content))
    header = read_header(element(0x00081140, "UN", item(content)), EXPLICIT, LIMITS)
    assert header.attributes()["00081140"].keys() == {"vr", "InlineBinary"}


def test_pixel_data_of_4_gib_with_4_bytes_is_refused() -> None:
    limits = Limits(4 << 20, 32, 1000, 8 << 30)
    for length in (0xFFFFFFFE, 0xFFFFFFF0):
        assert reason(element(0x7FE00010, "OW", b"abcd", length), limits=limits) is Reason.NOT_UNDERSTOOD


@pytest.mark.parametrize("vr", ["XX", "  ", "\0\0", "ob", "??"])
def test_an_unknown_vr_is_refused(vr: str) -> None:
    assert reason(PATIENT_ID + element(0x00100040, vr, b"O ")) is Reason.NOT_UNDERSTOOD


@pytest.mark.parametrize(
    "wrong",
    [
        element(0x00280010, "UL", struct.pack("<I", 512)),
        element(0x00280010, "US", struct.pack("<HH", 512, 0)),
        element(0x00280011, "SS", struct.pack("<h", 512)),
        element(0x00280100, "IS", b"16"),
        element(0x0020000D, "LO", b"1.2.3 "),
        element(0x00280010, "SQ", b""),
        element(0x7FE00010, "US", b"\1\0"),
        element(0x7FE00010, "OF", b"\1\0\0\0"),
        element(0x7FE00010, "SQ", b""),
        element(0x7FE00008, "OW", b"\1\0\0\0"),
    ],
)
def test_attributes_of_the_wrong_kind_are_a_mismatch(wrong: bytes) -> None:
    assert reason(PATIENT_ID + wrong) is Reason.MISMATCH


def test_rows_of_four_bytes_in_implicit_vr_are_a_mismatch() -> None:
    assert reason(implicit(0x00280010, struct.pack("<I", 512)), IMPLICIT) is Reason.MISMATCH


@pytest.mark.parametrize(
    "broken",
    [
        element(0x00280010, "US", b"\1"),
        element(0x00281200, "UL", b"\1\0"),
        element(0x00189999, "FD", bytes(7)),
        element(0x00189999, "SV", bytes(9)),
        element(0x00209165, "AT", bytes(2)),
        element(0x00081140, "SQ", item(PATIENT_ID), 100),  # longer than it is
        element(0x00081140, "SQ", item(PATIENT_ID), 15),  # shorter than its item
        element(0x00081140, "SQ", item(PATIENT_ID, 9)),  # the element overruns its item
        element(0x00081140, "SQ", item(PATIENT_ID, len(PATIENT_ID) + 4)),  # the item overruns
        element(0x00081140, "SQ", item(PATIENT_ID + b"\0\0\0\0")),  # rest of an item
        element(0x00081140, "SQ", PATIENT_ID),  # no item
        element(0x00081140, "SQ", item(PATIENT_ID + ITEM_END)),  # delimiter in a defined item
        element(0x00081140, "SQ", item(PATIENT_ID) + SEQUENCE_END),  # delimiter in a defined sequence
        element(0x00081140, "SQ", item(PATIENT_ID, UNDEFINED) + SEQUENCE_END, UNDEFINED),
        element(0x00081140, "SQ", item(PATIENT_ID, UNDEFINED)),  # the item's delimiter is missing
        element(0x00081140, "SQ", item(PATIENT_ID + implicit(0xFFFEE00D, b"", 4), UNDEFINED)),
        element(0x00081140, "SQ", item(PATIENT_ID) + ITEM_END, UNDEFINED),
        element(0x00081140, "SQ", item(PATIENT_ID) + implicit(0xFFFEE0DD, b"", 4), UNDEFINED),
        element(0x00081140, "SQ", item(element(0x00091001, "UN", b"", 5000))),  # cut overruns
        element(0x0040A160, "UT", b"", UNDEFINED),
        ITEM_END,
        SEQUENCE_END,
        item(PATIENT_ID),
        element(0x00020010, "UI", b"1.2\0"),
        element(0x00000100, "US", b"\1\0"),
        bytes(16),
        PATIENT_ID + element(0x00100020, "LO", b"XY"),
        PATIENT_ID + b"\0",
        PATIENT_ID + element(0xFFFEFFFE, "OB", b""),
    ],
)  # fmt: skip
def test_broken_structure_is_refused(broken: bytes) -> None:
    assert reason(broken) is Reason.NOT_UNDERSTOOD


def test_the_same_element_twice_passes_only_if_it_says_the_same() -> None:
    again = element(0x00100030, "DA", b"20000101")
    assert not read_header(PATIENT_ID + again + PATIENT_ID, EXPLICIT, LIMITS).ascending
    assert reason(PATIENT_ID + again + element(0x00100020, "LO", b"ID2 ")) is Reason.NOT_UNDERSTOOD
    assert reason(again + PATIENT_ID + again + element(0x00100020, "SH", b"ID")) is Reason.NOT_UNDERSTOOD
    between = element(0x00100024, "LO", b"")
    later = element(0x00100030, "DA", b"20000102")
    assert reason(again + PATIENT_ID + between + later) is Reason.NOT_UNDERSTOOD
    big = element(0x00091001, "OB", bytes(5000))
    assert reason(big + big) is Reason.NOT_UNDERSTOOD


def test_descending_tags_are_read_and_remembered() -> None:
    header = read_header(element(0x00100030, "DA", b"20000101") + PATIENT_ID, EXPLICIT, LIMITS)
    assert not header.ascending
    assert list(header.attributes()) == ["00100020", "00100030"]


@pytest.mark.parametrize("preamble", [bytes(128), b"MZ" + bytes(126), b"II*\0" + bytes(124)])
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
def test_a_part_10_file_is_not_a_dataset(preamble: bytes, syntax: str) -> None:
    meta = element(0x00020010, "UI", b"1.2.840.10008.1.2\0")
    assert reason(preamble + b"DICM" + meta + PATIENT_ID, syntax) is Reason.NOT_UNDERSTOOD


@pytest.mark.parametrize(
    "fragments",
    [
        SEQUENCE_END,  # not even an offset table
        item(b"") + item(b"abcd"),  # no delimiter
        item(b"") + item(b"abcd") + ITEM_END,
        item(b"") + item(b"", UNDEFINED) + SEQUENCE_END,
        item(b"") + item(b"ab", 400) + SEQUENCE_END,
        item(b"") + implicit(0xFFFEE0DD, b"", 2),
        item(b"") + PATIENT_ID + SEQUENCE_END,
    ],
)
def test_broken_fragments_are_refused(fragments: bytes) -> None:
    assert reason(element(0x7FE00010, "OB", fragments, UNDEFINED), JPEG) is Reason.NOT_UNDERSTOOD


def test_fragments_that_overrun_their_item_are_refused() -> None:
    icon = element(0x7FE00010, "OB", item(b"") + item(b"abcd" * 20) + SEQUENCE_END, UNDEFINED)
    assert reason(element(0x00880200, "SQ", item(icon, len(icon) - 8)), JPEG) is Reason.NOT_UNDERSTOOD


def test_an_overrun_is_refused_before_its_bytes_come() -> None:
    """A length that cannot be right is not waited for."""
    fragment = element(0x7FE00010, "OB", item(b"") + item(b"", 1 << 30), UNDEFINED)
    for inner in (fragment, element(0x00091001, "UN", b"", 1 << 30), element(0x00100020, "LO", b"", 1 << 15)):
        reader = HeaderReader(JPEG, LIMITS)
        with pytest.raises(Refusal) as refusal:
            reader.feed(element(0x00880200, "SQ", item(inner, 1 << 10), 1 << 20))
        assert refusal.value.reason is Reason.NOT_UNDERSTOOD


def test_a_rest_of_an_item_is_refused_before_more_comes() -> None:
    reader = HeaderReader(EXPLICIT, LIMITS)
    with pytest.raises(Refusal):
        reader.feed(element(0x00081140, "SQ", item(PATIENT_ID + b"\0\0\0\0"), 1 << 20))


def test_encapsulated_pixels_in_a_native_syntax_are_refused() -> None:
    pixels = element(0x7FE00010, "OB", item(b"") + item(b"abcd") + SEQUENCE_END, UNDEFINED)
    assert reason(pixels, EXPLICIT) is Reason.NOT_UNDERSTOOD


# --- Limits --------------------------------------------------------------------------------------


def test_header_size_is_limited_before_it_is_buffered() -> None:
    limits = Limits(1 << 16, 32, 10_000, 1 << 30)
    assert reason(element(0x0040A160, "UT", b"", 0x7FFFFFFE), limits=limits) is Reason.TOO_LARGE
    many = b"".join(element(tag, "LT", b"x" * 1000) for tag in range(0x00104000, 0x00104060))
    assert reason(many, limits=limits) is Reason.TOO_LARGE


def test_an_offset_table_counts_as_header() -> None:
    limits = Limits(1 << 16, 32, 10_000, 1 << 30)
    pixels = element(0x7FE00010, "OB", item(b"", 1 << 20), UNDEFINED)
    assert reason(pixels, JPEG, limits) is Reason.TOO_LARGE


@pytest.mark.parametrize(
    "many",
    [
        b"".join(element(tag, "SH", b"") for tag in range(0x00181000, 0x00181000 + 200)),
        element(0x00081140, "SQ", item(b"") * 200),
        PATIENT_ID * 200,
        element(0x7FE00010, "OB", item(b"") + item(b"ab") * 200 + SEQUENCE_END, UNDEFINED),
        # each alone is below the limit
        element(0x00880200, "SQ", item(FRAGMENTS_60)) + FRAGMENTS_60,
    ],
)
def test_elements_items_and_fragments_are_limited(many: bytes) -> None:
    assert reason(many, JPEG, Limits(1 << 20, 32, 100, 1 << 20)) is Reason.TOO_LARGE


def test_the_dataset_is_limited() -> None:
    limits = Limits(1 << 16, 32, 100, 1 << 20)
    assert reason(element(0x7FE00010, "OW", bytes(1 << 20)), limits=limits) is Reason.TOO_LARGE


def _bomb(megabytes: int) -> bytes:
    stream = zlib.compressobj(9, wbits=-15)
    head = element(0x00100020, "LO", b"ID") + element(0x7FE00010, "OW", b"", megabytes << 20)
    pieces = [stream.compress(head)]
    pieces += [stream.compress(bytes(1 << 20)) for _ in range(megabytes)]
    return b"".join((*pieces, stream.flush()))


def test_a_deflate_bomb_is_refused_in_bounded_memory_and_time() -> None:
    bomb = _bomb(586)
    begun = time.perf_counter()
    tracemalloc.start()
    try:
        reader = HeaderReader(DEFLATED, Limits(1 << 20, 32, 100, 8 << 30))
        with pytest.raises(Refusal) as refusal:
            reader.feed(bomb)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert refusal.value.reason is Reason.TOO_LARGE
    assert time.perf_counter() - begun < 10  # seconds; it takes a tenth of one on an idle machine


def test_a_small_mask_that_deflates_well_is_read() -> None:
    header = read_header(_bomb(32), DEFLATED, LIMITS)
    assert header.pixel is not None and header.pixel.length == 32 << 20


def test_what_is_no_deflate_stream_is_refused() -> None:
    assert reason(b"\xff" * 40, DEFLATED) is Reason.NOT_UNDERSTOOD
    good = zlib.compressobj(wbits=-15)
    stream = good.compress(PATIENT_ID) + good.flush()
    assert reason(stream + bytes(100), DEFLATED) is Reason.NOT_UNDERSTOOD
    assert reason(stream[:-1], DEFLATED) is Reason.NOT_UNDERSTOOD


def test_comments_never_hold_values() -> None:
    secret = b"SECRET^NAME"
    for wrong in (
        element(0x00100010, "ZZ", secret),
        element(0x00280010, "UL", b"SECR"),
        element(0x00100010, "PN", secret, 99),
    ):
        with pytest.raises(Refusal) as refusal:
            read_header(wrong, EXPLICIT, LIMITS)
        assert "SECR" not in str(refusal.value)
