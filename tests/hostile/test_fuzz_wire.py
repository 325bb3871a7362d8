"""Random conversations with a running archive: each ends in a defined answer or a closed connection, within
its deadlines and without a fault of the archive's own; then the next client is served."""

import json
import socket
import struct
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import generate_uid

from node.dimse import command as commands
from node.dimse import pdu
from node.dimse.command import Command
from tests import corpus
from tests.fuzz.effort import examples
from tests.fuzz.test_datasets import CHANGES, Changes, changed
from tests.fuzz.test_http import BASE, ELEMENT, NAMES, TEXTS
from tests.hostile.target import STUDIES, Target, an_image
from tests.integration.dimse_peer import (
    CT,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    Peer,
    context,
    dataset_of,
    echo,
    p_data,
    request,
)

ALLOWED_SECONDS = 30.0  # the archive's own deadlines are two seconds
FAULTS = (
    '"internal error"',
    '"connection failed"',
    '"association failed"',
    "uncaught",
    "fault while answering",
)
FIND = "1.2.840.10008.5.1.4.1.2.2.1"


def conversing(count: int) -> settings:
    """Examples of a test that asks a fixture's archive each time."""
    return settings(examples(count), suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def faultless(target: Target, narrow: Target) -> Iterator[None]:
    """No fault of the archive's own is in its log, however politely it was answered."""
    before = len(target.archive.log), len(narrow.archive.log)
    yield
    logged = target.archive.log[before[0] :] + narrow.archive.log[before[1] :]
    assert not [line for line in logged.splitlines() if any(fault in line for fault in FAULTS)]


# --- Upper layer and messages ---


def _command(field: int, **more: object) -> bytes:
    return commands.encode(Command(field, class_uid=CT, message_id=1, **more))  # type: ignore[arg-type]


_STORE = _command(commands.C_STORE_RQ, dataset_type=0, instance_uid="1.2.3.4", priority=0)
_FIND = commands.encode(Command(commands.C_FIND_RQ, class_uid=FIND, message_id=2, dataset_type=0))
_KEYS = b"\x08\0\x52\0\6\0\0\0STUDY \x10\0\x10\0\2\0\0\0X*\x20\0\x0d\0\0\0\0\0"
_CONTEXTS = (context(1, CT, EXPLICIT), context(3, VERIFICATION, IMPLICIT), context(5, FIND, IMPLICIT))
REQUESTS = [request(*_CONTEXTS), request(_CONTEXTS[0]), request(_CONTEXTS[1], called="OTHER")]
PIECES = [
    *REQUESTS,
    p_data(1, 3, _STORE),
    p_data(1, 1, _STORE[:20]) + p_data(1, 3, _STORE[20:]),
    p_data(1, 0, bytes(500)),
    p_data(1, 2, b""),
    p_data(1, 2, bytes(500)),
    p_data(3, 3, commands.encode(Command(commands.C_ECHO_RQ, class_uid=VERIFICATION, message_id=7))),
    p_data(3, 3, commands.encode(Command(commands.C_ECHO_RQ | commands.RESPONSE, responded_id=7, status=0))),
    p_data(5, 3, _FIND),
    p_data(5, 2, _KEYS),
    p_data(5, 3, commands.encode(Command(commands.C_CANCEL_RQ, responded_id=2))),
    p_data(3, 3, commands.encode(Command(0x0140, class_uid=VERIFICATION, message_id=9))),
    p_data(7, 3, _STORE),
    struct.pack(">BxI", 2, 4) + bytes(4),
    b"\3\0\0\0\0\4\0\1\1\1",
    b"\5\0\0\0\0\4\0\0\0\0",
    b"\6\0\0\0\0\4\0\0\0\0",
    b"\7\0\0\0\0\4\0\0\0\0",
    b"\x09\0\0\0\0\0",
    b"\4\0\0\0\0\0",
    b"\4\0\0\2\0\1" + bytes(100),
]
STEP = st.one_of(
    st.sampled_from(PIECES),
    st.builds(changed, st.sampled_from(PIECES), CHANGES),
    st.binary(min_size=1, max_size=60),
)
CONVERSATION = st.tuples(st.sampled_from([*REQUESTS[:2], b""]), st.lists(STEP, max_size=8))


def pdus(received: bytes) -> list[int]:
    """Types of the PDUs in what the archive has sent, which must be whole and known."""
    kinds, at = [], 0
    while at < len(received):
        kind, length = pdu.read_header(received[at : at + 6])
        assert pdu.ASSOCIATE_AC <= kind <= pdu.ABORT, received[at : at + 20]
        assert at + 6 + length <= len(received)
        if kind == pdu.P_DATA:
            assert pdu.fragments(memoryview(received)[at + 6 : at + 6 + length])
        kinds.append(kind)
        at += 6 + length
    return kinds


def talk(port: int, sent: list[bytes], *, ends: bool) -> bytes:
    """All that is answered until the archive closes, which it does in time; `ends`: the client stops
    sending, otherwise it leaves the archive waiting."""
    received = bytearray()
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=ALLOWED_SECONDS) as connection:
        try:
            for piece in sent:
                connection.sendall(piece)
            if ends:
                connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                received += piece
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has closed before it was told all
    assert time.monotonic() - began < ALLOWED_SECONDS
    return bytes(received)


