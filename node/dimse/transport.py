"""Below pynetdicom: a socket with deadlines, and an upper layer that reads no more than was negotiated.

pynetdicom runs two threads for an association: its upper layer (`UpperLayer`, the state machine of PS3.8)
reads, its reactor (`node.dimse.association`) serves. What is changed here:

- A PDU's length is checked before its body is read, into one buffer that is used again and again.
- Data go by no queue: what is read is handed on at once (so a slow store slows the sender down, by TCP),
  what is sent is written by the thread that has it (so a slow receiver slows the reading down).
- Nobody polls: both threads sleep until there is something to do.
- The socket never blocks by itself; waiting is done in `poll`, outside of the lock that keeps the two
  threads apart (an OpenSSL connection must not be read and written at the same time).
"""

import os
import queue
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import A_P_ABORT
from pynetdicom.transport import AssociationSocket

from node.dimse import pdu
from node.dimse.pdu import Broken
from node.domain import pdata
from node.domain.pdata import Buffer

SLICE_SECONDS = 0.25  # how long one wait lasts before conditions are looked at again
DISCARD_BYTES = 64 << 10


class ConnectionLost(Exception):
    """The peer cannot be reached any more, or does not take what is sent."""


class Connection(AssociationSocket):
    """A connected socket; `first` are bytes that were read from it already."""

    def __init__(self, assoc: Association, client: socket.socket, first: bytes, send_seconds: float) -> None:
        super().__init__(assoc, client_socket=client)
        client.setblocking(False)
        self._client = client
        self._first = memoryview(first)
        self._send_seconds = send_seconds
        self._io = threading.Lock()
        self._sending = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(client.fileno(), select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)

    def wake(self) -> None:
        """Let a waiting `ready` return."""
        os.eventfd_write(self._wake, 1)

    @property
    def ready(self) -> bool:
        """Whether there is something to read, now or within SLICE_SECONDS; `wake` ends the wait."""
        if self.socket is None or not self._is_connected:
            return False
        if not self.event_queue.empty():
            return False  # it is due before anything else is read: its state decides what that means
        if self._first or (isinstance(self._client, ssl.SSLSocket) and self._client.pending()):
            return True
        ready = False
        for descriptor, _ in self._poll.poll(SLICE_SECONDS * 1000):
            if descriptor == self._wake:
                os.eventfd_read(self._wake)
            else:
                ready = True
        return ready

    def read(self, view: memoryview, deadline: float) -> None:
        """Fill `view`. EOFError if the peer is gone, TimeoutError at `deadline` (monotonic), OSError."""
        while view:
            if self._first:
                count = min(len(view), len(self._first))
                view[:count] = self._first[:count]
                self._first = self._first[count:]
            else:
                count = self._try(partial(self._client.recv_into, view), select.POLLIN, deadline)
                if count == 0:
                    raise EOFError
            view = view[count:]

    def discard(self) -> bool:
        """Read and forget what has come; False once the peer has closed."""
        self._first = memoryview(b"")
        try:
            with self._io:
                return bool(self._client.recv(DISCARD_BYTES))
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
        except OSError:
            return False

    def send_all(self, buffers: list[Buffer]) -> None:
        """Send whole PDUs, never mixed with another thread's; ConnectionLost."""
        deadline = time.monotonic() + self._send_seconds
        secure = isinstance(self._client, ssl.SSLSocket)
        if secure:
            buffers = [b"".join(buffers)]  # OpenSSL takes one buffer at a time
        try:
            with self._sending:
                while buffers:
                    write = (
                        partial(self._client.send, buffers[0])
                        if secure
                        else partial(self._client.sendmsg, buffers)
                    )
                    buffers = pdata.unwritten(buffers, self._try(write, select.POLLOUT, deadline))
        except OSError as error:  # a TimeoutError is one
            self.hang_up()
            raise ConnectionLost from error

    def send(self, bytestream: bytes) -> None:
        """Send for pynetdicom's state machine."""
        try:
            self.send_all([bytestream])
        except ConnectionLost:
            self.event_queue.put("Evt17")

    def hang_up(self) -> None:
        """End the connection both ways; the descriptor stays until `release`."""
        try:
            self._client.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is gone already

    def release(self) -> None:
        """Close the descriptors; nobody uses this object afterwards."""
        self._client.close()
        os.close(self._wake)

    def _shutdown_socket(self) -> None:
        self.hang_up()

    def _try(self, operation: Callable[[], int], event: int, deadline: float) -> int:
        while True:
            try:
                with self._io:
                    return operation()
            except (BlockingIOError, ssl.SSLWantReadError):
                wanted = event if not isinstance(self._client, ssl.SSLSocket) else select.POLLIN
            except ssl.SSLWantWriteError:
                wanted = select.POLLOUT
            rest = deadline - time.monotonic()
            if rest <= 0:
                raise TimeoutError
            waiting = select.poll()
            waiting.register(self._client.fileno(), wanted)
            waiting.poll(min(rest, SLICE_SECONDS) * 1000)


