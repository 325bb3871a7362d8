"""Messages (PS3.7) that are wrong, each on an association that goes on afterwards.

Statuses are those of PS3.7 annex C and PS3.4 tables B.2-1 (C-STORE), C.4-1 (C-FIND), C.4-2 (C-MOVE). Where
these give a range (Axxx, Cxxx), `node.dimse.status` has chosen.
"""

import struct
from collections.abc import Iterator
from contextlib import suppress

import pytest
from pydicom import Dataset
from pydicom.dataset import FileDataset
from pynetdicom.dsutils import encode

from node.dimse import command as commands
from node.dimse import pdu
from node.dimse.command import Command
from tests import corpus
from tests.hostile.target import CANARY, Target, an_image
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
)
from tests.support import wait_until

pytestmark = pytest.mark.usefixtures("unharmed")

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
GET = "1.2.840.10008.5.1.4.1.2.2.3"
ECHO = context(1, VERIFICATION, IMPLICIT)


def dataset(image: FileDataset) -> bytes:
    """Its dataset's bytes."""
    return dataset_of(corpus.encode(image))


@pytest.mark.unnoticed("as the assertion says")
def test_an_unknown_operation_is_answered(target: Target) -> None:
    """0211, unrecognized operation (PS3.7 section C.5.19)."""
    peer = Peer.associated(target.dicom_port, ECHO)
    peer.send_command(1, Command(0x0140, class_uid=VERIFICATION, message_id=5))
    answer = peer.read_command()
    assert (answer.field, answer.status, answer.responded_id) == (0x8140, 0x0211, 5)
    assert echo(peer) == 0


class TestStore:
    """C-STORE (PS3.4 table B.2-1), on an association for any service and on one that only stores."""

    @pytest.fixture(params=["any service", "storage only"])
    def peer(self, target: Target, request: pytest.FixtureRequest) -> Iterator[Peer]:
        if request.param == "storage only":
            peer = Peer.associated(target.dicom_port, context(1, CT, EXPLICIT))
        else:
            peer = Peer.associated(target.dicom_port, context(1, CT, EXPLICIT), context(3, FIND, IMPLICIT))
        yield peer
        image = an_image()  # whatever it was, the association goes on
        assert peer.store(1, image.SOPInstanceUID, [dataset(image)]).status == 0
        peer.release()

    def test_other_class_in_the_command_than_in_the_context(self, peer: Peer) -> None:
        """0122, SOP class not supported: on this context."""
        image = an_image()
        answer = peer.store(1, image.SOPInstanceUID, [dataset(image)], class_uid=CT.replace("1.2", "1.4", 1))
        assert answer.status == 0x0122

    def test_other_instance_in_the_dataset_than_in_the_command(self, peer: Peer, target: Target) -> None:
        """A900, dataset does not match SOP class: the UIDs differ."""
        image = an_image()
        answer = peer.store(1, "1.2.3", [dataset(image)])
        assert answer.status == 0xA900
        assert answer.comment
        assert not target.has(image.SOPInstanceUID)
        assert not target.has("1.2.3")

    @pytest.mark.parametrize("uid", ["../../x", "1.2.x", "", "1." + "2" * 80, "1..2", "1.2\\1.3"])
    def test_invalid_uid(self, peer: Peer, uid: str) -> None:
        """0117, invalid object instance: a UID that PS3.5 section 9.1 forbids."""
        assert peer.store(1, uid, [dataset(an_image())]).status == 0x0117

    def test_no_study_uid(self, peer: Peer, target: Target) -> None:
        """A900."""
        image = an_image()
        del image.StudyInstanceUID
        assert peer.store(1, image.SOPInstanceUID, [dataset(image)]).status == 0xA900
        assert not target.has(image.SOPInstanceUID)

    @pytest.mark.parametrize("cut", [1, 1000, 8200])
    def test_truncated_dataset(self, peer: Peer, cut: int, target: Target) -> None:
        """C000, cannot understand."""
        image = an_image()
        assert peer.store(1, image.SOPInstanceUID, [dataset(image)[:-cut]]).status == 0xC000
        assert not target.has(image.SOPInstanceUID)

    def test_duplicates(self, peer: Peer, target: Target) -> None:
        """0000 for the same bytes again; Cxxx with a comment for others, and the original is kept."""
        image = an_image()
        data = dataset(image)
        assert peer.store(1, image.SOPInstanceUID, [data]).status == 0
        assert peer.store(1, image.SOPInstanceUID, [data]).status == 0
        other = peer.store(1, image.SOPInstanceUID, [data[:-1] + bytes([data[-1] ^ 1])])
        assert other.status is not None
        assert other.status >> 12 == 0xC
        assert other.comment
        address = f"/dicom-web/studies/{image.StudyInstanceUID}/series/{image.SeriesInstanceUID}"
        kept = target.get(
            f"{address}/instances/{image.SOPInstanceUID}", Accept="application/dicom; transfer-syntax=*"
        )
        assert dataset_of(kept.content) == data


