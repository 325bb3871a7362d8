"""What peers may send wrong, on the wire: each gets its answer, and nobody else loses service."""

import contextlib
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid
from pynetdicom.dsutils import encode

from node.config import Settings
from node.dimse import command as commands
from node.dimse import pdu
from node.dimse.command import Command
from node.domain.part10 import Part10Reader
from node.services.archive import Archive
from tests.integration.dimse_peer import (
    CT,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    Peer,
    archive_on,
    context,
    listening,
    p_data,
    request,
)

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
ECHO = context(1, VERIFICATION, IMPLICIT)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Archive]]:
    with archive_on(tmp_path_factory.mktemp("archive")) as built:
        yield built


@pytest.fixture(scope="module")
def port(archive: tuple[Settings, Archive]) -> Iterator[int]:
    settings, stele = archive
    with listening(settings, stele):
        yield settings.dicom.port


def variant(archive: tuple[Settings, Archive], port: int, **dicom: object) -> Settings:
    """The archive's settings with other ones for DICOM."""
    section = archive[0].dicom.model_copy(update={"port": port, **dicom})
    return archive[0].model_copy(update={"dicom": section})


def echo(peer: Peer, context_id: int = 1) -> int | None:
    """A C-ECHO's status."""
    peer.send_command(context_id, Command(commands.C_ECHO_RQ, class_uid=VERIFICATION, message_id=7))
    return peer.read_command().status


def ct_dataset() -> tuple[str, bytes]:
    """(SOP Instance UID, dataset) of a small CT in Explicit VR Little Endian, under a UID of its own."""
    reader = Part10Reader()
    data = bytes(reader.feed(Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()))
    old = reader.finish().sop_instance_uid
    new = generate_uid()[: len(old)].rstrip(".").ljust(len(old), "1")
    return new, data.replace(old.encode(), new.encode())


def abort(reason: int) -> tuple[int, bytes]:
    """An A-ABORT by the provider."""
    return pdu.ABORT, bytes((0, 0, 2, reason))


def rejection(result: int, source: int, reason: int) -> tuple[int, bytes]:
    """An A-ASSOCIATE-RJ."""
    return pdu.ASSOCIATE_RJ, bytes((0, result, source, reason))


LONG_ITEM = request(ECHO).replace(b"\x52\0\0\7", b"\x52\0\7\7")
LONG_CONTEXT = request(ECHO).replace(b"\x20\0\0", b"\x20\0\7")
BEFORE = {
    "HTTP": (b"GET / HTTP/1.1\r\nHost: archive\r\n\r\n", abort(1)),
    "TLS on the plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", abort(1)),
    "PDU length 4 GiB": (b"\1\0\xff\xff\xff\xff" + bytes(4096), abort(6)),
    "P-DATA first": (p_data(1, 3, b"xx"), abort(2)),
    "release first": (b"\5\0\0\0\0\4\0\0\0\0", abort(2)),
    "unknown PDU type": (b"\x2a\0\0\0\0\4\0\0\0\0", abort(1)),
    "wrong protocol version": (request(ECHO, version=2), rejection(1, 2, 2)),
    "application context": (request(ECHO, application="1.2.3"), rejection(1, 1, 2)),
    "unknown called AE": (request(ECHO, called="OTHER"), rejection(1, 1, 7)),
    "even context ID": (request(context(2, VERIFICATION, IMPLICIT)), abort(6)),
    "context ID twice": (request(ECHO, ECHO), abort(6)),
    "no context": (request(), abort(6)),
    "context without syntaxes": (request(context(1, VERIFICATION)), abort(6)),
    "item longer than its PDU": (LONG_ITEM, abort(6)),
    "context longer than its PDU": (LONG_CONTEXT, abort(6)),
    "implementation UID of 80 digits": (
        request(ECHO, implementation="1" * 80),
        abort(6),
    ),
    "empty calling AE": (request(ECHO, calling=""), abort(6)),
}


@pytest.mark.parametrize("name", BEFORE)
def test_before_the_association(port: int, name: str) -> None:
    sent, answer = BEFORE[name]
    peer = Peer.connect(port)
    peer.send(sent)
    assert peer.read_pdu() == answer
    assert peer.read_pdu() == (0, b"")


def test_version_bits_beyond_the_first_do_not_count(port: int) -> None:
    peer = Peer.connect(port)
    peer.send(request(ECHO, version=3))
    assert peer.read_pdu()[0] == pdu.ASSOCIATE_AC
    assert echo(peer) == 0


