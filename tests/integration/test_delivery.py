"""Sending to peers that answer, complain, go away, say nothing, or take nothing."""

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE
from pynetdicom.presentation import build_context

from node.adapters.peers_socket import SocketPeers, TLSFiles
from node.config import Settings
from node.dimse import contexts
from node.dimse.transport import SLICE_SECONDS
from node.domain import part10
from node.domain.errors import Reason, Refusal
from node.domain.model import Answer, ApplicationEntity
from node.ports import Delivery
from node.services.archive import Archive
from node.services.link import MAX_LOSSES, Link
from node.services.send import send_folder
from tests.integration.dimse_peer import (
    CT,
    EXPLICIT,
    IMPLICIT,
    Peer,
    archive_on,
    context,
    listening,
    p_data,
)
from tests.integration.scripted_scp import ABORT, Caller, ScriptedSCP, keep, scripted_scp
from tests.integration.test_dimse_service import MOVE, certificate, put
from tests.unit.domain.encoding import element

pytestmark = pytest.mark.quiet

PAIR = (CT, EXPLICIT)
PIECES = [bytes([number]) * (50_000 + number) for number in range(1, 30)]


def connected(scp: ScriptedSCP, seconds: float = 30) -> Delivery:
    """An association to the SCP."""
    entity = ApplicationEntity("SCP", "127.0.0.1", scp.port)
    return SocketPeers("SENDER", answer_seconds=seconds).connect(entity, [PAIR, (CT, IMPLICIT)])


def store(delivery: Delivery | Link, uid: str = "1.2.3", pieces: list[bytes] | None = None) -> Answer:
    """C-STORE of an instance."""
    return delivery.send(CT, uid, EXPLICIT, PIECES if pieces is None else pieces, ("MOVER", 7))


# --- What goes out ---


@pytest.mark.parametrize("max_pdu", [16, 100, 4096, 16384, 131072, 0, 3 << 20])
def test_datasets_arrive_byte_for_byte_in_pdus_that_the_peer_takes(max_pdu: int) -> None:
    small = [bytes(range(256)) * 8, b"", b"x"] if max_pdu in (16, 100) else PIECES
    with scripted_scp(max_pdu=max_pdu) as scp:
        delivery = connected(scp)
        assert set(delivery.accepts(CT)) == {EXPLICIT, IMPLICIT}
        assert delivery.accepts("1.2") == ()
        assert store(delivery, "1.2.3", small) == store(delivery, "1.2.4", []) == Answer(0)
        delivery.close()
    first, second = scp.received
    assert first.dataset == b"".join(small)
    assert second.dataset == b""
    assert max(first.pdus) <= (max_pdu or 131072)
    said = first.command
    assert (said.class_uid, said.instance_uid, said.message_id) == (CT, "1.2.3", 1)
    assert (said.originator, said.originator_id, said.has_dataset) == ("MOVER", 7, True)
    assert second.command.message_id == 2
    assert (scp.released, scp.aborted) == (1, 0)


def test_the_next_step_is_taken_between_the_last_byte_and_the_answer() -> None:
    seen = []
    with scripted_scp() as scp:
        delivery = connected(scp)
        delivery.send(CT, "1.2.3", EXPLICIT, PIECES, meanwhile=lambda: seen.append(len(PIECES)))
        delivery.close()
    assert seen == [len(PIECES)]


# --- What comes back ---


def test_statuses_and_comments_are_handed_on_without_control_characters() -> None:
    told = [(0xA700, "Out of \x1b[31mroom\n "), (0xB000, "é" * 5), (0x0107, None), (0xC111, "x" * 64)]

    def complain(caller: Caller) -> None:
        for status, comment in told:
            context_id, received = caller.receive()
            caller.answer(context_id, received.command, status, comment=comment)
        caller.receive()

    with scripted_scp(complain) as scp:
        delivery = connected(scp)
        answers = [store(delivery) for _ in told]
        delivery.close()
    assert [(answer.status, answer.stored) for answer in answers] == [
        (0xA700, False),
        (0xB000, True),
        (0x0107, True),
        (0xC111, False),
    ]
    assert answers[0].comment == "Out of [31mroom"
    assert answers[2].comment == ""
    assert answers[3].comment == "x" * 64
    assert scp.released == 1


