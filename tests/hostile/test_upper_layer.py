"""The upper layer (PS3.8) under attack.

An A-ABORT's source and reason are those of PS3.8 table 9-26, a rejection's result, source and reason those
of table 9-21. One remark on the former: before there is an association, PS3.8 table 9-10 names action AA-1,
an A-ABORT of the service user, whose reason means nothing. This archive sends the provider's with its
reason there too: it is the provider that finds the fault, peers treat both alike, and whoever looks for
the fault on the other side is told more.
"""

import contextlib
import socket
import ssl
import struct
import time
from pathlib import Path

import pytest

from node.dimse import command as commands
from node.dimse import pdu
from node.dimse.command import Command
from tests.hostile.target import CANARY, Target
from tests.integration.dimse_peer import (
    CT,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    Peer,
    abort,
    context,
    echo,
    p_data,
    rejection,
    request,
)
from tests.support import wait_until

pytestmark = pytest.mark.usefixtures("unharmed")

ECHO = context(1, VERIFICATION, IMPLICIT)
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
CLOSED = (0, b"")
elsewhere = pytest.mark.unnoticed("by another archive than the one that is watched")
_NAMED = CANARY.encode()

BEFORE = {
    "HTTP": (b"GET /CANARYBIRD HTTP/1.1\r\nHost: archive\r\n\r\n", abort(1)),
    "TLS on the plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", abort(1)),
    "PDU length 4 GiB": (b"\1\0\xff\xff\xff\xff" + bytes(4096), abort(6)),
    "P-DATA first": (p_data(1, 3, _NAMED), abort(2)),
    "release first": (b"\5\0\0\0\0\4\0\0\0\0", abort(2)),
    "an answer first": (struct.pack(">BxI", 2, 8) + _NAMED[:8], abort(2)),
    "unknown PDU type": (b"\x2a\0\0\0\0\4\0\0\0\0", abort(1)),
    "abort of a wrong length": (b"\7\0\0\0\0\5\0\0\0\0\0", abort(6)),
    "wrong protocol version": (request(ECHO, version=2), rejection(1, 2, 2)),
    "application context": (request(ECHO, application="1.2.3"), rejection(1, 1, 2)),
    "unknown called AE": (request(ECHO, called="OTHER"), rejection(1, 1, 7)),
    "calling AE from a foreign address": (request(ECHO, calling="ELSEWHERE"), rejection(1, 1, 3)),
    "even context ID": (request(context(2, VERIFICATION, IMPLICIT)), abort(6)),
    "context ID twice": (request(ECHO, ECHO), abort(6)),
    "no context": (request(), abort(6)),
    "context without syntaxes": (request(context(1, VERIFICATION)), abort(6)),
    "item longer than its PDU": (request(ECHO).replace(b"\x52\0\0\7", b"\x52\0\7\7"), abort(6)),
    "context longer than its PDU": (request(ECHO).replace(b"\x20\0\0", b"\x20\0\7"), abort(6)),
    "implementation UID of 80 digits": (request(ECHO, implementation="1" * 80), abort(6)),
    "user identity of no form": (request(ECHO, more=b"\x58\0\0\3\1\0\xff"), abort(6)),
    "empty calling AE": (request(ECHO, calling=""), abort(6)),
    "calling AE with a line break": (request(ECHO, calling="A\nB"), abort(6)),
}


@pytest.mark.parametrize("name", BEFORE)
def test_before_the_association(target: Target, name: str) -> None:
    """AB 2/1 for what is no DICOM, 2/2 for a PDU out of turn, 2/6 for a malformed one; RJ as named."""
    sent, answer = BEFORE[name]
    peer = Peer.connect(target.dicom_port)
    peer.send(sent)
    assert peer.read_pdu() == answer
    assert peer.read_pdu() == CLOSED


@pytest.mark.unnoticed("valid")
def test_version_bits_beyond_the_first_do_not_count(target: Target) -> None:
    """PS3.8 section 9.3.2: an acceptor that supports version 1 looks at bit 0 alone."""
    peer = Peer.connect(target.dicom_port)
    peer.send(request(ECHO, version=3))
    assert peer.read_pdu()[0] == pdu.ASSOCIATE_AC
    assert echo(peer) == 0


