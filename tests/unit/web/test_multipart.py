"""multipart/related: what is written is read again, however it is cut; nonsense is refused."""

import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from node.domain.errors import Reason, Refusal
from node.web import multipart
from node.web.multipart import Event, Part, PartBegins, PartData, PartEnds

BOUNDARY = "frontier"
Read = list[tuple[dict[str, str], bytes]]

contents = st.one_of(
    st.binary(max_size=80),
    # what looks like a delimiter, almost
    st.lists(st.sampled_from([b"\r", b"\n", b"--", b"-", b"front", b"\r\n--fronti", b"x"]), max_size=12).map(
        b"".join
    ),
).filter(lambda content: b"\r\n--frontier" not in b"\r\n" + content)
messages = st.lists(contents, min_size=1, max_size=5)


def written(parts: list[bytes]) -> bytes:
    headers = (("Content-Type", "application/dicom"),)
    return b"".join(multipart.write(BOUNDARY, [Part(headers, [content]) for content in parts]))


def events(pieces: list[bytes], max_parts: int = 100) -> list[Event]:
    reader = multipart.Reader(BOUNDARY, max_parts)
    found = [event for piece in pieces for event in reader.feed(piece)]
    reader.finish()
    return found


def read(pieces: list[bytes], max_parts: int = 100) -> Read:
    parts: Read = []
    is_open = False
    for event in events(pieces, max_parts):
        if isinstance(event, PartBegins):
            assert not is_open
            is_open = True
            parts.append((event.headers, b""))
        elif isinstance(event, PartData):
            assert is_open
            assert event.data
            parts[-1] = (parts[-1][0], parts[-1][1] + event.data)
        else:
            assert isinstance(event, PartEnds)
            assert is_open
            is_open = False
    assert not is_open
    return parts


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(at)]


@given(messages, st.lists(st.integers(0, 2000), max_size=20))
@example([b"", b"\r\n", b"\r\n--frontie"], [])
def test_what_was_written_is_read_however_it_is_cut(parts: list[bytes], places: list[int]) -> None:
    pieces = cut(written(parts), places)
    assert read(pieces) == [({"content-type": "application/dicom"}, content) for content in parts]


@given(messages)
def test_one_byte_at_a_time(parts: list[bytes]) -> None:
    data = written(parts)
    assert read([data[at : at + 1] for at in range(len(data))]) == read([data])


@given(messages)
def test_the_length_is_told_beforehand(parts: list[bytes]) -> None:
    whole = [Part((("A", "b"),), [content], len(content)) for content in parts]
    assert multipart.length(BOUNDARY, whole) == len(b"".join(multipart.write(BOUNDARY, whole)))


def test_a_length_that_is_not_known_makes_the_whole_unknown() -> None:
    assert multipart.length(BOUNDARY, [Part((), [b"x"], 1), Part((), [b"x"])]) is None


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
@example(b"--frontier--", [])
@example(b"--frontier\r\n\r\n", [])
@example(b"--frontier\r\nno colon\r\n\r\n", [])
def test_nonsense_is_refused_and_nothing_else(data: bytes, places: list[int]) -> None:
    try:
        read(cut(data, places))
    except Refusal as refusal:
        assert refusal.reason is Reason.NOT_UNDERSTOOD


@given(messages, st.integers(0, 5000), st.binary(min_size=1, max_size=3))
def test_a_damaged_message_never_faults(parts: list[bytes], place: int, damage: bytes) -> None:
    data = bytearray(written(parts))
    place %= len(data)
    data[place : place + len(damage)] = damage
    try:
        read([bytes(data)])
    except Refusal as refusal:
        assert refusal.reason is Reason.NOT_UNDERSTOOD


@given(messages, st.data())
def test_every_truncated_message_is_refused(parts: list[bytes], data: st.DataObject) -> None:
    whole = written(parts)
    short = whole[: data.draw(st.integers(0, len(whole) - 3))]  # "--" and its line break may be cut
    with pytest.raises(Refusal) as caught:
        read([short])
    assert caught.value.reason is Reason.NOT_UNDERSTOOD


near_limits = st.sampled_from([-1, 0, 1, 2, 3, 4])