def results(body: bytes) -> dict[int, int]:
    """Context results of an A-ASSOCIATE-AC by ID."""
    found = {}
    for kind, value in pdu._items(body[68:]):
        if kind == 0x21:
            found[value[0]] = value[2]
    return found


def test_contexts_are_judged_one_by_one(port: int) -> None:
    peer = Peer.connect(port)
    peer.send(
        request(
            ECHO,
            context(3, CT, "1.2.3.4.5"),
            context(5, "1.2.3.4.5", IMPLICIT),
            context(7, CT, "1.2.3.4.5", "1.2.840.10008.1.2.4.90", EXPLICIT),
        )
    )
    kind, body = peer.read_pdu()
    assert kind == pdu.ASSOCIATE_AC
    assert results(body) == {1: 0, 3: 4, 5: 3, 7: 0}
    assert b"1.2.840.10008.1.2.4.90" in body  # the requestor's order decides


ECHO_COMMAND = commands.encode(Command(commands.C_ECHO_RQ, class_uid=VERIFICATION, message_id=1))
DURING = {
    "PDU length 4 GiB": (b"\4\0\xff\xff\xff\xff" + bytes(4096), abort(6)),
    "PDU beyond what was negotiated": (struct.pack(">BxI", 4, 131073) + bytes(4096), abort(6)),
    "unknown PDU type": (b"\x2a\0\0\0\0\4\0\0\0\0", abort(1)),
    "a second request": (request(ECHO), abort(2)),
    "PDV longer than its PDU": (struct.pack(">BxIIBB", 4, 8, 100, 1, 3) + b"xx", abort(6)),
    "no PDV": (b"\4\0\0\0\0\0", abort(6)),
    "even context ID": (p_data(2, 3, ECHO_COMMAND), abort(6)),
    "context that was not accepted": (p_data(9, 3, ECHO_COMMAND), abort(6)),
    "dataset without a command": (p_data(1, 2, b"xx"), abort(5)),
    "garbled command": (p_data(1, 3, b"\0\0\0\1\xff\xff\xff\xff"), abort(6)),
    "endless command": (b"".join(p_data(1, 1, bytes(8192)) for _ in range(3)), abort(6)),
}


@pytest.mark.parametrize("name", DURING)
def test_during_the_association(port: int, name: str) -> None:
    sent, answer = DURING[name]
    peer = Peer.associated(port, ECHO)
    assert echo(peer) == 0
    peer.send(sent)
    assert peer.read_pdu() == answer
    assert peer.read_pdu() == (0, b"")


def test_an_unknown_operation_is_answered(port: int) -> None:
    peer = Peer.associated(port, ECHO)
    peer.send_command(1, Command(0x0140, class_uid=VERIFICATION, message_id=5))
    answer = peer.read_command()
    assert (answer.field, answer.status, answer.responded_id) == (0x8140, 0x0211, 5)
    assert echo(peer) == 0


class TestStore:
    @pytest.fixture
    def peer(self, port: int) -> Iterator[Peer]:
        peer = Peer.associated(port, context(1, CT, EXPLICIT), context(3, VERIFICATION, IMPLICIT))
        yield peer
        assert echo(peer, 3) == 0  # whatever it was, the association goes on
        peer.close()

    def test_other_class_in_the_command_than_in_the_context(self, peer: Peer) -> None:
        uid, data = ct_dataset()
        answer = peer.store(1, uid, [data], class_uid="1.2.840.10008.5.1.4.1.1.4")
        assert answer.status == 0x0122

    def test_other_instance_in_the_dataset_than_in_the_command(self, peer: Peer) -> None:
        answer = peer.store(1, "1.2.3", [ct_dataset()[1]])
        assert answer.status == 0xA900
        assert answer.comment

    @pytest.mark.parametrize("uid", ["../../x", "1.2.x", "", "1." + "2" * 80])
    def test_invalid_uid(self, peer: Peer, uid: str) -> None:
        assert peer.store(1, uid, [ct_dataset()[1]]).status == 0x0117

    def test_no_study_uid(self, peer: Peer) -> None:
        uid, data = ct_dataset()
        at = data.index(b"\x20\0\x0d\0UI")
        length = struct.unpack_from("<H", data, at + 6)[0]
        assert peer.store(1, uid, [data[:at] + data[at + 8 + length :]]).status == 0xA900

    @pytest.mark.parametrize("cut", [1, 1000, 20000])
    def test_truncated_dataset(self, peer: Peer, cut: int, archive: tuple[Settings, Archive]) -> None:
        uid, data = ct_dataset()
        assert peer.store(1, uid, [data[:-cut]]).status == 0xC000
        assert archive[1].catalog.instances.find(uid) is None

    def test_identical_duplicate_is_acknowledged_and_a_different_one_refused(
        self, peer: Peer, archive: tuple[Settings, Archive]
    ) -> None:
        uid, data = ct_dataset()
        assert peer.store(1, uid, [data]).status == 0
        assert peer.store(1, uid, [data]).status == 0
        other = peer.store(1, uid, [data[:-1] + bytes([data[-1] ^ 1])])
        assert other.status is not None
        assert other.status >> 12 == 0xC
        assert other.comment
        stored = archive[1].catalog.instances.find(uid)
        assert stored is not None
        assert archive[1].objects.read(stored.stored) == data


