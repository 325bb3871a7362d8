"""Listening: one accept loop, and a thread for each connection from its first byte on.

Half-open connections take nothing but a place among `max_pending`; when these are taken, one of whoever
holds most of them makes room for the newcomer. Associations under calling AE titles that are not configured
(where those are taken) are counted by address: changing the title gains no more of them.
Several processes listen on one port by SO_REUSEPORT.
"""

import contextlib
import selectors
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import structlog

from node import metrics
from node.config import Dicom
from node.dimse import pdu, storing
from node.dimse.association import Edge, Served, check_decodable
from node.dimse.gate import LOCAL_LIMIT, Arrival, Caller, Gate, Silent, farewell
from node.dimse.limits import Seats
from node.dimse.pdu import Broken, Rejected
from node.dimse.status import where
from node.dimse.storing import Storing
from node.domain.errors import Reason, Refusal
from node.domain.model import Actor, AuditEvent
from node.services.limits import Sparingly, most_crowding

BACKLOG = 512
OVERLOAD_SECONDS = 0.05  # pause when the process has no descriptors left to accept with
_REASONS = {
    (1, 1, 3): Reason.NOT_ALLOWED,
    (1, 1, 7): Reason.NOT_ALLOWED,
    LOCAL_LIMIT: Reason.TOO_MANY,
    (2, 3, 1): Reason.UNAVAILABLE,
}
log = structlog.get_logger()