def serves(target: Target) -> None:
    """The next client is served."""
    peer = Peer.associated(target.dicom_port, context(1, VERIFICATION, IMPLICIT), calling="MORE")
    assert echo(peer) == 0
    peer.release()


@conversing(40)
@given(conversation=CONVERSATION)
def test_any_conversation_comes_to_an_end(narrow: Target, conversation: tuple[bytes, list[bytes]]) -> None:
    """Any sequence of PDUs, right, nearly right and wrong."""
    first, steps = conversation
    kinds = pdus(talk(narrow.dicom_port, [first, *steps], ends=True))
    assert kinds.count(pdu.ASSOCIATE_AC) <= 1
    assert not set(kinds[:1]) & {pdu.P_DATA, pdu.RELEASE_RP}
    serves(narrow)


@conversing(6)
@given(conversation=CONVERSATION)
def test_any_conversation_that_stops_is_ended(
    narrow: Target, conversation: tuple[bytes, list[bytes]]
) -> None:
    """The client says no more, and does not close: the archive does, after its two seconds."""
    first, steps = conversation
    pdus(talk(narrow.dicom_port, [first, *steps], ends=False))
    serves(narrow)


STORE_STATUSES = {0x0000, 0xA900, 0xC000, 0xC002, 0x0117, 0x0122}


@conversing(100)
@given(changes=CHANGES)
def test_any_dataset_gets_its_status(target: Target, changes: Changes) -> None:
    """C-STORE of changed images: success or a refusal with a reason, never a processing failure."""
    image = an_image(size=32)
    data = dataset_of(corpus.encode(image))
    peer = Peer.associated(target.dicom_port, context(1, CT, EXPLICIT))
    answer = peer.store(1, image.SOPInstanceUID, [changed(data, changes)])
    assert answer.status in STORE_STATUSES, answer
    peer.release()


@conversing(100)
@given(changes=CHANGES)
def test_any_identifier_gets_its_status(target: Target, changes: Changes) -> None:
    """C-FIND with changed identifiers."""
    peer = Peer.associated(target.dicom_port, context(1, FIND, IMPLICIT))
    peer.send_command(1, Command(commands.C_FIND_RQ, class_uid=FIND, message_id=1, dataset_type=0))
    peer.send(p_data(1, 2, changed(_KEYS, changes)))
    answer = peer.read_command()
    while answer.status in (0xFF00, 0xFF01):
        peer.read_pdu()
        answer = peer.read_command()
    assert answer.status in {0x0000, 0xA900, 0xC000, 0xC002}, answer
    peer.release()


