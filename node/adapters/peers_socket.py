"""DICOM peers that we call: a storage SCU on a plain socket (PS3.7 section 9.1.1, PS3.8 section 9.3).

pynetdicom encodes and decodes the negotiation, once for each association; after that it has no part, and
no thread. Datasets go out as the encoded bytes they are: views of them, with PDU headers between, are
given to the kernel a MiB at a time, and the answer is read by the thread that sends.

One thread uses an association. Whatever goes wrong on it ends it: an answer that comes too late would
otherwise be taken for the next one's. Every wait is bounded: for the connection, the negotiation, each MiB
to be taken, and the answer.
"""

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

from node.domain import pdata
from node.domain.errors import Reason, Refusal
from node.domain.model import Answer, ApplicationEntity
from node.domain.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.domain.pdata import Buffer
from node.quiet import quiet

CONNECT_SECONDS = 10.0
NEGOTIATE_SECONDS = 30.0
RELEASE_SECONDS = 5.0
MAX_ANSWER_BYTES = 16 << 10  # of a PDU of the peer's; we announce it
MAX_ACCEPT_BYTES = 256 << 10

_ASSOCIATE_AC, _ASSOCIATE_RJ, _P_DATA, _RELEASE_RP = 2, 3, 4, 6
_RELEASE_RQ = struct.pack(">BxIxxxx", 5, 4)
_ABORT = struct.pack(">BxIxxxx", 7, 4)  # by the service user
_PDU = struct.Struct(">BxI")
_VALUE = struct.Struct(">IBB")
_ELEMENT = struct.Struct("<HHI")
_STORE_RQ, _STORE_RSP = 0x0001, 0x8001


class _Lost(Exception):
    """The association cannot be used any more."""


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """PEM files for calls by TLS: our certificate chain and key (if we have one), and the CAs that the
    peers' certificates must come from (none: the system's)."""

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None