class _Indications(queue.Queue[Any]):
    """Primitives for the service user, who is told that one has come."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self._tell = tell

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._tell()


class UpperLayer(DULServiceProvider):
    """pynetdicom's upper layer with bounded, unqueued reading.

    `receive(fragments)` takes what P-DATA-TF PDUs bring and may raise Broken; `told` is called whenever
    there is news for the service user; `unfinished()` says whether a message has begun and not ended;
    `broken` is told how a peer breaks the protocol.
    """

    def __init__(
        self,
        assoc: Association,
        *,
        max_pdu_bytes: int,
        message_seconds: float,
        receive: Callable[[list[pdu.Fragment]], None],
        told: Callable[[], None],
        unfinished: Callable[[], bool],
        broken: Callable[[Broken], None],
    ) -> None:
        super().__init__(assoc)
        self.to_user_queue = _Indications(told)
        self.heard_at = time.monotonic()
        self.connection: Connection
        self._run_loop_delay = 0  # `Connection.ready` does the waiting
        self._buffer = bytearray(max_pdu_bytes)
        self._message_seconds = message_seconds
        self._receive = receive
        self._unfinished = unfinished
        self._broken = broken
        self._deadline: float | None = None  # of the message that is being received

    def attach(self, connection: Connection) -> None:
        """The connection to work on."""
        self.connection = self.socket = connection

    @property
    def overdue(self) -> bool:
        """Whether a message has not come to its end in the time it has."""
        deadline = self._deadline
        return deadline is not None and time.monotonic() > deadline

    def send_pdu(self, primitive: Any) -> None:
        """Hand a primitive to the state machine."""
        super().send_pdu(primitive)
        self.connection.wake()

    def break_off(self, reason: int) -> None:
        """A-ABORT by the provider, both to the peer and to the reactor."""
        primitive = A_P_ABORT()
        primitive.provider_reason = reason
        self.to_provider_queue.put(primitive)
        self.to_user_queue.put(primitive)
        self.connection.wake()

    def _process_recv_primitive(self) -> bool:
        if self.state_machine.current_state in ("Sta1", "Sta13"):
            # The association is over: what else was to be sent (a second abort) has no event there
            while not self.to_provider_queue.empty():
                self.to_provider_queue.get()
            return False
        return super()._process_recv_primitive()

    def _read_pdu_data(self) -> None:
        if self.state_machine.current_state == "Sta13":  # waiting for the peer to close
            if not self.connection.discard():
                self.event_queue.put("Evt17")
            return
        if self._deadline is None:
            self._deadline = time.monotonic() + self._message_seconds
        try:
            self._read_one(self._deadline)
        except Broken as broken:
            self._broken(broken)
            self.break_off(broken.reason)
        except TimeoutError:
            self.break_off(pdu.NOT_SPECIFIED)
        except (EOFError, OSError):
            self.event_queue.put("Evt17")
        self.heard_at = time.monotonic()
        if not self._unfinished():
            self._deadline = None

    def _read_one(self, deadline: float) -> None:
        header = bytearray(pdu.HEADER_BYTES)
        self.connection.read(memoryview(header), deadline)
        kind, length = pdu.read_header(header)
        state = self.state_machine.current_state
        if state in ("Sta1", "Sta2"):  # the request: the gate has checked it
            body = memoryview(bytearray(length))
        elif not pdu.ASSOCIATE_RQ <= kind <= pdu.ABORT:
            raise Broken(pdu.UNRECOGNIZED_PDU, "unknown PDU type")
        elif length > len(self._buffer) or (
            kind in (pdu.RELEASE_RQ, pdu.RELEASE_RP, pdu.ABORT) and length != 4
        ):
            raise Broken(pdu.INVALID_VALUE, "PDU length out of range")
        elif kind in (pdu.ASSOCIATE_RQ, pdu.ASSOCIATE_AC, pdu.ASSOCIATE_RJ):
            raise Broken(pdu.UNEXPECTED_PDU, "no negotiation after the association's begin")
        else:
            body = memoryview(self._buffer)[:length]
        self.connection.read(body, deadline)
        if kind == pdu.P_DATA:
            if state not in ("Sta6", "Sta7"):
                raise Broken(pdu.UNEXPECTED_PDU, "data before the association or after its release")
            self._receive(pdu.fragments(body))
            return
        decoded, event = self._decode_pdu(header + body)
        self._recv_pdu.put(decoded)
        self.event_queue.put(event)
