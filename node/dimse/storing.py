"""Associations of peers that only store: the way that bytes of C-STORE take, and nothing else.

Modalities and routers propose storage SOP classes and Verification. Such an association is negotiated and
served here, in one thread and without pynetdicom, whose receive path (a queue, an object for each value, two
threads, polling) costs several times what storing an instance does. `suits` decides, from the request alone:
an association that proposes a query/retrieve SOP class, or asks for extended negotiation (roles,
asynchronous operations, SOP class or user identity items), is pynetdicom's from its first byte on
(`node.dimse.association`). Nothing is handed over later.

States (PS3.8 section 9.2), and what may be received in each:

    Sta2, Sta3  the gate has read the A-ASSOCIATE-RQ; the constructor negotiates, `serve` answers
    Sta6        P-DATA-TF, A-RELEASE-RQ, A-ABORT; anything else is answered by A-ABORT
    Sta7        release asked for by us, since this process stops: what still comes is thrown away
    Sta13       answered for the last time: waiting for the peer to close, at most FAREWELL_SECONDS

Bytes come into one buffer of BUFFER_BYTES, whatever the size of PDUs. What is of the dataset is moved
together in place, without the headers between, and handed to the intake once for each time the socket is
read: for a PDU of any size the work is two small headers and a memory move, and memory is bounded by the
buffer. Limits: a PDU's length as negotiated, a command's length, one deadline from the first to the last
byte of a message, and one for the silence between messages.
"""

import contextlib
import select
import socket
import ssl
import threading
import time

import structlog

from node.dimse import command as commands
from node.dimse import contexts, pdu, store
from node.dimse.association import RELEASE_SECONDS, Edge, audit_refusal, tell_broken
from node.dimse.gate import Caller, farewell
from node.dimse.messages import Message
from node.dimse.pdu import Answer, Broken, Request
from node.dimse.status import UNRECOGNIZED_OPERATION
from node.dimse.transport import SLICE_SECONDS, ConnectionLost
from node.domain import pdata
from node.domain.model import Actor, Role
from node.domain.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

BUFFER_BYTES = 256 << 10

# Negotiated here: maximum length, implementation class and version; the common extended negotiation
# of related SOP classes asks for no answer (PS3.7 section D.3.3.6).
_COMMON_EXTENDED_ITEM = 0x57
_PLAIN_ITEMS = frozenset(
    {
        pdu.MAXIMUM_LENGTH_ITEM,
        pdu.IMPLEMENTATION_CLASS_ITEM,
        pdu.IMPLEMENTATION_VERSION_ITEM,
        _COMMON_EXTENDED_ITEM,
    }
)
# Results of a presentation context (PS3.8 table 9-18)
_ACCEPTED, _NO_ABSTRACT_SYNTAX, _NO_TRANSFER_SYNTAX = 0, 3, 4

log = structlog.get_logger()


class _Over(Exception):
    """The association has come to its regular end."""


def suits(request: Request) -> bool:
    """Whether the association can be served here."""
    return request.user_items <= _PLAIN_ITEMS and not any(
        proposal.abstract_syntax in contexts.MODELS for proposal in request.proposals
    )