def test_an_answer_in_any_fragments_is_read() -> None:
    def crumble(caller: Caller) -> None:
        context_id, received = caller.receive()
        answer = b"".join(
            struct.pack("<HHI", 0, number, len(value)) + value
            for number, value in (
                (0x0100, b"\1\x80"),
                (0x0120, struct.pack("<H", received.command.message_id or 0)),
                (0x0800, b"\1\1"),
                (0x0900, b"\0\xa7"),
                (0x0902, b"full"),
            )
        )
        for at in range(0, len(answer), 2):
            caller.socket.sendall(p_data(context_id, 3 if at + 2 >= len(answer) else 1, answer[at : at + 2]))
        caller.receive()

    with scripted_scp(crumble) as scp:
        assert store(connected(scp)) == Answer(0xA700, "full")


# --- Peers that fail ---


def wrong(**more: object) -> Callable[[Caller], None]:
    """Answers with something else than a C-STORE-RSP to the request."""

    def serve(caller: Caller) -> None:
        context_id, received = caller.receive()
        caller.answer(context_id, received.command, **more)  # type: ignore[arg-type]
        caller.receive()

    return serve


def raw(data: bytes) -> Callable[[Caller], None]:
    """Answers with these bytes, then closes."""

    def serve(caller: Caller) -> None:
        caller.receive()
        caller.socket.sendall(data)
        caller.socket.shutdown(socket.SHUT_WR)
        while caller.socket.recv(4096):
            pass

    return serve


def leave_early(caller: Caller) -> None:
    """Closes with most of the dataset unread."""
    caller.read_pdu()


@pytest.mark.parametrize(
    "serve",
    [
        leave_early,
        raw(b""),
        raw(ABORT),
        raw(struct.pack(">BxIxxxx", 5, 4)),  # a release in the middle of an operation
        raw(b"\4\0\xff\xff\xff\xff"),  # a PDU of 4 GB
        raw(p_data(1, 3, b"\0\0\0\1\xff\xff\xff\xff")),
        raw(p_data(1, 2, b"data")),
        raw(struct.pack(">BxI", 4, 3) + b"\0\0\0"),
        raw(struct.pack(">BxII", 4, 4, 1)),
        raw(p_data(1, 1, bytes(12000)) * 3),  # a command without end
        wrong(responded_id=99),
        wrong(status=None),
        raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    ],
)
def test_a_peer_that_breaks_off_or_the_protocol_loses_the_association(
    serve: Callable[[Caller], None],
) -> None:
    with scripted_scp(serve) as scp:
        delivery = connected(scp)
        with pytest.raises(Refusal) as refusal:
            store(delivery)
        assert refusal.value.reason is Reason.UNAVAILABLE
        assert delivery.accepts(CT) == ()
        with pytest.raises(Refusal):
            store(delivery)
        delivery.close()
    assert scp.released == 0


@pytest.mark.parametrize("reads", [True, False])
def test_a_peer_that_does_not_answer_or_does_not_read_is_left(reads: bool) -> None:
    left = threading.Event()

    def silent(caller: Caller) -> None:
        if reads:
            caller.receive()
        left.wait(60)

    with scripted_scp(silent) as scp:
        delivery = connected(scp, seconds=1.5)
        began = time.monotonic()
        with pytest.raises(Refusal) as refusal:
            store(delivery, pieces=[bytes(4 << 20)] * 8)
        left.set()
        assert time.monotonic() - began < 30
        assert refusal.value.reason is Reason.UNAVAILABLE
        assert delivery.accepts(CT) == ()


def test_a_dataset_that_fails_half_way_takes_the_association_with_it() -> None:
    def failing() -> Iterator[bytes]:
        yield bytes(3 << 20)
        raise Refusal(Reason.CORRUPT, "stored bytes fail their digest")

    with scripted_scp() as scp:
        delivery = connected(scp)
        with pytest.raises(Refusal) as refusal:
            delivery.send(CT, "1.2.3", EXPLICIT, failing())
        assert refusal.value.reason is Reason.CORRUPT
        assert delivery.accepts(CT) == ()
    assert scp.received == []
    assert scp.aborted == 1


def test_who_cannot_be_called() -> None:
    for entity, said in (
        (ApplicationEntity("SCP"), "no address"),
        (ApplicationEntity("SCP", "127.0.0.1", 1), "cannot be called"),
        (ApplicationEntity("SCP", "..", 104), "cannot be called"),
    ):
        with pytest.raises(Refusal, match=said):
            SocketPeers("SENDER").connect(entity, [PAIR])