def test_abort_in_mid_transfer_leaves_nothing(port: int, archive: tuple[Settings, Archive]) -> None:
    uid, data = ct_dataset()
    peer = Peer.associated(port, context(1, CT, EXPLICIT))
    store = Command(commands.C_STORE_RQ, class_uid=CT, message_id=1, dataset_type=0, instance_uid=uid)
    peer.send_command(1, store)
    peer.send(p_data(1, 0, data[:1000]))
    peer.send(pdu.abort(0))
    assert peer.read_pdu() == (0, b"")
    assert archive[1].catalog.instances.find(uid) is None


def identifier(**keys: str) -> bytes:
    """An identifier in Implicit VR Little Endian."""
    dataset = Dataset()
    for name, value in keys.items():
        setattr(dataset, name, value)
    encoded = encode(dataset, True, True)
    assert encoded is not None
    return encoded


def ask(port: int, abstract: str, field: int, data: bytes, destination: str | None = None) -> list[Command]:
    """All answers to a query or retrieval."""
    peer = Peer.associated(port, context(1, abstract, IMPLICIT))
    peer.send_command(
        1, Command(field, class_uid=abstract, message_id=1, dataset_type=0, destination=destination)
    )
    peer.send(p_data(1, 2, data))
    answers = [peer.read_command()]
    while answers[-1].status in (0xFF00, 0xFF01):
        peer.read_pdu()
        answers.append(peer.read_command())
    if answers[-1].has_dataset:
        peer.read_pdu()
    peer.send(b"\5\0\0\0\0\4\0\0\0\0")
    assert peer.read_pdu()[0] == pdu.RELEASE_RP
    return answers


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 0xA900),
        (identifier(QueryRetrieveLevel="GALAXY", PatientName="*"), 0xA900),
        (identifier(QueryRetrieveLevel="PATIENT", PatientName="*"), 0xA900),
        (identifier(QueryRetrieveLevel="SERIES", Modality="CT"), 0xA900),
        (identifier(QueryRetrieveLevel="STUDY", StudyDate="tomorrow"), 0xA900),
        (b"\x08\0\x52\0\xff\0\0\0STUDY ", 0xC000),
    ],
)
def test_a_query_that_makes_no_sense(port: int, data: bytes, status: int) -> None:
    (answer,) = ask(port, FIND, commands.C_FIND_RQ, data)
    assert answer.status == status
    assert answer.comment


@pytest.mark.parametrize("name", ["' OR 1=1 --", "%", "_", "[A-Z]*", "Robert'); DROP TABLE study;--*"])
def test_keys_are_literal(port: int, name: str) -> None:
    (answer,) = ask(port, FIND, commands.C_FIND_RQ, identifier(QueryRetrieveLevel="STUDY", PatientName=name))
    assert answer.status == 0


def test_an_identifier_has_a_limit(port: int) -> None:
    peer = Peer.associated(port, context(1, FIND, IMPLICIT))
    peer.send_command(1, Command(commands.C_FIND_RQ, class_uid=FIND, message_id=1, dataset_type=0))
    for _ in range(40):
        peer.send(p_data(1, 0, bytes(65536)))
    peer.send(p_data(1, 2, b"xx"))
    assert peer.read_command().status == 0xC002


def test_an_unknown_move_destination(port: int) -> None:
    keys = identifier(QueryRetrieveLevel="STUDY", StudyInstanceUID="1.2.3")
    (answer,) = ask(port, MOVE, commands.C_MOVE_RQ, keys, destination="NOBODY")
    assert answer.status == 0xA801