class SocketPeers:
    """Peers called under the AE title `calling`; they may take `answer_seconds` to answer, and as long
    for each MiB."""

    def __init__(self, calling: str, tls: TLSFiles | None = None, *, answer_seconds: float = 120.0) -> None:
        quiet()
        self._calling = calling
        self._tls = tls or TLSFiles()
        self._answer_seconds = answer_seconds

    def connect(self, entity: ApplicationEntity, contexts: Sequence[tuple[str, str]]) -> "SocketDelivery":
        """Associate, with a presentation context for each of `contexts`."""
        if not entity.host or not entity.port:
            raise Refusal(Reason.UNAVAILABLE, "the AE has no address")
        try:
            request = _request(self._calling, entity.title, contexts)
            connected = socket.create_connection((entity.host, entity.port), CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise Refusal(Reason.UNAVAILABLE, "the AE cannot be called") from error
        try:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connected.settimeout(NEGOTIATE_SECONDS)
            if entity.tls:
                connected = self._tls_context().wrap_socket(connected, server_hostname=entity.host)
            wire = _Wire(connected)
            wire.write([request], NEGOTIATE_SECONDS)
            kind, body = wire.read(MAX_ACCEPT_BYTES, NEGOTIATE_SECONDS)
            if kind == _ASSOCIATE_AC:
                accepted, peer_limit = _accepted(body, contexts)
                return SocketDelivery(wire, accepted, pdata.value_bytes(peer_limit), self._answer_seconds)
        except (OSError, ValueError, _Lost) as error:
            connected.close()
            raise Refusal(Reason.UNAVAILABLE, "the AE does not answer") from error
        except BaseException:
            connected.close()
            raise
        connected.close()
        said = "the AE rejects" if kind == _ASSOCIATE_RJ else "the AE does not answer"
        raise Refusal(Reason.UNAVAILABLE, said)

    def _tls_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=self._tls.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._tls.certificate is not None:
            context.load_cert_chain(self._tls.certificate, self._tls.key)
        return context


class SocketDelivery:
    """An established association; `accepted`: context IDs by (SOP class, transfer syntax)."""

    def __init__(
        self, wire: "_Wire", accepted: dict[tuple[str, str], int], size: int, answer_seconds: float
    ) -> None:
        self._wire: _Wire | None = wire
        self._accepted = accepted
        self._size = size
        self._answer_seconds = answer_seconds
        self._message_id = 0

    def accepts(self, sop_class_uid: str) -> tuple[str, ...]:
        """Transfer syntaxes accepted for the SOP class; () once the association is lost."""
        if self._wire is None:
            return ()
        return tuple(syntax for class_uid, syntax in self._accepted if class_uid == sop_class_uid)

    def send(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        dataset: Iterable[bytes],
        originator: tuple[str, int] | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Answer:
        """C-STORE the encoded dataset; returns what the peer answers."""
        wire = self._wire
        if wire is None:
            raise Refusal(Reason.UNAVAILABLE, "association lost")
        context_id = self._accepted[sop_class_uid, transfer_syntax_uid]
        self._message_id = self._message_id % 65535 + 1
        command = _store_request(sop_class_uid, sop_instance_uid, self._message_id, originator)
        try:
            for buffers in pdata.gathered(context_id, command, dataset, self._size):
                wire.write(buffers, self._answer_seconds)
            if meanwhile is not None:
                meanwhile()
            return self._answer(wire)
        except _Lost as error:
            self._abort()
            raise Refusal(Reason.UNAVAILABLE, "association lost while sending") from error
        except BaseException:
            self._abort()
            raise

    def close(self) -> None:
        """Release the association; harmless if it is lost."""
        wire, self._wire = self._wire, None
        if wire is not None:
            with contextlib.suppress(_Lost):
                wire.write([_RELEASE_RQ], RELEASE_SECONDS)
                while wire.read(MAX_ANSWER_BYTES, RELEASE_SECONDS)[0] != _RELEASE_RP:
                    pass
            wire.close()

    def _answer(self, wire: "_Wire") -> Answer:
        deadline = time.monotonic() + self._answer_seconds
        command = bytearray()
        while True:
            kind, body = wire.read(MAX_ANSWER_BYTES, deadline - time.monotonic())
            if kind != _P_DATA:
                raise _Lost  # an abort, or a release in the middle of an operation
            at = 0
            while at < len(body):
                if len(body) - at < _VALUE.size:
                    raise _Lost
                length, _, control = _VALUE.unpack_from(body, at)
                end = at + 4 + length
                if length < 2 or end > len(body) or not control & 1:
                    raise _Lost
                command += body[at + _VALUE.size : end]
                at = end
                if control & 2:
                    return _store_answer(command, self._message_id)
            if len(command) > MAX_ANSWER_BYTES:
                raise _Lost

    def _abort(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            with contextlib.suppress(_Lost):
                wire.write([_ABORT], 1.0)
            wire.close()


class _Wire:
    """A connected socket, read and written within deadlines: _Lost."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        # OpenSSL takes one buffer at a time
        self._gathers = not isinstance(connected, ssl.SSLSocket)
        self._unread = b""

    def write(self, buffers: list[Buffer], seconds: float) -> None:
        """Write all of `buffers`, within `seconds`."""
        deadline = time.monotonic() + seconds
        if not self._gathers:
            buffers = [b"".join(buffers)]
        try:
            while buffers:
                self._limit(deadline)
                count = self._socket.sendmsg(buffers) if self._gathers else self._socket.send(buffers[0])
                buffers = pdata.unwritten(buffers, count)
        except OSError as error:
            raise _Lost from error

    def read(self, max_bytes: int, seconds: float) -> tuple[int, bytes]:
        """(type, body) of the next PDU, whole within `seconds`; its body has at most `max_bytes`."""
        deadline = time.monotonic() + seconds
        kind, length = _PDU.unpack(self._take(_PDU.size, deadline))
        if length > max_bytes:
            raise _Lost
        return kind, self._take(length, deadline)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _take(self, size: int, deadline: float) -> bytes:
        try:
            while len(self._unread) < size:
                self._limit(deadline)
                more = self._socket.recv(MAX_ANSWER_BYTES)
                if not more:
                    raise _Lost
                self._unread += more
        except OSError as error:
            raise _Lost from error
        taken, self._unread = self._unread[:size], self._unread[size:]
        return taken

    def _limit(self, deadline: float) -> None:
        rest = deadline - time.monotonic()
        if rest <= 0:
            raise TimeoutError
        self._socket.settimeout(rest)


# --- Negotiation ---


def _request(calling: str, called: str, contexts: Sequence[tuple[str, str]]) -> bytes:
    """An A-ASSOCIATE-RQ whose context IDs are 1, 3, 5, …; ValueError."""
    proposed = [build_context(class_uid, [syntax]) for class_uid, syntax in contexts]
    for index, context in enumerate(proposed):
        context.context_id = 2 * index + 1
    length = MaximumLengthNotification()
    length.maximum_length_received = MAX_ANSWER_BYTES
    uid = ImplementationClassUIDNotification()
    uid.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID("1.2.840.10008.3.1.1.1")
    primitive.calling_ae_title = calling
    primitive.called_ae_title = called
    primitive.presentation_context_definition_list = proposed
    primitive.user_information = [length, uid, version]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return pdu.encode()


def _accepted(body: bytes, contexts: Sequence[tuple[str, str]]) -> tuple[dict[tuple[str, str], int], int]:
    """(context IDs of the pairs that an A-ASSOCIATE-AC accepts, the peer's maximum length); ValueError."""
    pdu = A_ASSOCIATE_AC()
    try:
        pdu.decode(_PDU.pack(_ASSOCIATE_AC, len(body)) + body)
        results = {item.context_id: item for item in pdu.presentation_context}
        accepted = {}
        for index, pair in enumerate(contexts):
            item = results.get(2 * index + 1)
            if item is not None and item.result == 0 and str(item.transfer_syntax) == pair[1]:
                accepted[pair] = 2 * index + 1
        user = pdu.user_information
        return accepted, int(user.maximum_length or 0) if user is not None else 0
    except Exception as error:  # pynetdicom's decoders raise what they come across
        raise ValueError("malformed A-ASSOCIATE-AC") from error


# --- Commands (PS3.7 section 9.3.1) ---


def _store_request(
    class_uid: str, instance_uid: str, message_id: int, originator: tuple[str, int] | None
) -> bytes:
    number = partial(struct.pack, "<H")
    elements = [
        _element(0x0002, class_uid.encode("ascii"), b"\0"),
        _element(0x0100, number(_STORE_RQ)),
        _element(0x0110, number(message_id)),
        _element(0x0700, number(0)),  # medium priority
        _element(0x0800, number(1)),  # a dataset follows
        _element(0x1000, instance_uid.encode("ascii"), b"\0"),
    ]
    if originator is not None:
        elements += [
            _element(0x1030, originator[0].encode("ascii", "replace"), b" "),
            _element(0x1031, number(originator[1])),
        ]
    body = b"".join(elements)
    return _element(0x0000, struct.pack("<I", len(body))) + body


def _element(element: int, value: bytes, padding: bytes = b"") -> bytes:
    if len(value) % 2:
        value += padding
    return _ELEMENT.pack(0, element, len(value)) + value


def _store_answer(command: bytearray, message_id: int) -> Answer:
    """What a C-STORE-RSP says; _Lost if it is none, or answers another request."""
    values: dict[int, bytes] = {}
    at = 0
    while at + _ELEMENT.size <= len(command):
        group, element, length = _ELEMENT.unpack_from(command, at)
        at += _ELEMENT.size
        if group or length > len(command) - at:
            raise _Lost
        values[element] = bytes(command[at : at + length])
        at += length
    field, answered, status = (
        int.from_bytes(values.get(element, b"")[:2], "little") if values.get(element) else -1
        for element in (0x0100, 0x0120, 0x0900)
    )
    if field != _STORE_RSP or answered != message_id or status < 0:
        raise _Lost
    comment = values.get(0x0902, b"").decode("latin-1")
    return Answer(status, "".join(filter(str.isprintable, comment)).strip()[:64])