def test_tls_with_and_without_our_certificate(tmp_path: Path) -> None:
    server, client = (certificate(tmp_path, name) for name in ("server", "client"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(client[0]))
    context.load_cert_chain(*server)
    context.verify_mode = ssl.CERT_REQUIRED
    with scripted_scp(tls=context, max_pdu=131072) as scp:
        entity = ApplicationEntity("SCP", "127.0.0.1", scp.port, tls=True)
        delivery = SocketPeers("SENDER", TLSFiles(*client, server[0])).connect(entity, [PAIR])
        assert store(delivery).stored
        delivery.close()
        for files in (TLSFiles(ca=server[0]), TLSFiles(*client)):
            with pytest.raises(Refusal) as refusal:
                store(SocketPeers("SENDER", files).connect(entity, [PAIR]))
            assert refusal.value.reason is Reason.UNAVAILABLE
    assert [each.dataset for each in scp.received] == [b"".join(PIECES)]


# --- Links ---


def lose_some(lost: set[int], caller: Caller) -> None:
    """Abort instead of answering the n-th C-STORE of all, after having read it."""
    while True:
        context_id, received = caller.receive()
        caller.scp.received.append(received)
        if len(caller.scp.received) in lost:
            caller.socket.sendall(ABORT)
            return
        caller.answer(context_id, received.command)


def through(link: Link, count: int) -> list[bool]:
    """Whether each of so many instances was stored."""
    outcomes = []
    for number in range(count):
        if EXPLICIT not in link.accepts(CT):
            outcomes.append(False)
            continue
        try:
            outcomes.append(store(link, f"1.2.{number}", [b"data"]).stored)
        except Refusal as refusal:
            assert refusal.reason is Reason.UNAVAILABLE
            outcomes.append(False)
    link.close()
    return outcomes


@pytest.mark.parametrize(
    ("lost", "stored", "associations"),
    [
        (set(), [True] * 5, 1),
        ({2}, [True] * 5, 2),  # once: sent again on the next association
        ({2, 3}, [True, False, True, True, True], 3),  # twice: that one has failed, the others go on
        ({2, 4, 6}, [True] * 5, 4),  # now and then
        ({2, 3, 4, 5, 6, 7}, [True, False, False, False, False], MAX_LOSSES),  # for good
    ],
)
def test_a_lost_association_is_opened_again(lost: set[int], stored: list[bool], associations: int) -> None:
    with scripted_scp(partial(lose_some, lost)) as scp:
        link = Link(SocketPeers("SENDER"), ApplicationEntity("SCP", "127.0.0.1", scp.port), [PAIR])
        assert through(link, 5) == stored
    assert len(scp.callers) == associations


def test_a_peer_that_is_gone_is_not_called_again_and_again() -> None:
    with scripted_scp(lambda _: None) as scp:
        link = Link(SocketPeers("SENDER"), ApplicationEntity("SCP", "127.0.0.1", scp.port), [PAIR])
    began = time.monotonic()
    assert through(link, 200) == [False] * 200
    assert time.monotonic() - began < 10


# --- The archive ---


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Archive]]:
    with archive_on(tmp_path_factory.mktemp("archive")) as built:
        settings, stele = built
        with listening(settings, stele):
            yield built


def test_an_association_is_accepted_without_a_wait(archive: tuple[Settings, Archive]) -> None:
    """The fastest of some, so that a busy machine does not matter: none waits for a time slice to end."""
    seconds = []
    for _ in range(10):
        began = time.monotonic()
        peer = Peer.associated(archive[0].dicom.port, context(1, MOVE, IMPLICIT))
        seconds.append(time.monotonic() - began)
        peer.close()
    assert min(seconds) < SLICE_SECONDS / 2


def instances(folder: Path, classes: list[str]) -> tuple[str, dict[str, bytes]]:
    """One small instance of each class in a study: its UID, and the datasets by SOP Instance UID."""
    folder.mkdir()
    study, series = str(generate_uid()), str(generate_uid())
    datasets: dict[str, bytes] = {}
    for number, class_uid in enumerate(classes):
        uid = str(generate_uid())
        dataset = b"".join(
            element(tag, vr, value.encode() + (b"\0" if vr == "UI" else b" ") * (len(value) % 2))
            for tag, vr, value in (
                (0x00080016, "UI", class_uid),
                (0x00080018, "UI", uid),
                (0x00100020, "LO", "DELIVERY"),
                (0x0020000D, "UI", study),
                (0x0020000E, "UI", series),
                (0x00200013, "IS", str(number)),
            )
        )
        datasets[uid] = dataset
        (folder / f"{number}.dcm").write_bytes(part10.prefix(class_uid, uid, EXPLICIT, "") + dataset)
    return study, datasets