@pytest.mark.parametrize(
    "keys",
    [
        {"QueryRetrieveLevel": "STUDY"},
        {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2.*"},
        {"QueryRetrieveLevel": "PATIENT", "PatientID": "1"},
    ],
)
def test_a_retrieval_without_its_unique_key(port: int, keys: dict[str, str]) -> None:
    get = "1.2.840.10008.5.1.4.1.2.2.3"
    (answer,) = ask(port, get, commands.C_GET_RQ, identifier(**keys))
    assert answer.status == 0xA900


# --- Peers that do nothing, or too little, or too much ---


def test_half_open_connections_stop_nobody_and_are_closed_in_time(
    archive: tuple[Settings, Archive], port: int
) -> None:
    settings = variant(archive, port + 1, request_seconds=2.0)
    with listening(settings, archive[1]):
        began = time.monotonic()
        silent = [Peer.connect(port + 1) for _ in range(100)]
        for peer in silent[:50]:
            peer.send(request(ECHO)[:3])
        for _ in range(5):
            started = time.monotonic()
            assert echo(Peer.associated(port + 1, ECHO)) == 0
            assert time.monotonic() - started < 1
        for peer in silent:
            assert peer.read_pdu() == (0, b"")
        assert time.monotonic() - began < 10


def test_trickling_stretches_nothing(archive: tuple[Settings, Archive], port: int) -> None:
    with listening(variant(archive, port + 1, request_seconds=1.0), archive[1]):
        began = time.monotonic()
        peer = Peer.connect(port + 1)
        peer.socket.settimeout(0.05)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for byte in request(ECHO) + bytes(1000):
                peer.send(bytes([byte]))
                with contextlib.suppress(TimeoutError):
                    if not peer.socket.recv(1):
                        break
        assert time.monotonic() - began < 4


def test_a_message_has_a_deadline(archive: tuple[Settings, Archive], port: int) -> None:
    with listening(variant(archive, port + 1, message_seconds=1.0), archive[1]):
        uid, data = ct_dataset()
        for sent in (p_data(1, 0, data[:1000]), p_data(1, 0, data[:1000])[:500]):
            peer = Peer.associated(port + 1, context(1, CT, EXPLICIT))
            store = Command(commands.C_STORE_RQ, class_uid=CT, message_id=1, dataset_type=0, instance_uid=uid)
            peer.send_command(1, store)
            began = time.monotonic()
            peer.send(sent)
            assert peer.read_pdu()[0] == pdu.ABORT
            assert time.monotonic() - began < 4


def test_silence_has_a_deadline(archive: tuple[Settings, Archive], port: int) -> None:
    with listening(variant(archive, port + 1, idle_seconds=1.0), archive[1]):
        peer = Peer.associated(port + 1, ECHO)
        began = time.monotonic()
        assert peer.read_pdu()[0] == pdu.ABORT
        assert 0.5 < time.monotonic() - began < 4


def test_limits_on_associations(archive: tuple[Settings, Archive], port: int) -> None:
    settings = variant(archive, port + 1, max_associations=3, max_associations_per_ae=2)
    with listening(settings, archive[1]):
        open_now = [Peer.associated(port + 1, ECHO, calling="ONE") for _ in range(2)]
        third = Peer.connect(port + 1)
        third.send(request(ECHO, calling="ONE"))
        assert third.read_pdu() == rejection(2, 3, 2)
        open_now.append(Peer.associated(port + 1, ECHO, calling="TWO"))
        fourth = Peer.connect(port + 1)
        fourth.send(request(ECHO, calling="THREE"))
        assert fourth.read_pdu() == rejection(2, 3, 2)
        assert [echo(peer) for peer in open_now] == [0, 0, 0]


def test_pending_connections_have_a_limit(archive: tuple[Settings, Archive], port: int) -> None:
    with listening(variant(archive, port + 1, max_pending=2), archive[1]):
        waiting = [Peer.connect(port + 1) for _ in range(2)]
        assert Peer.connect(port + 1).read_pdu() == (0, b"")
        waiting[0].close()
        poll(lambda: echo(Peer.associated(port + 1, ECHO)) == 0)


def poll(condition: Callable[[], bool]) -> None:
    """Until it is true and raises nothing, for five seconds at most."""
    deadline = time.monotonic() + 5
    while True:
        try:
            if condition():
                return
        except AssertionError:
            if time.monotonic() > deadline:
                raise


def test_an_unconfigured_caller_is_rejected(archive: tuple[Settings, Archive], port: int) -> None:
    stele = archive[1]
    stele.policy._any_calling_ae = False
    try:
        peer = Peer.connect(port)
        peer.send(request(ECHO, calling="STRANGER"))
        assert peer.read_pdu() == rejection(1, 1, 3)
    finally:
        stele.policy._any_calling_ae = True