def begin_store(peer: Peer, image: FileDataset, data: bytes) -> None:
    """A C-STORE whose dataset does not end."""
    store = Command(
        commands.C_STORE_RQ, class_uid=CT, message_id=1, dataset_type=0, instance_uid=image.SOPInstanceUID
    )
    peer.send_command(1, store)
    peer.send(p_data(1, 0, data))


@pytest.mark.unnoticed("a peer may give up")
@pytest.mark.parametrize("end", [pdu.abort(0), b""], ids=["A-ABORT", "connection lost"])
def test_abort_in_mid_transfer(target: Target, end: bytes) -> None:
    """Nothing visible, nothing left in the store."""
    image = an_image()
    image.PixelData = bytes(12 << 20)  # half of it is some megabytes on the disk
    image.Rows, image.Columns = 2048, 3072
    data = dataset(image)
    objects = target.archive.data / "objects"

    def half_written() -> bool:
        """What is writable is no object: a file made ahead (empty), or one that is being filled."""
        for path in objects.glob("??/*"):
            with suppress(FileNotFoundError):
                status = path.stat()
                if status.st_mode & 0o200 and status.st_size > 1 << 20:
                    return True
        return False

    peer = Peer.associated(target.dicom_port, context(1, CT, EXPLICIT))
    begin_store(peer, image, data[:60_000])
    for at in range(60_000, len(data) // 2, 60_000):
        peer.send(p_data(1, 0, data[at : at + 60_000]))
    wait_until(half_written, 20, "an object begun")
    if end:
        peer.send(end)
        assert peer.read_pdu() == (0, b"")
    peer.close()
    wait_until(lambda: not half_written(), 20, "nothing left of it")
    assert not target.has(image.SOPInstanceUID)


@pytest.mark.unnoticed("by another archive than the one that is watched")
def test_store_full(full: Target) -> None:
    """A700, out of resources: a sender tries again later. Nothing of it stays."""
    image = an_image()
    noticed = full.noticed()
    peer = Peer.associated(full.dicom_port, context(1, CT, EXPLICIT))
    answer = peer.store(1, image.SOPInstanceUID, [dataset(image)])
    assert answer.status == 0xA700
    assert answer.comment
    assert not full.has(image.SOPInstanceUID)
    assert full.noticed() > noticed


@pytest.mark.unnoticed("by another archive than the one that is watched")
def test_catalog_not_writable(read_only: Target) -> None:
    """A700: a sender tries again later, when there is a primary again."""
    image = an_image()
    noticed = read_only.noticed()

    def answered() -> int | None:
        peer = Peer.associated(read_only.dicom_port, context(1, CT, EXPLICIT))
        status = peer.store(1, image.SOPInstanceUID, [dataset(image)]).status
        peer.release()
        return status

    assert answered() == 0xA700
    assert read_only.noticed() > noticed


# --- Queries and retrievals ---


def identifier(**keys: str) -> bytes:
    """An identifier in Implicit VR Little Endian."""
    wanted = Dataset()
    for name, value in keys.items():
        setattr(wanted, name, value)
    encoded = encode(wanted, True, True)
    assert encoded is not None
    return encoded


def ask(
    target: Target, abstract: str, field: int, data: bytes, destination: str | None = None
) -> list[Command]:
    """All answers to a query or retrieval."""
    peer = Peer.associated(target.dicom_port, context(1, abstract, IMPLICIT))
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
    peer.release()
    return answers


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 0xA900),
        (identifier(QueryRetrieveLevel="GALAXY", PatientName=CANARY), 0xA900),
        (identifier(QueryRetrieveLevel="PATIENT", PatientName="*"), 0xA900),
        (identifier(QueryRetrieveLevel="SERIES", Modality="CT"), 0xA900),
        (identifier(QueryRetrieveLevel="STUDY", StudyDate=CANARY), 0xA900),
        (b"\x08\0\x52\0\xff\0\0\0STUDY ", 0xC000),
    ],
    ids=["empty", "unknown level", "level of another model", "no unique key", "no date", "truncated"],
)
def test_a_query_that_makes_no_sense(target: Target, data: bytes, status: int) -> None:
    """A900, identifier does not match SOP class; C000, unable to process (PS3.4 table C.4-1)."""
    (answer,) = ask(target, FIND, commands.C_FIND_RQ, data)
    assert answer.status == status
    assert answer.comment
    assert CANARY not in answer.comment


