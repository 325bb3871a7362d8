"""The same dataset in any pieces gives the same header; a damaged one gives a refusal or a header."""

import random
import tracemalloc
import zlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.domain.errors import Reason, Refusal
from node.domain.header import Header, HeaderReader, read_header
from tests.unit.domain.encoding import (
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    ITEM_END,
    JPEG,
    LIMITS,
    SEQUENCE_END,
    UNDEFINED,
    RealFile,
    element,
    implicit,
    item,
    real_file,
)

# One of each kind of encoding, small enough to be cut at every offset
SMALL = (
    "MR_small_implicit.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "rtplan.dcm",
    "test-SR.dcm",
    "image_dfl.dcm",
    "JPEG2000-embedded-sequence-delimiter.dcm",
    "nested_priv_SQ.dcm",
)


def signature(header: Header) -> object:
    return (
        header.attributes(lambda path, offset, length: f"{path} {offset} {length}"),
        header.pixel,
        header.dataset_length,
        header.ascending,
        [header.get(tag) for tag in header.tags()],
    )


def feed_all(file: RealFile, cuts: list[int]) -> Header:
    reader = HeaderReader(file.transfer_syntax_uid, LIMITS)
    edges = [0, *sorted(cuts), len(file.dataset)]
    scratch = bytearray()
    for start, end in pairwise(edges):
        scratch[:] = file.dataset[start:end]  # the reader must not rely on the buffer afterwards
        reader.feed(scratch)
    return reader.finish()


@pytest.mark.parametrize("name", SMALL)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_split_gives_the_same_header(name: str, data: st.DataObject) -> None:
    file = real_file(name)
    size = len(file.dataset)
    cuts = data.draw(st.lists(st.integers(0, size), max_size=40))
    whole = read_header(file.dataset, file.transfer_syntax_uid, LIMITS)
    assert signature(feed_all(file, cuts)) == signature(whole)


@pytest.mark.parametrize("name", SMALL)
def test_single_bytes_give_the_same_header(name: str) -> None:
    file = real_file(name)
    whole = read_header(file.dataset, file.transfer_syntax_uid, LIMITS)
    assert signature(feed_all(file, list(range(len(file.dataset))))) == signature(whole)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_several_empty_pixel_data_do_not_stop_the_walk(syntax: str) -> None:
    """Found by fuzzing: after the second one the rest was left unread, and the dataset called truncated."""
    encoded = implicit(0x7FE00010, b"") if syntax == IMPLICIT else element(0x7FE00010, "OW", b"")
    icons = item(encoded) * 3
    sequence = implicit(0x00880200, icons) if syntax == IMPLICIT else element(0x00880200, "SQ", icons)
    dataset = sequence + encoded
    for cut in range(len(dataset)):
        reader = HeaderReader(syntax, LIMITS)
        reader.feed(dataset[:cut])
        reader.feed(dataset[cut:])
        header = reader.finish()
        assert len(header.attributes()["00880200"]["Value"]) == 3
        assert header.pixel is not None and header.pixel.length == 0
        assert signature(Header.unpack(header.pack())) == signature(header)


def boundaries(dataset: bytes, syntax: str) -> set[int]:
    """Offsets at which a top-level element ends, found by reading nothing but whole prefixes."""
    header = read_header(dataset, syntax, LIMITS)
    return {0, *(end for _, end in spans(header, dataset))}


def spans(header: Header, dataset: bytes) -> list[tuple[int, int]]:
    """(begin, end) of each top-level element, by searching for its encoded tag in order."""
    order = ">" if header.transfer_syntax_uid == "1.2.840.10008.1.2.2" else "<"
    starts = []
    at = 0
    for tag in header.tags():
        encoded = b"".join(
            part.to_bytes(2, "little" if order == "<" else "big") for part in (tag >> 16, tag & 0xFFFF)
        )
        at = dataset.index(encoded, at)
        starts.append(at)
        at += 8
    return list(zip(starts, [*starts[1:], len(dataset)], strict=True))


@pytest.mark.parametrize("name", ["rtplan.dcm", "test-SR.dcm", "MR_small_RLE.dcm", "nested_priv_SQ.dcm"])
def test_truncation_anywhere_is_refused(name: str) -> None:
    """Cut at every offset: refused, unless the cut falls between two top-level elements."""
    file = real_file(name)
    accepted = set()
    step = 1 if len(file.dataset) < 4000 else 3
    for size in range(0, len(file.dataset), step):
        try:
            read_header(file.dataset[:size], file.transfer_syntax_uid, LIMITS)
            accepted.add(size)
        except Refusal as refusal:
            assert refusal.reason in (Reason.NOT_UNDERSTOOD, Reason.MISMATCH)
    assert accepted <= boundaries(file.dataset, file.transfer_syntax_uid)


def test_a_truncated_deflated_dataset_is_refused_everywhere() -> None:
    file = real_file("image_dfl.dcm")
    for size in range(0, len(file.dataset) - 8, 7):
        with pytest.raises(Refusal):
            read_header(file.dataset[:size], file.transfer_syntax_uid, LIMITS)


@pytest.mark.parametrize("name", SMALL)
def test_flipped_bytes_only_ever_refuse_or_read(name: str) -> None:
    """No other exception, also not later from what a damaged header holds; memory stays bounded."""
    file = real_file(name)
    rng = random.Random(name)
    tracemalloc.start()
    try:
        for _ in range(250):
            damaged = bytearray(file.dataset)
            for _ in range(rng.choice((1, 1, 2, 8))):
                damaged[rng.randrange(len(damaged))] = rng.choice((0, 1, 0x5C, 0x7F, 0x80, 0xFE, 0xFF))
            try:
                header = read_header(damaged, file.transfer_syntax_uid, LIMITS)
            except Refusal as refusal:
                assert len(refusal.comment) <= 64 and refusal.comment
                continue
            assert signature(Header.unpack(header.pack())) == signature(header)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@settings(max_examples=300, deadline=None)
