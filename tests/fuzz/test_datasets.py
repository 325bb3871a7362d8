"""Datasets and files that are nearly right: read or refused, in bounded memory, and nothing else.

What is mutated are pydicom's own files, one of each kind of encoding, at their smallest: bytes change, move,
repeat and vanish, and elements that are right in themselves stand where they do not belong.
"""

import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from node.domain import levels
from node.domain.errors import Reason, Refusal
from node.domain.header import Header, HeaderReader, Limits
from node.domain.model import Level
from node.domain.part10 import Part10Reader
from tests.fuzz.effort import examples
from tests.unit.domain.encoding import (
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    ITEM_END,
    JPEG,
    SEQUENCE_END,
    UNDEFINED,
    element,
    implicit,
    item,
    real_file,
)

NAMES = (
    "MR_small_implicit.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "rtplan.dcm",
    "test-SR.dcm",
    "image_dfl.dcm",
    "JPEG2000-embedded-sequence-delimiter.dcm",
    "nested_priv_SQ.dcm",
    "chrH31.dcm",
    "chrI2.dcm",
)
LIMITS = Limits(max_header_bytes=1 << 20, max_depth=16, max_elements=5000, max_object_bytes=64 << 20)
MEMORY_BYTES = 24 << 20
BROKEN = {Reason.NOT_UNDERSTOOD, Reason.TOO_LARGE, Reason.MISMATCH, Reason.INVALID_UID}

INTERESTING = st.sampled_from(
    [
        b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xfe\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0", b"\xff\xff",
        b"\xfe\xff",
        b"SQ\0\0", b"UN\0\0\xff\xff\xff\xff", b"OB\0\0\xff\xff\xff\xff", b"UT\0\0", b"PN", b"US\2\0",
        b"\x1b$B",
        b"\x1b$)C", b"\\", b"=", b"^", item(b""), item(b"", UNDEFINED), ITEM_END, SEQUENCE_END,
        element(0x00080005, "CS", b"ISO 2022 IR 87\\ISO 2022 IR 149"), element(0x00280103, "US", b"\1\0"),
        element(0x7FE00010, "OB", item(b"") + item(b"abcd") + SEQUENCE_END, UNDEFINED),
        element(0x00409096, "SQ", item(b"", UNDEFINED) + ITEM_END),
        implicit(0x00409096, item(implicit(0x00100010, b"A^B "))),
        element(0x0020000D, "UI", b"1.2.\0"), element(0x00100010, "PN", b"\x1b$B\x3b\x33=\x1b(B"),
        element(0x00281201, "OW", b"\0" * 12), element(0x00080018, "UN", b"1.2\0"),
    ]
)  # fmt: skip
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 1 << 20), st.binary(min_size=1, max_size=4)),
        st.tuples(st.just("set"), st.integers(0, 1 << 20), INTERESTING),
        st.tuples(st.just("insert"), st.integers(0, 1 << 20), INTERESTING),
        st.tuples(st.just("insert"), st.integers(0, 1 << 20), st.binary(max_size=12)),
        st.tuples(st.just("cut"), st.integers(0, 1 << 20), st.binary(max_size=40)),
        st.tuples(st.just("repeat"), st.integers(0, 1 << 20), st.binary(max_size=60)),
        st.tuples(st.just("end"), st.integers(0, 1 << 20), st.just(b"")),
    ),
    min_size=1,
    max_size=6,
)
Changes = list[tuple[str, int, bytes]]


def changed(data: bytes, changes: Changes) -> bytes:
    """The bytes, changed at places counted from the begin, where most of the structure is."""
    new = bytearray(data)
    for kind, place, value in changes:
        at = place % (len(new) + 1)
        if kind == "set":
            new[at : at + len(value)] = value
        elif kind == "insert":
            new[at:at] = value
        elif kind == "cut":
            del new[at : at + len(value)]
        elif kind == "repeat":
            new[at:at] = new[at : at + len(value)]
        else:
            del new[at:]
    return bytes(new)


def read(dataset: bytes, syntax: str, places: list[int]) -> Header | Refusal:
    """The header of a dataset that comes in pieces, or why not."""
    edges = [0, *sorted(place % (len(dataset) + 1) for place in places), len(dataset)]
    reader = HeaderReader(syntax, LIMITS)
    scratch = bytearray()
    try:
        for start, end in pairwise(edges):
            scratch[:] = dataset[start:end]
            reader.feed(scratch)
        return reader.finish()
    except Refusal as refusal:
        assert refusal.reason in BROKEN
        assert refusal.comment
        return refusal


def look_at(header: Header) -> object:
    """All that is ever asked of a header."""
    try:
        uids: object = levels.identify(header)
    except Refusal as refusal:
        uids = refusal.reason
    return (
        header.attributes(lambda path, offset, length: f"{path} {offset} {length}"),
        header.attributes(),
        levels.split(header, {Level.STUDY: ("00189999",)}),
        header.pixel,
        header.dataset_length,
        header.ascending,
        [(tag, header.vr(tag), header.get(tag), header.values(tag)) for tag in header.tags()],
        [header.numbers(tag) for tag in header.tags()],
        uids,
    )