@pytest.mark.unnoticed("queries like any other")
@pytest.mark.parametrize(
    "name",
    ["' OR 1=1 --", "%", "_" * 20, "[A-Z]*", "Robert'); DROP TABLE study;--*", "$1", ".*"],
)
def test_keys_are_literal(target: Target, name: str) -> None:
    """SQL and other languages' wildcards mean themselves: nobody has such a name."""
    (answer,) = ask(
        target, FIND, commands.C_FIND_RQ, identifier(QueryRetrieveLevel="STUDY", PatientName=name)
    )
    assert answer.status == 0


def test_wildcards_are_capped(target: Target) -> None:
    """A key of 65,000 wildcards is refused (A900) and costs no time."""
    name = "*?" * 32_000
    (answer,) = ask(
        target, FIND, commands.C_FIND_RQ, identifier(QueryRetrieveLevel="STUDY", PatientName=name)
    )
    assert answer.status == 0xA900


def test_an_identifier_has_a_limit(target: Target) -> None:
    """C002, and its bytes are not kept."""
    peer = Peer.associated(target.dicom_port, context(1, FIND, IMPLICIT))
    peer.send_command(1, Command(commands.C_FIND_RQ, class_uid=FIND, message_id=1, dataset_type=0))
    for _ in range(400):
        peer.send(p_data(1, 0, bytes(65536)))
    peer.send(p_data(1, 2, b"xx"))
    assert peer.read_command().status == 0xC002


def test_an_unknown_move_destination(target: Target) -> None:
    """A801 (PS3.4 table C.4-2)."""
    keys = identifier(QueryRetrieveLevel="STUDY", StudyInstanceUID="1.2.3")
    (answer,) = ask(target, MOVE, commands.C_MOVE_RQ, keys, destination="NOBODY")
    assert answer.status == 0xA801


@pytest.mark.parametrize(
    "keys",
    [
        {"QueryRetrieveLevel": "STUDY"},
        {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2.*"},
        {"QueryRetrieveLevel": "PATIENT", "PatientID": "1"},
    ],
    ids=["missing", "a wildcard", "level of another model"],
)
def test_a_retrieval_without_its_unique_key(target: Target, keys: dict[str, str]) -> None:
    """A900 (PS3.4 table C.4-3): never the whole archive."""
    (answer,) = ask(target, GET, commands.C_GET_RQ, identifier(**keys))
    assert answer.status == 0xA900


@pytest.mark.parametrize("operation", ["store", "query"])
def test_who_may_not(target: Target, operation: str) -> None:
    """0124, not authorized (PS3.7 section C.5.17)."""
    calling = "READER" if operation == "store" else "WRITER"
    peer = Peer.associated(
        target.dicom_port, context(1, CT, EXPLICIT), context(3, FIND, IMPLICIT), calling=calling
    )
    if operation == "store":
        image = an_image()
        assert peer.store(1, image.SOPInstanceUID, [dataset(image)]).status == 0x0124
        assert not target.has(image.SOPInstanceUID)
    else:
        peer.send_command(3, Command(commands.C_FIND_RQ, class_uid=FIND, message_id=1, dataset_type=0))
        peer.send(p_data(3, 2, identifier(QueryRetrieveLevel="STUDY", PatientName=CANARY)))
        assert peer.read_command().status == 0x0124


def test_a_length_that_is_beyond_the_message(target: Target) -> None:
    """A garbled value inside a command: the association is aborted, or the value refused; no more."""
    image = an_image()
    peer = Peer.associated(target.dicom_port, context(1, CT, EXPLICIT))
    command = commands.encode(
        Command(commands.C_STORE_RQ, class_uid=CT, message_id=1, dataset_type=0, instance_uid=CANARY)
    )
    peer.send(p_data(1, 3, command) + p_data(1, 2, dataset(image)))
    assert peer.read_command().status == 0x0117
    at = command.index(struct.pack("<HH", 0, 0x1000))
    peer.send(p_data(1, 3, command[: at + 4] + struct.pack("<I", 4000) + command[at + 8 :]))
    assert peer.read_pdu() == (pdu.ABORT, b"\0\0\2\6")