# --- HTTP ---


@pytest.fixture(scope="module")
def session(target: Target) -> Iterator[requests.Session]:
    """Kept-alive connections."""
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {target.tokens['administrator']}"
        yield session


RESOURCES = st.sampled_from(["studies", "series", "instances", "patients", "studies/1.2.3/series"])


@conversing(120)
@given(resource=RESOURCES, parameters=st.lists(st.tuples(NAMES, TEXTS), max_size=4), raw=st.text(max_size=10))
def test_any_search_is_answered(
    target: Target, session: requests.Session, resource: str, parameters: list[tuple[str, str]], raw: str
) -> None:
    """Results or 400; never a fault, however odd the parameters."""
    pairs = [
        f"{quote(name, errors='surrogatepass')}={quote(value, errors='surrogatepass')}"
        for name, value in parameters
    ]
    query = "&".join([*pairs, quote(raw, safe="&=%;+", errors="surrogatepass")])
    answer = session.get(f"{target.archive.base_url}/dicom-web/{resource}?{query}", timeout=60)
    assert answer.status_code in (200, 400), answer.text


@conversing(60)
@given(
    attributes=st.dictionaries(st.sampled_from(["00100010", "00280010", "00081140", "0020000D"]), ELEMENT),
    study=st.booleans(),
)
def test_any_metadata_is_answered(
    target: Target, session: requests.Session, attributes: dict[str, object], study: bool
) -> None:
    """Stored or refused with a reason."""
    uid = generate_uid()
    whole = {**BASE, "00080018": {"vr": "UI", "Value": [uid]}, **attributes}
    if study:
        whole |= {tag: {"vr": "UI", "Value": [f"{uid}.1"]} for tag in ("0020000D", "0020000E")}
    body = (
        b"--f\r\nContent-Type: application/dicom+json\r\n\r\n"
        + json.dumps([whole]).encode()
        + b"\r\n--f--\r\n"
    )
    headers = {"Content-Type": 'multipart/related; type="application/dicom+json"; boundary=f'}
    answer = session.post(target.archive.base_url + STUDIES, data=body, headers=headers, timeout=60)
    assert answer.status_code in (200, 400, 409, 413), answer.text


_HEADERS = (
    "Host: 127.0.0.1\r\nConnection: close\r\nAccept: application/dicom+json\r\nRange: bytes=0-1\r\n"
    "Content-Type: application/dicom\r\nContent-Length: 3\r\nAccept-Encoding: gzip;q=0.5\r\n"
    "If-None-Match: \"x\"\r\nCookie: stele_session=x; a=b\r\n"
)  # fmt: skip
LINES = st.sampled_from(
    ["GET /dicom-web/studies?limit=1", "POST /dicom-web/studies", "GET /login?next=/x", "POST /login",
     "GET /viewer/",
     "DELETE /dicom-web/studies/1.2.3", "GET /dicom-web/studies/1.2.3/series/1.2/instances/1/frames/1,2"]
)  # fmt: skip


@conversing(120)
@given(line=LINES, changes=CHANGES, allowed=st.booleans(), body=st.binary(max_size=20))
def test_any_request_is_answered(
    target: Target, line: str, changes: Changes, allowed: bool, body: bytes
) -> None:
    """Requests with changes anywhere: an answer that is none of 5xx but 501 and 505, or none at all."""
    token = f"Authorization: Bearer {target.tokens['viewer']}\r\n" if allowed else ""
    whole = f"{line} HTTP/1.1\r\n{token}{_HEADERS}\r\n".encode() + body
    received = talk(target.archive.http_port, [changed(whole, changes)], ends=True)
    if received:
        assert received.startswith(b"HTTP/1.")
        status = int(received[9:12])
        assert status < 500 or status in (501, 505), received
