"""Associations that only store: time, memory, the buffer's edges, and ends that are not regular."""

import random
import socket
import struct
import threading
import tracemalloc
from typing import Any

import pytest

from node.dimse import command as commands
from node.dimse import pdu, storing
from node.dimse.association import Edge
from node.dimse.storing import BUFFER_BYTES, Storing
from tests.integration.dimse_peer import CT, EXPLICIT, IMPLICIT, VERIFICATION, context, p_data
from tests.unit.dimse.conversations import RELEASE, Ingest, Intake, Line, Talk, converse, edge_for, pdus
from tests.unit.dimse.talks import ECHO, N_CREATE_RQ, PROPOSED, STORE_BEGUN, message, proposing

RELEASED = pdu.release(pdu.RELEASE_RP)
NOT_IN_TIME = pdu.abort(pdu.NOT_SPECIFIED)
STORE = message(commands.C_STORE_RQ, b"\x08\0" * 30)


def associated(edge: Edge, request: bytes = PROPOSED, **entity: Any) -> Line:
    """An association whose acceptance has been read."""
    line = Line(Storing, edge, request, **entity)
    assert line.read()[0] == pdu.ASSOCIATE_AC
    return line


def nothing_comes(line: Line, seconds: float) -> None:
    """The archive says nothing for so long."""
    line.peer.settimeout(seconds)
    with pytest.raises(TimeoutError):
        line.read()
    line.peer.settimeout(20)


def status_of(answer: bytes) -> int | None:
    """The status in an answer of one value."""
    assert answer[0] == pdu.P_DATA, answer
    return commands.decode(answer[12:]).status


# --- Time ---


def test_a_message_that_came_with_the_one_before_has_the_time_of_a_message() -> None:
    """Not that of the silence between messages."""
    line = associated(edge_for(Ingest(), idle_seconds=0.3))
    line.peer.sendall(ECHO + STORE_BEGUN)
    assert status_of(line.read()) == 0
    nothing_comes(line, 1.2)
    line.peer.sendall(p_data(1, 2, b""))
    assert status_of(line.read()) == 0
    line.close()


def test_a_stop_lets_a_message_finish_that_came_with_the_one_before() -> None:
    edge = edge_for(Ingest())
    line = associated(edge)
    line.peer.sendall(ECHO + STORE_BEGUN)
    assert status_of(line.read()) == 0
    edge.stopping.set()
    nothing_comes(line, 0.8)
    line.peer.sendall(p_data(1, 2, b""))
    assert status_of(line.read()) == 0
    assert line.read() == RELEASE
    line.peer.sendall(RELEASED)
    assert line.read() == b""
    line.close()


def test_silence_counts_from_our_answer() -> None:
    """However long that took: the peer had nothing to say meanwhile."""
    slow = threading.Event()
    line = associated(edge_for(Ingest(lambda: slow.wait(1.5)), idle_seconds=1.2))
    line.peer.sendall(STORE)
    assert status_of(line.read()) == 0
    nothing_comes(line, 0.6)
    line.close()


def test_a_message_that_shares_a_pdu_with_the_one_before_has_all_its_time() -> None:
    slow = threading.Event()
    ingest = Ingest(lambda: slow.wait(1.5))
    line = associated(edge_for(ingest, message_seconds=1.0))
    inside = b"".join(each[6:] for each in pdus(STORE + STORE_BEGUN))
    line.peer.sendall(struct.pack(">BxI", pdu.P_DATA, len(inside)) + inside)
    assert status_of(line.read()) == 0
    line.peer.sendall(p_data(1, 2, b"xx"))
    assert status_of(line.read()) == 0
    assert len(ingest.stored) == 2
    line.close()


@pytest.mark.parametrize("begun", [b"", ECHO, ECHO[:3], STORE_BEGUN, ECHO + STORE_BEGUN, STORE_BEGUN[:50]])
def test_trickling_does_not_stretch_a_message(begun: bytes) -> None:
    ingest = Ingest()
    line = associated(edge_for(ingest, message_seconds=0.5))
    line.peer.sendall(begun)
    answers = [line.read()] if begun.startswith(ECHO) else []
    line.peer.settimeout(0.05)
    rest = iter(ECHO[3:] if begun == ECHO[:3] else p_data(1, 0, bytes(3000)))
    last = b""
    for byte in rest:
        line.peer.sendall(bytes([byte]))
        try:
            last = line.read()
            break
        except TimeoutError:
            continue
    assert (last, [status_of(answer) for answer in answers]) == (NOT_IN_TIME, [0] * len(answers))
    line.close()
    assert ingest.stored == []
    assert all(intake.ended for intake in ingest.begun)


