"""Zeros behind the last element: kept with what was received, and nothing else is."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.domain.errors import Reason, Refusal
from node.domain.header import Header, HeaderReader, Limits, read_header
from tests.unit.domain.encoding import (
    BIG_ENDIAN,
    EXPLICIT,
    IMPLICIT,
    JPEG,
    LIMITS,
    SEQUENCE_END,
    UNDEFINED,
    element,
    implicit,
    item,
    real_file,
)

# An end of each kind: native pixels in both byte orders, fragments, text, a sequence
REAL = ("MR_small_implicit.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm", "rtplan.dcm", "test-SR.dcm")
PATIENT_ID = element(0x00100020, "LO", b"ID")
PIXELS = element(0x7FE00010, "OW", b"\1\2" * 20)
FRAGMENTS = element(0x7FE00010, "OB", item(b"") + item(b"jpeg") + SEQUENCE_END, UNDEFINED)
OPEN_SEQUENCE = element(0x00081140, "SQ", item(PATIENT_ID) + SEQUENCE_END, UNDEFINED)


def said(header: Header) -> object:
    """All that a header says but the dataset's length."""
    return (
        header.attributes(lambda path, offset, length: f"{path} {offset} {length}"),
        header.pixel,
        header.ascending,
        [header.get(tag) for tag in header.tags()],
    )


def refusal_of(dataset: bytes, syntax: str = EXPLICIT) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        read_header(dataset, syntax, LIMITS)
    return refusal.value


@pytest.mark.parametrize("name", REAL)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_padding_changes_the_length_and_nothing_else(name: str, data: st.DataObject) -> None:
    file = real_file(name)
    count = data.draw(st.one_of(st.integers(2, 40), st.integers(41, 40_000)))
    padded = file.dataset + bytes(count)
    around_the_end = st.integers(max(0, len(file.dataset) - 20), len(padded))
    cuts = data.draw(st.lists(st.one_of(around_the_end, st.integers(0, len(padded))), max_size=30))
    reader = HeaderReader(file.transfer_syntax_uid, LIMITS)
    start = 0
    for cut in (*sorted(cuts), len(padded)):
        reader.feed(padded[start:cut])
        start = cut
    header = reader.finish()
    assert said(header) == said(read_header(file.dataset, file.transfer_syntax_uid, LIMITS))
    assert header.dataset_length == len(padded)
    again = Header.unpack(header.pack())
    assert said(again) == said(header)
    assert again.dataset_length == len(padded)


@pytest.mark.parametrize(
    ("dataset", "syntax"),
    [
        (PATIENT_ID, EXPLICIT),
        (PATIENT_ID + PIXELS, EXPLICIT),
        (PATIENT_ID + FRAGMENTS, JPEG),
        (OPEN_SEQUENCE, EXPLICIT),
        (implicit(0x00100020, b"ID"), IMPLICIT),
        (element(0x00100020, "LO", b"ID", order=">"), BIG_ENDIAN),
    ],
)
def test_every_cut_of_a_padded_dataset(dataset: bytes, syntax: str) -> None:
    """Fed byte by byte and cut at every offset: whole from its end on, and refused where one zero follows,
    which may be the first half of a group number."""
    padded = dataset + bytes(40)
    accepted = []
    for size in range(len(padded) + 1):
        reader = HeaderReader(syntax, LIMITS)
        try:
            for at in range(size):
                reader.feed(padded[at : at + 1])
            reader.finish()
        except Refusal as refusal:
            assert refusal.reason is Reason.NOT_UNDERSTOOD
        else:
            accepted.append(size)
    first = len(dataset)
    boundaries = {0, len(PATIENT_ID)} if dataset.startswith(PATIENT_ID) else {0}
    assert set(accepted) - boundaries == {first, *range(first + 2, len(padded) + 1)} - boundaries


@settings(max_examples=200, deadline=None)
@given(count=st.integers(8, 30_000), data=st.data())
def test_a_single_other_byte_among_the_zeros_is_refused(count: int, data: st.DataObject) -> None:
    garbage = bytearray(count)
    # An even byte at the front would be a group number: an element that the walk refuses in its own way
    garbage[data.draw(st.integers(4, count - 1))] = data.draw(st.integers(1, 255))
    step = data.draw(st.integers(1, 9000))
    reader = HeaderReader(EXPLICIT, LIMITS)
    with pytest.raises(Refusal) as refusal:
        reader.feed(PATIENT_ID + PIXELS)
        for at in range(0, count, step):
            reader.feed(garbage[at : at + step])
        reader.finish()
    assert refusal.value.reason is Reason.NOT_UNDERSTOOD


@pytest.mark.parametrize(
    "broken",
    [
        bytes(8),  # nothing but zeros
        bytes(5000),
        PATIENT_ID + element(0x00000000, "UL", bytes(4)),  # a command's group length
        PATIENT_ID + implicit(0x00000000, b"", 0) + PIXELS,  # zeros with something behind them
        PATIENT_ID + bytes(16) + PATIENT_ID,
        PATIENT_ID + b"\0",
        PATIENT_ID + bytes(4) + b"\1",
        PATIENT_ID + b"\n" + bytes(31),  # garbage of other kinds
        PATIENT_ID + b"\xff" * 64,
        element(0x00081140, "SQ", item(PATIENT_ID + bytes(8))),  # inside an item
        element(0x00081140, "SQ", item(PATIENT_ID) + bytes(8)),  # inside a sequence
        element(0x00081140, "SQ", item(PATIENT_ID), UNDEFINED) + bytes(64),  # a sequence without its end
        element(0x7FE00010, "OB", item(b"") + item(b"jpeg"), UNDEFINED) + bytes(64),  # fragments without
    ],
)
def test_zeros_elsewhere_and_other_bytes_are_refused(broken: bytes) -> None:
    assert refusal_of(broken).reason is Reason.NOT_UNDERSTOOD


def test_padding_counts_as_part_of_the_object_and_is_not_held() -> None:
    limits = Limits(1 << 20, 32, 1000, 16 << 20)
    reader = HeaderReader(EXPLICIT, limits)
    chunk = bytes(1 << 20)
    tracemalloc.start()
    try:
        reader.feed(PATIENT_ID)
        for _ in range(15):
            reader.feed(chunk)
        assert tracemalloc.get_traced_memory()[1] < 128 << 10
    finally:
        tracemalloc.stop()
    with pytest.raises(Refusal) as refusal:
        reader.feed(chunk)
    assert refusal.value.reason is Reason.TOO_LARGE