def moved(
    archive: tuple[Settings, Archive], folder: Path, classes: list[str], serve: Callable[[Caller], None]
) -> tuple[Dataset, Dataset | None, ScriptedSCP, dict[str, bytes]]:
    """C-MOVE of a study: final response, failed list, destination, what was to be moved."""
    settings, stele = archive
    study, datasets = instances(folder, classes)
    entity = ApplicationEntity("STELE", "127.0.0.1", settings.dicom.port)
    sent = send_folder(SocketPeers("SENDER"), entity, folder, lambda *_: None)
    assert (sent.sent, sent.failed, sent.differing) == (len(classes), [], [])
    keys = Dataset()
    keys.QueryRetrieveLevel, keys.StudyInstanceUID = "STUDY", study
    with scripted_scp(serve) as scp:
        put(stele, ApplicationEntity("DEST", "127.0.0.1", scp.port))
        association = AE("MOVER").associate(
            "127.0.0.1", settings.dicom.port, [build_context(MOVE)], ae_title="STELE"
        )
        answers = list(association.send_c_move(keys, "DEST", MOVE))
        association.release()
    counts = [
        status.NumberOfCompletedSuboperations
        + status.NumberOfFailedSuboperations
        + status.NumberOfWarningSuboperations
        for status, _ in answers
    ]
    assert counts == [*range(1, len(counts)), len(classes)]
    return *answers[-1], scp, datasets


def test_more_kinds_than_an_association_has_contexts(
    archive: tuple[Settings, Archive], tmp_path: Path
) -> None:
    classes = sorted(str(each.abstract_syntax) for each in contexts.supported() if each.scu_role)
    assert len(classes) > 130
    final, _, scp, datasets = moved(archive, tmp_path / "in", classes, keep)
    assert final.Status == 0
    assert final.NumberOfCompletedSuboperations == len(classes)
    assert {each.command.instance_uid: each.dataset for each in scp.received} == datasets
    assert len(scp.received) == len(classes)
    assert len(scp.callers) == scp.released > 1
    assert all(len(caller.proposals) <= 128 for caller in scp.callers)


def test_an_association_lost_in_the_middle_of_a_move(
    archive: tuple[Settings, Archive], tmp_path: Path
) -> None:
    final, failed, scp, datasets = moved(archive, tmp_path / "in", [CT] * 9, partial(lose_some, {4}))
    assert final.Status == 0
    assert failed is None
    assert final.NumberOfCompletedSuboperations == 9
    assert {each.command.instance_uid: each.dataset for each in scp.received} == datasets
    assert len(scp.received) == 10  # one came twice
    assert len(scp.callers) == 2


def test_an_instance_that_costs_the_association_every_time(
    archive: tuple[Settings, Archive], tmp_path: Path
) -> None:
    final, failed, scp, datasets = moved(archive, tmp_path / "in", [CT] * 9, partial(lose_some, {4, 5}))
    assert final.Status == 0xB000
    assert (final.NumberOfCompletedSuboperations, final.NumberOfFailedSuboperations) == (8, 1)
    poison = scp.received[3].command.instance_uid
    assert failed is not None
    assert failed.FailedSOPInstanceUIDList == poison
    assert {each.command.instance_uid for each in scp.received} == set(datasets)


def test_a_destination_that_goes_away_for_good(archive: tuple[Settings, Archive], tmp_path: Path) -> None:
    final, failed, scp, datasets = moved(
        archive, tmp_path / "in", [CT] * 9, partial(lose_some, set(range(4, 30)))
    )
    assert final.Status == 0xB000
    assert (final.NumberOfCompletedSuboperations, final.NumberOfFailedSuboperations) == (3, 6)
    stored = {each.command.instance_uid for each in scp.received[:3]}
    assert failed is not None
    assert set(failed.FailedSOPInstanceUIDList) == set(datasets) - stored