def test_silence_has_an_end() -> None:
    line = associated(edge_for(Ingest(), idle_seconds=0.3))
    assert line.read() == NOT_IN_TIME
    line.close()


def test_a_peer_that_does_not_read_its_answers_is_left_in_time() -> None:
    line = associated(edge_for(Ingest(), message_seconds=0.5))
    line.peer.settimeout(0.2)
    with pytest.raises(OSError):  # what it sends is not read any more, or the connection is closed
        while True:
            line.peer.sendall(ECHO * 100)
    assert line.association.over.wait(15)
    line.close()


# --- Ends ---


def test_a_stop_releases_an_idle_association() -> None:
    edge = edge_for(Ingest())
    line = associated(edge)
    edge.stopping.set()
    assert line.read() == RELEASE
    line.peer.sendall(RELEASED)
    assert line.read() == b""
    line.close()


def test_releases_that_collide_are_answered_by_the_requestor_first() -> None:
    """PS3.8 section 7.2.2.6, states Sta10 and Sta12."""
    edge = edge_for(Ingest())
    line = associated(edge)
    edge.stopping.set()
    assert line.read() == RELEASE
    line.peer.sendall(RELEASE)
    nothing_comes(line, 0.4)
    line.peer.sendall(RELEASED)
    assert line.read() == RELEASED
    line.close()


def test_what_comes_after_we_asked_for_the_release_is_thrown_away() -> None:
    ingest = Ingest()
    edge = edge_for(ingest)
    line = associated(edge)
    edge.stopping.set()
    assert line.read() == RELEASE
    line.peer.sendall(STORE + RELEASED)
    assert line.read() == b""
    line.close()
    assert ingest.begun == []


def test_a_request_after_we_asked_for_the_release_is_unexpected() -> None:
    edge = edge_for(Ingest())
    line = associated(edge)
    edge.stopping.set()
    assert line.read() == RELEASE
    line.peer.sendall(PROPOSED)
    assert line.read() == pdu.abort(pdu.UNEXPECTED_PDU)
    line.close()


def test_a_release_that_is_not_answered_ends_in_an_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "RELEASE_SECONDS", 0.3)
    edge = edge_for(Ingest())
    line = associated(edge)
    edge.stopping.set()
    assert line.read() == RELEASE
    assert line.read() == NOT_IN_TIME
    line.close()


@pytest.mark.parametrize("begun", [b"", STORE_BEGUN, ECHO[:5]])
def test_hanging_up_aborts(begun: bytes) -> None:
    ingest = Ingest()
    line = associated(edge_for(ingest))
    line.peer.sendall(begun)
    line.association.hang_up()
    assert line.read() in (NOT_IN_TIME, b"")  # the abort may be late on a machine under load
    assert line.association.over.wait(10)
    line.close()
    assert ingest.stored == []


def test_hanging_up_on_a_peer_that_does_not_read() -> None:
    line = associated(edge_for(Ingest()))
    line.peer.settimeout(0.2)
    with pytest.raises(TimeoutError):
        while True:
            line.peer.sendall(ECHO * 100)
    line.association.hang_up()
    assert line.association.over.wait(10)
    line.close()


def test_a_peer_that_says_all_and_shuts_its_side_gets_its_answers() -> None:
    ingest = Ingest()
    line = associated(edge_for(ingest))
    line.peer.sendall(STORE + ECHO)
    line.peer.shutdown(socket.SHUT_WR)
    assert [status_of(line.read()), status_of(line.read()), line.read()] == [0, 0, b""]
    line.close()
    assert len(ingest.stored) == 1


def test_a_fault_of_ours_is_an_abort_and_known_to_the_listener() -> None:
    edge = edge_for(Ingest())
    edge.archive.catalog.audits.record = lambda _: 1 / 0  # type: ignore[method-assign, assignment]
    line = associated(edge, may_store=False)
    line.peer.sendall(STORE)
    assert line.read() == NOT_IN_TIME
    line.close()
    assert isinstance(line.error, ZeroDivisionError)


def test_an_association_is_over_even_if_an_intake_cannot_be_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Intake, "abort", lambda _: 1 / 0)
    line = associated(edge_for(Ingest()))
    line.peer.sendall(STORE_BEGUN)
    line.peer.shutdown(socket.SHUT_WR)
    assert line.read() == b""
    line.close()
    assert line.association.over.is_set()
    assert isinstance(line.error, ZeroDivisionError)