class Listener:
    """The DICOM ports of one process. `start`, then `stop`."""

    def __init__(self, edge: Edge, gate: Gate) -> None:
        self._edge = edge
        self._gate = gate
        self._dicom = edge.settings.dicom
        self._seats = Seats(self._dicom.max_associations)
        self._audited = Sparingly()
        self._lock = threading.Lock()
        self._pending: dict[Arrival, None] = {}  # in order of arrival
        self._served: set[Served | Storing] = set()
        self._sockets: list[tuple[socket.socket, ssl.SSLContext | None]] = []
        self._closing = socket.socketpair()
        self._thread = threading.Thread(target=self._accept, name="dicom-accept", daemon=True)

    def start(self) -> None:
        """Begin to listen; OSError if a port is taken by somebody else."""
        dicom = self._dicom
        self._sockets.append((_listening(dicom.host, dicom.port), None))
        if dicom.tls_port:
            self._sockets.append((_listening(dicom.host, dicom.tls_port), tls_context(dicom)))
        self._thread.start()

    def stop(self, deadline_seconds: float) -> None:
        """Accept no more, let associations finish the message in hand and release them; what is still
        there after the deadline is aborted."""
        deadline = time.monotonic() + deadline_seconds
        self._edge.stopping.set()
        self._closing[1].send(b"x")
        self._thread.join()
        with self._lock:
            pending, served = list(self._pending), list(self._served)
        for arrival in pending:
            with contextlib.suppress(OSError):
                arrival.socket.shutdown(socket.SHUT_RDWR)
        for association in served:
            association.over.wait(max(0.0, deadline - time.monotonic()))
        stuck = [association for association in served if not association.over.is_set()]
        if stuck:
            with ThreadPoolExecutor(len(stuck)) as threads:  # all at once: each takes its moment
                for association in stuck:
                    threads.submit(association.hang_up)
        for association in served:
            association.over.wait(5)

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            for listening, context in self._sockets:
                selector.register(listening, selectors.EVENT_READ, context)
            selector.register(self._closing[0], selectors.EVENT_READ)
            while not self._edge.stopping.is_set():
                for key, _ in selector.select():
                    if isinstance(key.fileobj, socket.socket) and key.fileobj is not self._closing[0]:
                        self._accept_one(key.fileobj, key.data)
        for listening, _ in self._sockets:
            listening.close()

    def _accept_one(self, listening: socket.socket, context: ssl.SSLContext | None) -> None:
        try:
            connected, peer = listening.accept()
        except BlockingIOError:
            return  # another process was faster
        except OSError as error:
            log.error("cannot accept", error=error.strerror)
            self._edge.stopping.wait(OVERLOAD_SECONDS)
            return
        arrival = self._gate.arrival(connected, str(peer[0]))
        with self._lock:
            if len(self._pending) >= self._dicom.max_pending:
                self._make_room()
            self._pending[arrival] = None
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        try:
            threading.Thread(target=self._connection, args=(arrival, context), daemon=True).start()
        except RuntimeError:  # no more threads: this connection ends, the listener does not
            log.error("no thread for a connection")
            with self._lock:
                self._pending.pop(arrival, None)
            connected.close()

    def _make_room(self) -> None:
        """End a connection that waits; its own thread notices and closes it. Call with the lock held."""
        out = most_crowding([(each.address, each) for each in self._pending])
        del self._pending[out]
        metrics.REFUSALS.labels("dimse", Reason.TOO_MANY.value).inc()
        with contextlib.suppress(OSError):
            out.socket.shutdown(socket.SHUT_RDWR)

    def _connection(self, arrival: Arrival, context: ssl.SSLContext | None) -> None:
        """A connection's life, in its own thread."""
        metrics.ASSOCIATIONS.labels("pending").inc()
        admitted: tuple[Caller, str] | None = None
        try:
            admitted = self._admit(arrival, context)
        except Exception as error:  # noqa: BLE001 - one connection's fault must not end the others
            log.error("connection failed", **where(error))
        finally:
            metrics.ASSOCIATIONS.labels("pending").dec()
            with self._lock:
                self._pending.pop(arrival, None)
            if admitted is None:
                arrival.socket.close()
        if admitted is not None:
            self._serve(*admitted)

    def _admit(self, arrival: Arrival, context: ssl.SSLContext | None) -> tuple[Caller, str] | None:
        """Who was let in, and under which name it is counted; None if it was not."""
        try:
            caller = self._gate.admit(arrival, context)
            if not storing.suits(caller.request):
                check_decodable(caller)
            own_limit = caller.entity.max_associations or self._dicom.max_associations_per_ae
            title = caller.request.calling
            counted_as = title if self._edge.archive.policy.knows(title) else caller.address
            if not self._seats.enter(counted_as, own_limit):
                raise Rejected(*LOCAL_LIMIT, "too many associations")
        except Silent as silent:
            if silent.reason is not None:
                self._refused(arrival, silent.reason, str(silent))
        except Broken as broken:
            self._refused(arrival, Reason.NOT_UNDERSTOOD, str(broken))
            farewell(arrival.socket, pdu.abort(broken.reason))
        except Rejected as rejected:
            code = (rejected.result, rejected.source, rejected.reason)
            self._refused(arrival, _REASONS.get(code, Reason.NOT_UNDERSTOOD), str(rejected))
            farewell(arrival.socket, pdu.rejection(rejected))
        else:
            return caller, counted_as
        return None

    def _serve(self, caller: Caller, counted_as: str) -> None:
        metrics.ASSOCIATIONS.labels("open").inc()
        try:
            kind = Storing if storing.suits(caller.request) else Served
            association = kind(self._edge, caller)
            with self._lock:
                self._served.add(association)
            try:
                association.serve()
            finally:
                with self._lock:
                    self._served.discard(association)
        except Exception as error:  # noqa: BLE001 - one association's fault must not end the others
            log.error("association failed", **where(error))
        finally:
            caller.socket.close()
            self._seats.leave(counted_as)
            metrics.ASSOCIATIONS.labels("open").dec()

    def _refused(self, arrival: Arrival, reason: Reason, comment: str) -> None:
        metrics.REFUSALS.labels("dimse", reason.value).inc()
        if not self._audited.allows(arrival.address):
            return
        log.warning("association refused", reason=reason.value, comment=comment, address=arrival.address)
        actor = Actor(arrival.calling, arrival.address, "dimse")
        try:
            event = AuditEvent("associate", actor, reason.value, detail={"comment": comment})
            self._edge.archive.catalog.audits.record(event)
        except Refusal as refusal:
            log.warning("refusal not audited", reason=refusal.reason.value)


def tls_context(dicom: Dicom) -> ssl.SSLContext:
    """TLS 1.2 and newer (BCP 195, PS3.15 section B.9); a client certificate if there are CAs for it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(str(dicom.tls_certificate), str(dicom.tls_key))
    if dicom.tls_client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(dicom.tls_client_ca)
    return context


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening
