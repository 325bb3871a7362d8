"""What HTTP clients send: read or refused with a Refusal, and nothing else."""

import itertools
import json
import tracemalloc
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from node.domain import proxy, qido
from node.domain.errors import Reason, Refusal
from node.domain.header import Limits, read_header
from node.domain.part10 import Part10Reader
from node.web import accept, multipart
from node.web.multipart import PartBegins, PartData, PartEnds
from node.web.stow_json import MetadataRequest
from tests.fuzz.effort import examples

CHUNKS = st.lists(st.integers(0, 4000), max_size=10)
BODY = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from(
            [b"--frontier", b"\r\n--frontier\r\n", b"\r\n--frontier--\r\n", b"--", b"\r\n", b"\r\n\r\n",
             b"\n",
             b"Content-Type: application/dicom\r\n", b": x\r\n", b" folded\r\n", b"X" * 17_000, b" " * 1100]
        ),
    ),
    max_size=14,
).map(b"".join)  # fmt: skip


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The bytes, cut at places."""
    at = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(at)]


def parts(pieces: list[bytes]) -> list[tuple[dict[str, str], bytes]] | Reason:
    """What a body holds, or why it cannot be told."""
    reader = multipart.Reader("frontier", 5)
    found: list[tuple[dict[str, str], bytes]] = []
    is_open = False
    try:
        for piece in pieces:
            for event in reader.feed(piece):
                assert isinstance(event, PartBegins) is not is_open
                if isinstance(event, PartBegins):
                    found.append((event.headers, b""))
                elif isinstance(event, PartData):
                    assert event.data
                    found[-1] = (found[-1][0], found[-1][1] + event.data)
                is_open = not isinstance(event, PartEnds)
        reader.finish()
    except Refusal as refusal:
        assert refusal.reason in (Reason.NOT_UNDERSTOOD, Reason.TOO_LARGE)
        return refusal.reason
    assert not is_open
    return found


@examples(300)
@given(BODY, CHUNKS)
def test_multipart_bodies(body: bytes, places: list[int]) -> None:
    """The same parts, or the same refusal, however the body is cut; no content is lost or made up."""
    found = parts(cut(body, places))
    assert found == parts([body])
    if not isinstance(found, Reason):
        assert all(content in body for _, content in found)


TOKENS = st.sampled_from(
    ["multipart/related", "application/dicom", "image/*", "*/*", "*", ";", ",", " ", "q=", "0.5", "1.000",
     "type=",
     "transfer-syntax=", "boundary=", '"', "\\", "\\\"", "=", "\t", "1.2.840.10008.1.2.1", "/", "\xff", "\0",
     ";;", "é"]
)  # fmt: skip
HEADERS = st.one_of(st.text(max_size=80), st.lists(TOKENS, max_size=30).map("".join))


@examples(500)
@given(HEADERS)
@example('a/b;c="' + "\\" * 4000)
@example("a/b" + ";" * 8000)
def test_accept_headers(header: str) -> None:
    """Ranges, or NOT_ACCEPTABLE; a media type, or none."""
    try:
        ranges = accept.parse(header)
    except Refusal as refusal:
        assert refusal.reason is Reason.NOT_ACCEPTABLE
    else:
        assert len(ranges) <= accept.MAX_RANGES
        assert all(0 < each.quality <= 1 and each.media_type for each in ranges)
        accept.choose(ranges, ["image/png", "application/dicom"], multipart=True)
    kind, parameters = accept.media_type_and_parameters(header)
    assert kind or not parameters


@examples(300)
@given(st.binary(max_size=300), st.binary(max_size=16), st.integers(0, 80))
def test_proxy_headers(body: bytes, head: bytes, length: int) -> None:
    """An address, nobody, or NotProxy."""
    for header in (head, proxy.SIGNATURE + head[:4], proxy.SIGNATURE + head[:2] + length.to_bytes(2, "big")):
        for content in (body, body[:length].ljust(length, b"\1")):
            try:
                source = proxy.source(header, content)
            except proxy.NotProxy:
                continue
            assert source is None or source


NAMES = st.one_of(
    st.sampled_from(
        ["PatientName", "00100010", "StudyDate", "StudyTime", "ModalitiesInStudy", "StudyInstanceUID",
         "limit",
         "offset", "after", "includefield", "fuzzymatching", "emptyvaluematching", "multiplevaluematching",
         "RequestAttributesSequence.ScheduledProcedureStepID", "00400275.00400009", "0020000d",
         "PatientBirthTime",
         "PatientSize", "NumberOfStudyRelatedInstances", "AccessionNumber", "", "SeriesNumber", "Rows", "all"]
    ),
    st.text(max_size=12),
)  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=20),
    st.lists(
        st.sampled_from(
            ["*", "?", "\\", ",", "-", "20240131", "2024", "235960.999999", "+0100", '""', "^", "=", "all",
             "true",
             "1", "0", "9" * 12, "1.2.3", "é", "%", "\0", "\ud800", " ", "'", "1e999", "nan", "٣"]
        ),
        max_size=6,
    ).map("".join),
)  # fmt: skip


@examples(500)
@given(st.lists(st.tuples(NAMES, TEXTS), max_size=6))
def test_search_parameters(parameters: list[tuple[str, str]]) -> None:
    """A request, or INVALID_QUERY that quotes nothing of a value."""
    try:
        request = qido.parse(parameters)
    except Refusal as refusal:
        assert refusal.reason is Reason.INVALID_QUERY
        assert refusal.comment
        return
    assert request.offset >= 0


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6),
        st.sampled_from(["1.2.3", "A^B", "cid:1", "p/1", "AAAA", 2**70, -1, 1e300, "00100010", "\ud800",
        "9" * 30]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["vr", "Value", "InlineBinary", "BulkDataURI", "Alphabetic", "Ideographic",
            "00100010",
                             "7FE00010", "00081140", "00280010", "0008002a", "x"]),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=10,
)  # fmt: skip
VR = st.sampled_from(
    ["AE", "AT", "CS", "DA", "DS", "FD", "FL", "IS", "LO", "OB", "OW", "OV", "PN", "SQ", "SS", "SV", "UC",
     "UI",
     "UL", "UN", "UR", "US", "UT", "UV", "", "??", "ob", "SQX"]
)  # fmt: skip
ELEMENT = st.one_of(
    JSON,
    st.builds(lambda vr, value: {"vr": vr, "Value": value}, VR, st.lists(JSON, max_size=3) | JSON),
    st.builds(lambda vr, name, value: {"vr": vr, name: value}, VR, st.sampled_from(["InlineBinary",
    "BulkDataURI"]), JSON),
)  # fmt: skip
INNER = st.dictionaries(
    st.sampled_from(["00100010", "00081140", "00280010", "7FE00010", "FFFEE00D"]), ELEMENT, max_size=3
)
BASE = {
    "00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]},
    "00080018": {"vr": "UI", "Value": ["2.25.1"]},
}
LIMITS = Limits(1 << 20, 16, 5000, 64 << 20)


def stored(text: bytes) -> list[bytes]:
    """The files that metadata makes, with a part of bulk data at p/1."""
    with MetadataRequest(max_metadata_bytes=1 << 20, max_depth=8) as request:
        request.read(
            iter(
                [
                    PartBegins({"content-type": "application/dicom+json"}),
                    PartData(text),
                    PartEnds(),
                    PartBegins(
                        {"content-type": "image/jpeg", "content-location": "p/1", "content-id": "<1>"}
                    ),
                    PartData(b"\xff\xd8\xff"),
                    PartEnds(),
                ]
            )
        )
        return [b"".join(each) for each in request.instances()]


def check_metadata(text: bytes) -> None:
    """Files that the archive's own reader understands or refuses, or a refusal; in bounded memory."""
    tracemalloc.start()
    try:
        files = stored(text)
    except Refusal as refusal:
        assert refusal.reason in (Reason.NOT_UNDERSTOOD, Reason.INVALID_UID, Reason.TOO_LARGE)
        assert len(refusal.comment) <= 64
        files = []
    finally:
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
        tracemalloc.stop()
    for file in files:
        reader = Part10Reader()
        dataset = bytes(reader.feed(file))
        meta = reader.finish()
        try:
            read_header(dataset, meta.transfer_syntax_uid, LIMITS).attributes()
        except Refusal as refusal:
            assert refusal.reason in (Reason.NOT_UNDERSTOOD, Reason.MISMATCH, Reason.TOO_LARGE)


@examples(300)
@given(
    st.dictionaries(
        st.sampled_from(
            ["00100010", "00280010", "7FE00010", "00081140", "00080005", "00080018", "00083002", "x"]
        ),
        ELEMENT | INNER.map(lambda inner: {"vr": "SQ", "Value": [inner]}),
        max_size=4,
    )
)
def test_metadata_in_json(attributes: dict[str, Any]) -> None:
    """Whatever an attribute is in JSON."""
    check_metadata(json.dumps([{**BASE, **attributes}]).encode())


@examples(300)
@given(st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=5)), max_size=4), st.binary(max_size=60))
def test_text_that_is_nearly_json(changes: list[tuple[int, bytes]], noise: bytes) -> None:
    """Metadata with other bytes in it."""
    text = bytearray(
        json.dumps([{**BASE, "00100010": {"vr": "PN", "Value": [{"Alphabetic": "A^B"}]}}]).encode()
    )
    for place, value in changes:
        at = place % len(text)
        text[at : at + len(value)] = value
    check_metadata(bytes(text))
    check_metadata(noise)