def results(body: bytes) -> dict[int, int]:
    """Context results of an A-ASSOCIATE-AC by ID."""
    found, at = {}, 68
    while at < len(body):
        kind, length = struct.unpack_from(">BxH", body, at)
        if kind == 0x21:
            found[body[at + 4]] = body[at + 6]
        at += 4 + length
    return found


@pytest.mark.unnoticed("negotiation")
def test_contexts_are_judged_one_by_one(target: Target) -> None:
    """No common transfer syntax: context result 4; an unknown SOP class: 3 (PS3.8 table 9-18)."""
    peer = Peer.connect(target.dicom_port)
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


@pytest.mark.unnoticed("negotiation")
@pytest.mark.parametrize(
    "offered", [context(1, FIND, IMPLICIT), context(1, CT, EXPLICIT)], ids=["any service", "storage only"]
)
def test_as_many_contexts_as_there_are_ids(target: Target, offered: bytes) -> None:
    """128 contexts of 60 syntaxes each: 300 kB of request are too much, a tenth of it is taken."""
    syntaxes = [IMPLICIT, *(f"1.2.826.0.1.3680043.8.498.{number}" for number in range(6))]
    contexts = [context(number, CT, *syntaxes) for number in range(3, 256, 2)]
    peer = Peer.connect(target.dicom_port)
    peer.send(request(offered, *contexts))
    kind, body = peer.read_pdu()
    assert kind == pdu.ASSOCIATE_AC
    assert list(results(body).values()) == [0] * 128


ECHO_COMMAND = commands.encode(Command(commands.C_ECHO_RQ, class_uid=VERIFICATION, message_id=1))
DURING = {
    "HTTP": (b"GET /CANARYBIRD HTTP/1.1\r\nHost: archive\r\n\r\n", abort(1)),
    "PDU length 4 GiB": (b"\4\0\xff\xff\xff\xff" + bytes(4096), abort(6)),
    "PDU beyond what was negotiated": (struct.pack(">BxI", 4, 131073) + bytes(4096), abort(6)),
    "unknown PDU type": (b"\x2a\0\0\0\0\4\0\0\0\0", abort(1)),
    "a second request": (request(ECHO), abort(2)),
    "PDV longer than its PDU": (struct.pack(">BxIIBB", 4, 8, 100, 1, 3) + b"xx", abort(6)),
    "PDV of length 1": (struct.pack(">BxIIB", 4, 5, 1, 1), abort(6)),
    "no PDV": (b"\4\0\0\0\0\0", abort(6)),
    "even context ID": (p_data(2, 3, ECHO_COMMAND), abort(6)),
    "context that was not accepted": (p_data(9, 3, ECHO_COMMAND), abort(6)),
    "dataset without a command": (p_data(1, 2, _NAMED), abort(5)),
    "garbled command": (p_data(1, 3, b"\0\0\0\1\xff\xff\xff\xff" + _NAMED), abort(6)),
    "endless command": (b"".join(p_data(1, 1, bytes(8192)) for _ in range(3)), abort(6)),
    "release of a wrong length": (b"\5\0\0\0\0\5\0\0\0\0\0", abort(6)),
}
SERVED = {
    "any service": (ECHO, context(3, CT, EXPLICIT), context(5, FIND, IMPLICIT)),
    "storage only": (context(1, CT, EXPLICIT), context(3, CT, EXPLICIT)),
}


@pytest.mark.unnoticed("the gate is past")
@pytest.mark.parametrize("served", SERVED)
@pytest.mark.parametrize("name", DURING)
def test_during_the_association(target: Target, name: str, served: str) -> None:
    """The same answers whatever the association was negotiated for: who only stores may be served apart."""
    sent, answer = DURING[name]
    peer = Peer.associated(target.dicom_port, *SERVED[served])
    peer.send(sent)
    assert peer.read_pdu() == answer
    assert peer.read_pdu() == CLOSED