@given(
    padding=st.one_of(st.integers(0, 3), near_limits.map(lambda more: multipart.MAX_PADDING_BYTES + more)),
    broken=st.sampled_from([b"", b"x", b"-", b"\r", b"\n"]),
    header=st.one_of(st.just(1), near_limits.map(lambda more: multipart.MAX_HEADERS_BYTES - 5 + more)),
    places=st.lists(st.one_of(st.integers(0, 30), st.integers(0, 20_000)), max_size=8),
)
@example(padding=1 << 20, broken=b"", header=1, places=[])
@example(padding=multipart.MAX_PADDING_BYTES, broken=b"", header=1, places=[multipart.MAX_PADDING_BYTES + 11])
@example(padding=0, broken=b"", header=multipart.MAX_HEADERS_BYTES - 5, places=[16_397])
def test_the_verdict_does_not_depend_on_the_cuts(
    padding: int, broken: bytes, header: int, places: list[int]
) -> None:
    message = (
        b"--frontier" + b" " * padding + broken + b"\r\nA: " + b"x" * header + b"\r\n\r\ny\r\n--frontier--"
    )
    expected = verdict([message])
    assert verdict(cut(message, places)) == expected
    assert verdict([message[at : at + 7] for at in range(0, len(message), 7)]) == expected
    assert (expected == "NOT_UNDERSTOOD") is (
        padding > multipart.MAX_PADDING_BYTES or broken != b"" or header + 5 > multipart.MAX_HEADERS_BYTES
    )


def verdict(pieces: list[bytes]) -> Read | str:
    try:
        return read(pieces)
    except Refusal as refusal:
        return refusal.reason.name


def test_preamble_and_epilogue_are_dropped() -> None:
    message = b"a preamble\r\n" + written([b"content"]) + b"an epilogue\r\n--frontier\r\n"
    assert [content for _, content in read([message])] == [b"content"]


def test_headers_are_folded_and_their_names_lowered() -> None:
    message = b"--frontier \t\r\nContent-TYPE: a/b;\r\n  c=d\r\nX-Other:\te\r\n\r\n.\r\n--frontier--"
    assert read([message]) == [({"content-type": "a/b; c=d", "x-other": "e"}, b".")]


def test_a_part_without_headers_has_content() -> None:
    assert read([b"--frontier\r\n\r\nbare\r\n--frontier--"]) == [({}, b"bare")]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"no delimiter at all",
        b"--frontierland\r\n\r\nx\r\n--frontier--",
        b"--frontier\r\nA: " + b"x" * multipart.MAX_HEADERS_BYTES + b"\r\n\r\nx\r\n--frontier--",
        b"--frontier\r\nB\xc3\xa4d name: x\r\n\r\nx\r\n--frontier--",
    ],
)
def test_malformed_messages(message: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        read([message])
    assert caught.value.reason is Reason.NOT_UNDERSTOOD


def test_one_part_too_many() -> None:
    message = written([b"1", b"2", b"3"])
    assert len(read([message], max_parts=3)) == 3
    with pytest.raises(Refusal) as caught:
        read([message], max_parts=2)
    assert caught.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize("kept_open", [b"", b"--frontier\r\n\r\n"], ids=["preamble", "content"])
def test_memory_does_not_grow_with_the_message(kept_open: bytes) -> None:
    reader = multipart.Reader(BOUNDARY, 1)
    list(reader.feed(kept_open))
    piece = b"\r\n--frontie" * 100
    for _ in range(50):
        returned = sum(len(event.data) for event in reader.feed(piece) if isinstance(event, PartData))
        assert len(reader._buffer) <= len(BOUNDARY) + 4
        assert not kept_open or returned >= len(piece) - len(BOUNDARY) - 4


def test_endless_headers_are_refused_before_they_end() -> None:
    reader = multipart.Reader(BOUNDARY, 1)
    list(reader.feed(b"--frontier\r\n"))
    with pytest.raises(Refusal):
        for _ in range(multipart.MAX_HEADERS_BYTES // 16 + 2):
            list(reader.feed(b"X: 0123456789\r\n "))


@given(st.text(max_size=220))
@example("x" * 70)
@example("x" * 200)
@example("x" * 201)
@example("ends with a space ")
@example("line\r\nbreak")
def test_boundaries(boundary: str) -> None:
    valid = re.fullmatch(r"(?=.{1,200}\Z)[0-9A-Za-z'()+_,./:=? -]*[^ ]", boundary, re.ASCII)
    try:
        checked = multipart.check_boundary(boundary)
    except Refusal as refusal:
        assert refusal.reason is Reason.NOT_UNDERSTOOD
        assert not valid or not re.fullmatch(r"[0-9A-Za-z'()+_,./:=? -]*", boundary)
    else:
        assert checked == boundary.encode()
        assert valid