class Storing:
    """An association with `caller`, who was let in by the gate and whose request `suits`."""

    def __init__(self, edge: Edge, caller: Caller) -> None:
        self.edge = edge
        self.caller = caller
        self.actor = Actor(caller.request.calling, caller.address, "dimse", Role.TECHNOLOGIST)
        self.over = threading.Event()
        self._socket = caller.socket
        self._accepted: dict[int, tuple[str, str]] = {}
        self._answers = self._negotiate()
        self._max_pdu_bytes = edge.settings.dicom.max_pdu_bytes
        self._message_seconds = edge.settings.dicom.message_seconds
        self._value_bytes = pdata.value_bytes(caller.request.max_length)
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        # In the buffer: [0, gathered) of the dataset, [start, end) not looked at yet; gathered <= start.
        self._gathered = 0
        self._start = 0
        self._end = 0
        self._command = bytearray()
        self._command_context = 0
        self._message: Message | None = None  # whose dataset is being received
        self._deadline: float | None = None  # of the message that is being received
        self._heard_at = time.monotonic()
        self._cut = threading.Event()

    # --- for the services ---

    def syntax(self, context_id: int) -> str:
        """The transfer syntax that a context was accepted with."""
        return self._accepted[context_id][1]

    def abstract_syntax(self, context_id: int) -> str:
        """The SOP class that a context was accepted for."""
        return self._accepted[context_id][0]

    def reply(self, message: Message, status: int, comment: str = "") -> None:
        """Answer a request. ConnectionLost."""
        answer = commands.encode(commands.response(message.command, status, comment))
        for buffers in pdata.gathered(message.context_id, answer, None, self._value_bytes):
            self._send(b"".join(buffers))

    def audit_refusal(self, action: str, error: Exception) -> None:
        """Leave an audit event of a request that was refused before any service could."""
        audit_refusal(self.edge, self.actor, action, error)

    # --- life ---

    def serve(self) -> None:
        """Serve until the association ends; returns when nothing of it is left."""
        try:
            self._socket.settimeout(SLICE_SECONDS)
            self._send(self._acceptance())
            self._receive()
        except _Over:
            pass
        except Broken as broken:
            tell_broken(self.caller, broken)
            farewell(self._socket, pdu.abort(broken.reason))
        except (ConnectionLost, EOFError, OSError):
            pass  # the peer is gone; what it had begun is dropped
        except Exception:
            farewell(self._socket, pdu.abort(pdu.NOT_SPECIFIED))  # a fault of ours is no reason for silence
            raise
        finally:
            try:
                if self._message is not None:
                    self._message.drop()
            finally:
                self.over.set()

    def hang_up(self) -> None:
        """End it now, from any thread: what is under way is lost."""
        self._cut.set()
        if not self.over.wait(2 * SLICE_SECONDS):
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _negotiate(self) -> list[Answer]:
        answers = []
        for proposal in self.caller.request.proposals:
            ours = self.edge.contexts.get(proposal.abstract_syntax)
            known = ours.transfer_syntax if ours is not None else ()
            chosen = next((uid for uid in proposal.transfer_syntaxes if uid in known), None)
            if chosen is not None:
                self._accepted[proposal.context_id] = (proposal.abstract_syntax, chosen)
            result = _ACCEPTED if chosen else _NO_ABSTRACT_SYNTAX if ours is None else _NO_TRANSFER_SYNTAX
            answers.append(Answer(proposal.context_id, result, chosen or proposal.transfer_syntaxes[0]))
        return answers

    def _acceptance(self) -> bytes:
        return pdu.acceptance(
            self.caller.request,
            self._answers,
            max_pdu_bytes=self._max_pdu_bytes,
            implementation_class_uid=IMPLEMENTATION_CLASS_UID,
            implementation_version_name=IMPLEMENTATION_VERSION_NAME,
        )

    # --- PDUs ---

    def _receive(self) -> None:
        """Sta6: one PDU after the other, until _Over, Broken, ConnectionLost, EOFError or OSError."""
        while True:
            if not self._unfinished:
                # What has come already of the next message will not be read again, to start its time
                is_empty = self._start == self._end
                self._deadline = None if is_empty else time.monotonic() + self._message_seconds
                if self.edge.stopping.is_set() and not self._is_waiting():
                    self._leave()
            kind, length = self._header()
            if kind == pdu.P_DATA:
                self._data(length)
            elif kind == pdu.RELEASE_RQ:
                self._body(length)
                farewell(self._socket, pdu.release(pdu.RELEASE_RP))
                raise _Over
            elif kind == pdu.ABORT:
                raise _Over
            else:
                raise Broken(pdu.UNEXPECTED_PDU, "not expected in an association")

    def _leave(self) -> None:
        """Sta7: ask for the release and throw away what comes until it is answered. Always raises."""
        self._deadline = time.monotonic() + RELEASE_SECONDS
        self._send(pdu.release(pdu.RELEASE_RQ))
        asked_too = False
        while True:
            kind, length = self._header()
            if kind < pdu.P_DATA:
                raise Broken(pdu.UNEXPECTED_PDU, "no negotiation after the association's begin")
            self._body(length)
            if kind == pdu.RELEASE_RQ:
                asked_too = True  # the requestor answers first (PS3.8 section 7.2.2.6)
            elif kind == pdu.RELEASE_RP and asked_too:
                farewell(self._socket, pdu.release(pdu.RELEASE_RP))
            if kind in (pdu.RELEASE_RP, pdu.ABORT):
                raise _Over

    def _header(self) -> tuple[int, int]:
        """(type, length) of the next PDU, checked."""
        self._need(pdu.HEADER_BYTES)
        kind, length = pdu.read_header(self._buffer[self._start : self._start + pdu.HEADER_BYTES])
        self._start += pdu.HEADER_BYTES
        if not pdu.ASSOCIATE_RQ <= kind <= pdu.ABORT:
            raise Broken(pdu.UNRECOGNIZED_PDU, "unknown PDU type")
        if kind == pdu.P_DATA:
            if not 0 < length <= self._max_pdu_bytes:
                raise Broken(pdu.INVALID_VALUE, "PDU length out of range")
        elif kind in (pdu.RELEASE_RQ, pdu.RELEASE_RP, pdu.ABORT) and length != 4:
            raise Broken(pdu.INVALID_VALUE, "PDU length out of range")
        return kind, length

    def _body(self, length: int) -> None:
        """Throw away `length` bytes."""
        while length:
            self._need(1)
            count = min(length, self._end - self._start)
            self._start += count
            length -= count

    def _data(self, left: int) -> None:
        """A P-DATA-TF of `left` bytes, value by value (PS3.8 section 9.3.5)."""
        while left:
            if left < pdu.VALUE.size:
                raise Broken(pdu.INVALID_VALUE, "P-DATA-TF ends inside an item")
            self._need(pdu.VALUE.size)
            length, context_id, control = pdu.VALUE.unpack_from(self._buffer, self._start)
            self._start += pdu.VALUE.size
            left -= length + 4
            if length < 2 or left < 0:
                raise Broken(pdu.INVALID_VALUE, "an item longer than its P-DATA-TF")
            if context_id not in self._accepted:
                raise Broken(pdu.INVALID_VALUE, "a presentation context that was not accepted")
            if control & 1:
                self._take_command(context_id, length - 2, is_last=bool(control & 2))
            else:
                self._take_dataset(context_id, length - 2, is_last=bool(control & 2))

    # --- messages ---

    @property
    def _unfinished(self) -> bool:
        return bool(self._command) or self._message is not None

    def _take_command(self, context_id: int, length: int, *, is_last: bool) -> None:
        if self._message is not None:
            raise Broken(pdu.UNEXPECTED_PARAMETER, "a command in the middle of a dataset")
        if self._command and context_id != self._command_context:
            raise Broken(pdu.UNEXPECTED_PARAMETER, "a message on two presentation contexts")
        if len(self._command) + length > commands.MAX_COMMAND_BYTES:
            raise Broken(pdu.INVALID_VALUE, "command set too long")
        self._command_context = context_id
        self._need(length)
        self._command += self._buffer[self._start : self._start + length]
        self._start += length
        if not is_last:
            return
        command = commands.decode(self._command)
        self._command.clear()
        if command.field == commands.C_CANCEL_RQ:
            return  # of nothing that could be cancelled
        message = Message(context_id, command)
        if command.field == commands.C_STORE_RQ:
            store.begin(self, message)
        self._message = message
        if not command.has_dataset:
            self._complete(message)

    def _take_dataset(self, context_id: int, length: int, *, is_last: bool) -> None:
        message = self._message
        if message is None or self._command:
            raise Broken(pdu.UNEXPECTED_PARAMETER, "a dataset without a command")
        if context_id != message.context_id:
            raise Broken(pdu.UNEXPECTED_PARAMETER, "a message on two presentation contexts")
        while length:
            if self._start == self._end:
                self._need(1)
            count = min(length, self._end - self._start)
            place, start = self._gathered, self._start
            if place != start:
                self._buffer[place : place + count] = self._buffer[start : start + count]
            self._gathered += count
            self._start += count
            length -= count
        if is_last:
            self._hand_on()
            self._complete(message)

    def _hand_on(self) -> None:
        """Give what is gathered of the dataset to its intake; what nobody stores is not kept."""
        if self._gathered and self._message is not None and self._message.intake is not None:
            self._message.take(self._buffer[: self._gathered])
        self._gathered = 0

    def _complete(self, message: Message) -> None:
        """Serve a message, which may take long: the peer's time for the next one begins afterwards."""
        self._serve(message)
        self._message = None
        self._heard_at = time.monotonic()
        self._deadline = self._heard_at + self._message_seconds

    def _serve(self, message: Message) -> None:
        field = message.command.field
        if field == commands.C_STORE_RQ:
            store.store(self, message)
        elif field == commands.C_ECHO_RQ:
            store.echo(self, message)
        elif not message.command.is_response:
            self.reply(message, UNRECOGNIZED_OPERATION)

    # --- bytes ---

    def _need(self, size: int) -> None:
        """Read until `size` bytes are there that were not looked at."""
        while self._end - self._start < size:
            self._hand_on()
            rest = self._end - self._start
            if rest:
                self._buffer[:rest] = self._buffer[self._start : self._end]
            self._start, self._end = 0, rest
            self._end += self._read(self._buffer[rest:])

    def _is_waiting(self) -> bool:
        """Whether something has come that was not looked at: it was sent before anybody knew of a stop."""
        if self._start < self._end or (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()):
            return True
        arrived = select.poll()
        arrived.register(self._socket, select.POLLIN)
        return bool(arrived.poll(0))

    def _read(self, view: memoryview) -> int:
        while True:
            count: int | None = None
            with contextlib.suppress(TimeoutError):
                count = self._socket.recv_into(view)
            now = time.monotonic()
            if self._cut.is_set() or (self._deadline is not None and now > self._deadline):
                raise Broken(pdu.NOT_SPECIFIED, "not in time")
            if count:
                self._heard_at = now
                if self._deadline is None:
                    self._deadline = now + self._message_seconds
                return count
            if count == 0:
                raise EOFError
            if self._deadline is None:
                self._rest(now)

    def _rest(self, now: float) -> None:
        """Between two messages, after a slice of silence."""
        if self.edge.stopping.is_set():
            self._leave()
        if now - self._heard_at > self.edge.settings.dicom.idle_seconds:
            raise Broken(pdu.NOT_SPECIFIED, "idle too long")

    def _send(self, data: bytes) -> None:
        deadline = time.monotonic() + self._message_seconds
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except TimeoutError:
                if self._cut.is_set() or time.monotonic() > deadline:
                    raise ConnectionLost from None
            except OSError as error:
                raise ConnectionLost from error