@pytest.mark.unnoticed("as the assertion says")
@pytest.mark.parametrize("served", SERVED)
def test_a_broken_association_leaves_a_trace(target: Target, served: str) -> None:
    """An operator can tell from the metrics that a peer is at fault."""
    noticed = target.noticed()
    peer = Peer.associated(target.dicom_port, *SERVED[served])
    peer.send(b"\x2a\0\0\0\0\4\0\0\0\0")
    assert peer.read_pdu() == abort(1)
    wait_until(lambda: target.noticed() > noticed, 5, "the fault in the metrics")


@pytest.mark.unnoticed("as the assertion says")
def test_data_before_the_request_is_answered(target: Target) -> None:
    """Found by `test_fuzz_wire`: AB 2/2 or a closed connection, for a client that has gone by then, and no
    fault."""
    logged = len(target.archive.log)
    for _ in range(5):
        peer = Peer.connect(target.dicom_port)
        peer.send(request(*SERVED["any service"]) + p_data(1, 2, _NAMED))
        peer.socket.shutdown(socket.SHUT_WR)
        while peer.read_pdu() != CLOSED:
            pass
    assert echo(Peer.associated(target.dicom_port, ECHO)) == 0
    with pytest.raises(AssertionError):  # it would be logged within moments
        wait_until(lambda: "association failed" in target.archive.log[logged:], 3, "a fault")


# --- Peers that do nothing, or too little, or too much ---