def check(dataset: bytes, syntax: str, places: list[int]) -> None:
    """Read in pieces, as a whole, and packed: the same, or the same refusal."""
    tracemalloc.start()
    try:
        header, whole = read(dataset, syntax, places), read(dataset, syntax, [])
        if isinstance(header, Refusal) or isinstance(whole, Refusal):
            assert isinstance(header, Refusal)
            assert isinstance(whole, Refusal)
            return
        seen = look_at(header)
        assert seen == look_at(whole)
        assert look_at(Header.unpack(header.pack())) == seen
        assert tracemalloc.get_traced_memory()[1] < MEMORY_BYTES
    finally:
        tracemalloc.stop()


PLACES = st.lists(st.integers(0, 1 << 20), max_size=8)


@pytest.mark.parametrize("name", NAMES)
def test_changed_files(name: str) -> None:
    """Changes anywhere in the first 4 KiB and the last: what is between them is mostly pixels."""
    file = real_file(name)
    head, tail = file.dataset[:4096], file.dataset[4096:][-1024:]

    @examples(12)
    @given(CHANGES, CHANGES | st.just([]), PLACES)
    def fuzz(first: Changes, last: Changes, places: list[int]) -> None:
        check(changed(head, first) + changed(tail, last), file.transfer_syntax_uid, places)

    fuzz()


TAGS = st.sampled_from(
    [0x00080005, 0x00080018, 0x00080060, 0x00081140, 0x00100010, 0x00100020, 0x0020000D, 0x00280010,
     0x00280103,
     0x00409096, 0x00189999, 0x00091010, 0x0009FFFF, 0x50003000, 0x7FE00001, 0x7FE00008, 0x7FE00010,
     0xFFFCFFFC]
)  # fmt: skip
VRS = st.sampled_from(
    ["AE", "AS", "AT", "CS", "DA", "DS", "FD", "FL", "IS", "LO", "OB", "OD", "OF", "OL", "OV", "OW", "PN",
     "SH",
     "SL", "SQ", "SS", "ST", "SV", "TM", "UC", "UI", "UL", "UN", "UR", "US", "UT", "UV"]
)  # fmt: skip
VALUES = st.one_of(
    st.binary(max_size=12),
    st.integers(4090, 4110).map(bytes),  # about where values are cut
    st.sampled_from([b"1.2.3", b"A^B=C=D", b"1\\2", b"\x1b$B%%", b"-0.5e3", b"nan", b"1_0", b"9" * 400]),
)


def _even(value: bytes) -> bytes:
    return value + b"\0" * (len(value) % 2)


LEAVES = st.builds(lambda tag, vr, value: element(tag, vr, _even(value)), TAGS, VRS, VALUES) | st.builds(
    lambda tag, value: implicit(tag, _even(value)), TAGS, VALUES
)


def _nested(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    items = st.lists(
        inner.map(item) | inner.map(lambda content: item(content + ITEM_END, UNDEFINED)), max_size=3
    ).map(b"".join)
    return st.one_of(
        st.lists(inner, max_size=3).map(b"".join),
        st.builds(element, TAGS, st.sampled_from(["SQ", "UN"]), items),
        st.builds(
            lambda tag, vr, content: element(tag, vr, content + SEQUENCE_END, UNDEFINED),
            TAGS,
            st.sampled_from(["SQ", "UN", "OB", "OW"]),
            items,
        ),
        st.builds(implicit, TAGS, items),
        st.builds(lambda tag, content: implicit(tag, content + SEQUENCE_END, UNDEFINED), TAGS, items),
    )


@examples(150)
@given(
    st.recursive(LEAVES, _nested, max_leaves=12),
    st.sampled_from([EXPLICIT, IMPLICIT, JPEG, "1.2.840.10008.1.2.2"]),
    PLACES,
)
def test_elements_in_any_order_and_nesting(dataset: bytes, syntax: str, places: list[int]) -> None:
    """Structures that are well-formed in one encoding and are read in another."""
    check(dataset, syntax, places)


@examples(100)
@given(
    st.binary(max_size=400),
    st.sampled_from([EXPLICIT, IMPLICIT, DEFLATED, JPEG, "1.2.840.10008.1.2.2", "", "x", "1.2.3"]),
    PLACES,
)
def test_any_bytes(dataset: bytes, syntax: str, places: list[int]) -> None:
    """Noise."""
    check(dataset, syntax, places)


def pieces(data: bytes, places: list[int]) -> Iterator[bytes]:
    """The bytes, cut at places."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    for start, end in pairwise(edges):
        yield data[start:end]


@pytest.mark.parametrize("name", NAMES[:5])
def test_changed_file_meta_information(name: str) -> None:
    """However the file is cut, the same meta information and the same dataset, or a refusal."""
    file = real_file(name)
    original = file.path.read_bytes()[: file.offset + 200]

    def outcome(data: bytes, places: list[int]) -> object:
        reader = Part10Reader()
        try:
            dataset = b"".join(bytes(reader.feed(piece)) for piece in pieces(data, places))
            return reader.finish(), dataset, reader.has_preamble
        except Refusal as refusal:
            assert refusal.reason is Reason.NOT_UNDERSTOOD
            return None

    @examples(40)
    @given(CHANGES, PLACES)
    @example([("insert", 132, b"\2\0\0\0UN\0\0\xff\xff\xff\xff")], [])
    def fuzz(changes: Changes, places: list[int]) -> None:
        data = changed(original, changes)
        assert outcome(data, places) == outcome(data, [])

    fuzz()