@given(
    data=st.binary(max_size=300),
    syntax=st.sampled_from([EXPLICIT, IMPLICIT, DEFLATED, "1.2.840.10008.1.2.2"]),
)
def test_noise_only_ever_refuses_or_reads(data: bytes, syntax: str) -> None:
    try:
        read_header(data, syntax, LIMITS).attributes()
    except Refusal:
        pass  # what noise deserves


def test_large_values_are_never_held() -> None:
    """A 64 MiB image and a private 16 MiB value in an item pass through a few KiB of memory."""
    reader = HeaderReader(EXPLICIT, LIMITS)
    chunk = bytes(1 << 20)
    tracemalloc.start()
    try:
        inner = element(0x00090010, "LO", b"ACME") + element(0x00091001, "UN", b"", 16 << 20)
        reader.feed(element(0x00081140, "SQ", item(inner, UNDEFINED), UNDEFINED))
        for _ in range(16):
            reader.feed(chunk)
        reader.feed(ITEM_END + SEQUENCE_END + element(0x7FE00010, "OW", b"", 64 << 20))
        for _ in range(64):
            reader.feed(chunk)
        header = reader.finish()
        assert tracemalloc.get_traced_memory()[1] < 128 << 10
    finally:
        tracemalloc.stop()
    assert header.bulk(("00081140", 0, "00091001"))[1] == 16 << 20
    assert header.pixel is not None and header.pixel.length == 64 << 20
    assert header.dataset_length == header.pixel.offset + header.pixel.length


def test_ready_comes_with_the_pixel_data() -> None:
    reader = HeaderReader(EXPLICIT, LIMITS)
    reader.feed(element(0x00100020, "LO", b"ID"))
    assert not reader.ready
    reader.feed(element(0x7FE00010, "OW", b"", 100))
    assert reader.ready
    reader.feed(bytes(100))
    reader.finish()


def test_ready_comes_with_the_end_if_there_are_no_pixels() -> None:
    reader = HeaderReader(EXPLICIT, LIMITS)
    reader.feed(element(0x00100020, "LO", b"ID"))
    reader.finish()
    assert reader.ready


def test_fragments_are_found_whatever_they_contain() -> None:
    """Fragments may hold what looks like delimiters; their places come out exact, elements after too."""
    fragments = [SEQUENCE_END * 3, b"\xff\xd8abcd", bytes(5000)]
    table = (0).to_bytes(4, "little")
    encoded = element(0x00100020, "LO", b"ID") + element(
        0x7FE00010, "OB", item(table) + b"".join(item(f) for f in fragments) + SEQUENCE_END, UNDEFINED
    )
    encoded += element(0xFFFCFFFC, "OB", bytes(10))
    header = read_header(encoded, JPEG, LIMITS)
    assert header.pixel is not None and header.pixel.encapsulated
    assert [encoded[at : at + size] for at, size in header.pixel.fragments] == fragments
    assert header.pixel.offset_table == (0,)
    again = Header.unpack(header.pack())
    assert again.pixel == header.pixel and again.get(0xFFFCFFFC) == bytes(10)


def test_pixels_inside_an_item_are_cut_too() -> None:
    icon = element(0x00280010, "US", b"\2\0") + element(
        0x7FE00010, "OB", item(b"") + item(b"jpeg") + SEQUENCE_END, UNDEFINED
    )
    encoded = element(0x00880200, "SQ", item(icon)) + element(
        0x7FE00010, "OB", item(b"") + item(b"image.") + SEQUENCE_END, UNDEFINED
    )
    header = read_header(encoded, JPEG, LIMITS)
    offset, length = header.bulk(("00880200", 0, "7FE00010"))
    assert encoded[offset : offset + length] == item(b"") + item(b"jpeg")
    assert header.pixel is not None
    assert [encoded[at : at + size] for at, size in header.pixel.fragments] == [b"image."]
    assert signature(Header.unpack(header.pack())) == signature(header)
    with pytest.raises(Refusal) as refusal:
        header.bulk(("00880200", 1, "7FE00010"))
    assert refusal.value.reason is Reason.NOT_FOUND


def test_an_unpacked_header_of_another_version_is_an_error() -> None:
    packed = read_header(element(0x00100020, "LO", b"ID"), EXPLICIT, LIMITS).pack()
    with pytest.raises(ValueError, match="version"):
        Header.unpack(b"\xff" + packed[1:])


def test_deflated_with_even_padding_is_read() -> None:
    stream = zlib.compressobj(wbits=-15)
    encoded = stream.compress(element(0x00100020, "LO", b"ID")) + stream.flush()
    for tail in (b"", b"\0"):
        assert read_header(encoded + tail, DEFLATED, LIMITS).text(0x00100020) == "ID"


def test_implicit_sequences_are_known_by_tag_or_by_undefined_length() -> None:
    content = implicit(0x00100020, b"ID")
    encoded = implicit(0x00081140, item(content)) + implicit(
        0x00091001, item(content + ITEM_END, UNDEFINED) + SEQUENCE_END, UNDEFINED
    )
    attributes = read_header(encoded, IMPLICIT, LIMITS).attributes()
    assert (
        attributes["00081140"]["Value"]
        == attributes["00091001"]["Value"]
        == [{"00100020": {"vr": "LO", "Value": ["ID"]}}]
    )