@pytest.mark.slow
def test_half_a_header_on_a_hundred_connections(target: Target) -> None:
    """Closed within 10 s (and a little for the machine), others served meanwhile at their usual pace."""
    began = time.monotonic()
    halves = [Peer.connect(target.dicom_port) for _ in range(100)]
    for peer in halves:
        peer.send(request(ECHO)[:3])
    paces = []
    while time.monotonic() - began < 5:
        started = time.monotonic()
        fresh = Peer.associated(target.dicom_port, ECHO)
        assert echo(fresh) == 0
        fresh.release()
        paces.append(time.monotonic() - started)
    assert len(paces) > 10
    assert sorted(paces)[len(paces) // 2] < 0.5
    for peer in halves:
        assert peer.read_pdu() == CLOSED
    assert time.monotonic() - began < 20


@elsewhere
def test_trickled_bytes_stretch_nothing(narrow: Target) -> None:
    """One deadline from the connection to the whole request, here of two seconds."""
    began = time.monotonic()
    peer = Peer.connect(narrow.dicom_port)
    peer.socket.settimeout(0.05)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for byte in request(ECHO) + bytes(1000):
            peer.send(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                if not peer.socket.recv(1):
                    break
    assert time.monotonic() - began < 10


@elsewhere
@pytest.mark.parametrize("whole", [True, False], ids=["between PDUs", "within a PDU"])
def test_a_message_has_a_deadline(narrow: Target, whole: bool) -> None:
    """AB 2/0: the sender of half a message is not waited for."""
    peer = Peer.associated(narrow.dicom_port, context(1, CT, EXPLICIT))
    store = Command(commands.C_STORE_RQ, class_uid=CT, message_id=1, dataset_type=0, instance_uid="1.2.3")
    peer.send_command(1, store)
    began = time.monotonic()
    piece = p_data(1, 0, bytes(1000))
    peer.send(piece if whole else piece[:500])
    assert peer.read_pdu()[0] == pdu.ABORT
    assert time.monotonic() - began < 10


@elsewhere
def test_silence_has_a_deadline(narrow: Target) -> None:
    """An association on which nothing happens is aborted."""
    peer = Peer.associated(narrow.dicom_port, ECHO)
    began = time.monotonic()
    assert peer.read_pdu()[0] == pdu.ABORT
    assert 0.5 < time.monotonic() - began < 10


@elsewhere
def test_over_the_limit(narrow: Target) -> None:
    """RJ 2/3/2, local limit exceeded, which a client takes for "later": two per AE title, three in all."""
    open_now = [Peer.associated(narrow.dicom_port, ECHO, calling="ONE") for _ in range(2)]
    third = Peer.connect(narrow.dicom_port)
    third.send(request(ECHO, calling="ONE"))
    assert third.read_pdu() == rejection(2, 3, 2)
    open_now.append(Peer.associated(narrow.dicom_port, ECHO, calling="TWO"))
    fourth = Peer.connect(narrow.dicom_port)
    fourth.send(request(ECHO, calling="THREE"))
    assert fourth.read_pdu() == rejection(2, 3, 2)
    assert [echo(peer) for peer in open_now] == [0, 0, 0]
    for peer in open_now:
        peer.release()


@elsewhere
def test_pending_connections_have_a_limit(narrow: Target) -> None:
    """Beyond it the one that has waited longest is closed for a newcomer, who is served."""
    wait_until(lambda: _echoes(narrow.dicom_port), 20, "room for a connection")
    waiting = [Peer.connect(narrow.dicom_port) for _ in range(4)]
    newcomer = Peer.associated(narrow.dicom_port, ECHO, calling="MORE")
    assert waiting[0].read_pdu() == CLOSED
    assert echo(newcomer) == 0
    newcomer.release()


def _echoes(port: int) -> bool:
    try:
        peer = Peer.associated(port, ECHO, calling="MORE")
    except (AssertionError, OSError):
        return False
    try:
        return echo(peer) == 0
    finally:
        peer.release()


# --- Who calls ---


def _secured(target: Target, made: dict[str, Path], own: str | None) -> Peer:
    chosen = ssl.create_default_context(cafile=str(made["server"]))
    if own:
        chosen.load_cert_chain(made[own])
    plain = socket.create_connection(("127.0.0.1", target.tls_port), timeout=20)
    return Peer(chosen.wrap_socket(plain, server_hostname="127.0.0.1"))


@elsewhere
def test_a_calling_ae_that_is_not_configured(narrow: Target) -> None:
    """RJ 1/1/3."""
    peer = Peer.connect(narrow.dicom_port)
    peer.send(request(ECHO, calling="STRANGER"))
    assert peer.read_pdu() == rejection(1, 1, 3)


@elsewhere
@pytest.mark.parametrize("own", ["other", None], ids=["another's certificate", "no TLS"])
def test_a_calling_ae_without_its_certificate(
    narrow: Target, certificates: dict[str, Path], own: str | None
) -> None:
    """RJ 1/1/3, for another's certificate and on the plain port; with its own it is served."""
    right = _secured(narrow, certificates, "client")
    right.send(request(ECHO, calling="SECURE"))
    assert right.read_pdu()[0] == pdu.ASSOCIATE_AC
    assert echo(right) == 0
    wrong = _secured(narrow, certificates, own) if own else Peer.connect(narrow.dicom_port)
    wrong.send(request(ECHO, calling="SECURE"))
    assert wrong.read_pdu() == rejection(1, 1, 3)


@elsewhere
def test_no_client_certificate(narrow: Target, certificates: dict[str, Path]) -> None:
    """A TLS alert (certificate_required, RFC 8446 section 6.2), before any DICOM."""
    peer = _secured(narrow, certificates, None)  # TLS 1.3 tells a client after its own handshake
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.*certificate.required"):
        peer.socket.recv(1)


@elsewhere
@pytest.mark.parametrize("version", [0x0301, 0x0302], ids=["TLS 1.0", "TLS 1.1"])
def test_old_tls(narrow: Target, version: int) -> None:
    """An alert of level fatal (2), protocol_version (70), in answer to a ClientHello without newer versions.

    It is written by hand: today's libraries refuse to send one.
    """
    suites = bytes.fromhex("c009c00ac013c014002f0035")
    hello = struct.pack(">H", version) + bytes(32) + b"\0" + struct.pack(">H", len(suites)) + suites + b"\1\0"
    message = b"\1" + struct.pack(">I", len(hello))[1:] + hello
    with socket.create_connection(("127.0.0.1", narrow.tls_port), timeout=20) as plain:
        plain.sendall(b"\x16" + struct.pack(">HH", 0x0301, len(message)) + message)
        answer = plain.recv(100)
    assert answer[:1] == b"\x15"
    assert answer[5:7] == bytes((2, 70))