# --- Sizes ---


@pytest.mark.parametrize("limit", [0, 16, 17, 50, 65536])
def test_answers_are_no_longer_than_the_peer_takes(limit: int) -> None:
    asked = proposing(context(3, VERIFICATION, IMPLICIT), max_length=limit)
    answers = list(pdus(converse(Storing, Talk(asked, ECHO)).answers))
    assert all(len(answer) - 6 <= (limit or 1 << 20) for answer in answers)
    assert commands.decode(b"".join(answer[12:] for answer in answers)).status == 0


def test_a_command_fits_the_buffer() -> None:
    """Otherwise it could never be read to its end."""
    assert commands.MAX_COMMAND_BYTES + pdu.VALUE.size <= BUFFER_BYTES
    longest = commands.encode(
        commands.Command(N_CREATE_RQ, class_uid="1" * (commands.MAX_COMMAND_BYTES - 52))
    )
    assert len(longest) <= commands.MAX_COMMAND_BYTES
    found = converse(Storing, Talk(PROPOSED, p_data(1, 3, longest)), [1] * 3)
    assert found.last == RELEASED
    assert found.answers


def test_headers_across_the_end_of_the_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every place where a PDU's or a value's header can be cut by it, and PDUs as long as it."""
    size = commands.MAX_COMMAND_BYTES + pdu.VALUE.size
    monkeypatch.setattr(storing, "BUFFER_BYTES", size)
    data = random.Random(1).randbytes(3 * size)
    for less in range(-2, 170, 3):
        for counts in ((1,), (2,)):
            body = message(commands.C_STORE_RQ, data, sizes=(size - less, 0, 1), counts=counts)
            found = converse(Storing, Talk(PROPOSED, body), max_pdu_bytes=1 << 20)
            assert [each[-1] == data for each in found.stored] == [True], less
            assert found.last == RELEASED


@pytest.mark.parametrize("pdu_bytes", [BUFFER_BYTES - 1, BUFFER_BYTES, BUFFER_BYTES + 1, 1 << 20])
@pytest.mark.parametrize("value_bytes", [1 << 20, 10_000])
def test_pdus_as_long_as_the_buffer_and_longer(pdu_bytes: int, value_bytes: int) -> None:
    ingest = Ingest()
    line = associated(edge_for(ingest, max_pdu_bytes=1 << 20))
    sent, inside = bytearray(), b""
    chance = random.Random(2)
    while len(inside) < pdu_bytes:
        count = min(value_bytes, pdu_bytes - len(inside) - 6)
        if pdu_bytes - len(inside) - 6 - count in range(1, 6):
            count -= 6
        piece = chance.randbytes(count)
        sent += piece
        inside += p_data(1, 0, piece)[6:]
    assert len(inside) == pdu_bytes
    command, *_ = pdus(STORE_BEGUN)
    line.peer.sendall(command + struct.pack(">BxI", pdu.P_DATA, pdu_bytes) + inside + p_data(1, 2, b""))
    assert status_of(line.read()) == 0
    assert ingest.stored[0][-1] == sent
    line.peer.sendall(struct.pack(">BxI", pdu.P_DATA, (1 << 20) + 1))
    assert line.read() == pdu.abort(pdu.INVALID_VALUE)
    line.close()


def test_memory_is_bounded_by_the_buffer() -> None:
    """Whatever is sent, also if nobody wants to have it."""
    line = associated(edge_for(Ingest()), may_store=False)
    tracemalloc.start()
    try:
        for field, kind in ((N_CREATE_RQ, 0x0211), (commands.C_STORE_RQ, 0x0124)):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            begun, *_ = pdus(message(field, b"xx"))
            line.peer.sendall(begun)
            piece = p_data(1, 0, bytes(65536))
            for _ in range(64):
                line.peer.sendall(piece)
            line.peer.sendall(p_data(1, 2, b""))
            assert status_of(line.read()) == kind
            assert tracemalloc.get_traced_memory()[1] - before < BUFFER_BYTES
    finally:
        tracemalloc.stop()
    line.close()


def test_contexts_keep_their_class_and_syntax() -> None:
    asked = proposing(context(9, CT, IMPLICIT), context(1, CT, EXPLICIT), context(255, CT, "1.9.9", EXPLICIT))
    body = b"".join(message(commands.C_STORE_RQ, b"ab", context_id=each) for each in (9, 1, 255))
    found = converse(Storing, Talk(asked, body))
    assert [syntax for _, _, syntax, _ in found.stored] == [IMPLICIT, EXPLICIT, EXPLICIT]
