"""One association, as its acceptor: pynetdicom negotiates and keeps the state machine of PS3.8; what is
received is served here, one message after the other.

Two threads work on it: the connection's own thread (this reactor, which runs the services) and the upper
layer's (`node.dimse.transport`, which reads). Messages go from the second to the first.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import structlog
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation

from node import metrics
from node.config import Settings
from node.dimse import command as commands
from node.dimse import contexts, pdu, store
from node.dimse.command import Command
from node.dimse.gate import Caller
from node.dimse.limits import Rates
from node.dimse.messages import Message, Messages
from node.dimse.transport import SLICE_SECONDS, Connection, ConnectionLost, UpperLayer
from node.domain.errors import Reason, Refusal
from node.domain.model import Actor, AuditEvent, Role
from node.domain.part10 import IMPLEMENTATION_VERSION_NAME
from node.domain.pdata import Buffer
from node.services.archive import Archive
from node.services.deliver import Progress

RELEASE_SECONDS = 5.0  # for the peer to answer a release, or to close after an abort

log = structlog.get_logger()

_UNFINISHED = (0xFF00, 0xFE00)  # only these tell what remains (PS3.4 sections C.4.2.3, C.4.3.3)

Serve = Callable[["Served", Message], None]


@dataclass(frozen=True)
class Edge:
    """What all associations of a process share. `services` by command field."""

    settings: Settings
    archive: Archive
    ae: AE
    contexts: dict[str, PresentationContext]
    services: dict[int, Serve]
    rates: Rates
    stopping: threading.Event


def check_decodable(caller: Caller) -> None:
    """Broken if pynetdicom cannot make anything of the request: the gate looks at what it needs only."""
    try:
        request = A_ASSOCIATE_RQ()
        request.decode(caller.first_pdu())
        request.to_primitive()
    except Exception as error:
        raise pdu.Broken(pdu.INVALID_VALUE, "A-ASSOCIATE-RQ with a malformed item") from error


def audit_refusal(edge: Edge, actor: Actor, action: str, error: Exception) -> None:
    """Leave an audit event of a request that was refused before any service could."""
    if not isinstance(error, Refusal):
        return
    event = AuditEvent(action, actor, error.reason.value, detail={"comment": error.comment})
    try:
        edge.archive.catalog.audits.record(event)
    except Refusal as refusal:
        log.warning("refusal not audited", reason=refusal.reason.value)


def tell_broken(caller: Caller, broken: pdu.Broken) -> None:
    """Leave a trace of a peer that broke the protocol after the gate; those that were too slow did not."""
    if broken.reason != pdu.NOT_SPECIFIED:
        metrics.REFUSALS.labels("dimse", Reason.NOT_UNDERSTOOD.value).inc()
        log.warning("association broken", comment=str(broken), address=caller.address)


class Served(Association):
    """An association with `caller`, who was let in by the gate."""

    def __init__(self, edge: Edge, caller: Caller) -> None:
        super().__init__(edge.ae, "acceptor")
        self.edge = edge
        self.caller = caller
        self.agreed: dict[str, contexts.Agreed] = {}
        self.over = threading.Event()
        self._next_message_id = 1
        dicom = edge.settings.dicom
        self.messages = Messages(self, self._begin, self._send, caller.request.max_length)
        self.dimse = self.messages
        self.upper = UpperLayer(
            self,
            max_pdu_bytes=dicom.max_pdu_bytes,
            message_seconds=dicom.message_seconds,
            receive=self.messages.receive,
            told=self.messages.wake,
            unfinished=lambda: self.messages.unfinished,
            broken=partial(tell_broken, caller),
        )
        self.dul = self.upper
        self.acse_timeout = RELEASE_SECONDS
        self.network_timeout = None  # the reactor below watches over silence
        self.connection = Connection(self, caller.socket, caller.first_pdu(), dicom.message_seconds)
        self.upper.attach(self.connection)
        self.acceptor.maximum_length = dicom.max_pdu_bytes
        self.acceptor.ae_title = edge.settings.ae_title
        self.acceptor.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self.acceptor.address_info = AddressInformation("127.0.0.1", dicom.port)
        self.acceptor.supported_contexts = list(edge.contexts.values())
        self.requestor.address_info = AddressInformation(caller.address, 0)
        self.bind(evt.EVT_REQUESTED, self._requested)
        self.bind(evt.EVT_SOP_EXTENDED, self._extended)

    # --- for the services ---

    @property
    def actor(self) -> Actor:
        """The peer, for policy and audit."""
        return Actor(self.caller.request.calling, self.caller.address, "dimse", Role.TECHNOLOGIST)

    def syntax(self, context_id: int) -> str:
        """The transfer syntax that a context was accepted with."""
        return str(self._accepted_cx[context_id].transfer_syntax[0])

    def abstract_syntax(self, context_id: int) -> str:
        """The SOP class that a context was accepted for."""
        return str(self._accepted_cx[context_id].abstract_syntax)

    def storable(self) -> dict[tuple[str, str], int]:
        """Context IDs by (SOP class, transfer syntax) on which the peer takes instances (C-GET)."""
        classes = self.edge.contexts
        return {
            (str(context.abstract_syntax), str(context.transfer_syntax[0])): number
            for number, context in self._accepted_cx.items()
            if context.as_scu and classes[str(context.abstract_syntax)].scu_role
        }

    def reply(
        self,
        message: Message,
        status: int,
        comment: str = "",
        dataset: bytes | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Answer a request, with the counts of its sub-operations if it has some. ConnectionLost."""
        request = message.command
        answer = commands.response(request, status, comment, has_dataset=dataset is not None)
        if progress is not None:
            answer = replace(
                answer,
                remaining=_short(progress.remaining) if status in _UNFINISHED else None,
                completed=_short(progress.completed),
                failed=_short(progress.failed),
                warnings=_short(progress.warnings),
            )
        self.messages.send(message.context_id, answer, (dataset,) if dataset is not None else ())

    def store_at_peer(
        self,
        context_id: int,
        class_uid: str,
        instance_uid: str,
        dataset: Iterable[bytes],
        meanwhile: Callable[[], None],
    ) -> int:
        """A C-STORE sub-operation on this association; returns the peer's status. `meanwhile` is called when
        the dataset has left. ConnectionLost."""
        number = self._next_message_id
        self._next_message_id = number % 65535 + 1
        request = Command(
            commands.C_STORE_RQ,
            class_uid=class_uid,
            message_id=number,
            priority=0,
            dataset_type=0,
            instance_uid=instance_uid,
        )
        self.messages.send(context_id, request, dataset)
        meanwhile()
        deadline = time.monotonic() + self.edge.settings.dicom.message_seconds
        while time.monotonic() < deadline and self.dul.is_alive() and not self.acse.is_aborted():
            answer = self.messages.next(SLICE_SECONDS)
            if answer is None:
                continue
            if answer.command.field != commands.C_STORE_RQ | commands.RESPONSE:
                break  # anything else is out of order here
            if answer.command.responded_id == number and answer.command.status is not None:
                return answer.command.status
        self.upper.break_off(pdu.NOT_SPECIFIED)
        raise ConnectionLost

    def audit_refusal(self, action: str, error: Exception) -> None:
        """Leave an audit event of a request that was refused before any service could."""
        audit_refusal(self.edge, self.actor, action, error)

    # --- life ---

    def serve(self) -> None:
        """Negotiate and serve until the association ends; returns when nothing of it is left."""
        try:
            self.run_reactor()
        finally:
            self.connection.hang_up()
            self.dul.kill_dul()
            if self._started_dul:
                self.dul.join()
            self.messages.close()
            self.connection.release()
            self.over.set()

    def hang_up(self) -> None:
        """End it now, from any thread: what is under way is lost."""
        self.upper.break_off(pdu.NOT_SPECIFIED)
        if not self.over.wait(SLICE_SECONDS):
            with contextlib.suppress(OSError):
                self.connection.hang_up()

    def _send(self, buffers: list[Buffer]) -> None:
        self.connection.send_all(buffers)

    def _begin(self, message: Message) -> None:
        store.begin(self, message)

    def _requested(self, _event: evt.Event) -> None:
        assert self.requestor.primitive is not None  # noqa: S101 - the request has just come
        contexts.narrow(self.requestor.primitive.presentation_context_definition_list, self.edge.contexts)

    def _extended(self, event: evt.Event) -> dict[str, bytes]:
        asked = event.app_info  # type: ignore[attr-defined]  # this kind of event has it
        answers = contexts.answer({str(uid): value for uid, value in asked.items()})
        self.agreed = {uid: contexts.agreed(value) for uid, value in answers.items()}
        return answers

    def _run_reactor(self) -> None:
        idle_since = time.monotonic()
        while not self._kill:
            message = self.messages.next(SLICE_SECONDS)
            if message is not None:
                with contextlib.suppress(ConnectionLost):
                    self._serve(message)
                idle_since = time.monotonic()
            if self._has_ended():
                return
            silent_since = max(idle_since, self.upper.heard_at)
            idle_seconds = self.edge.settings.dicom.idle_seconds
            if self.upper.overdue or (self.messages.idle and time.monotonic() - silent_since > idle_seconds):
                self.abort()
                return
            if self.edge.stopping.is_set() and not self.messages.unfinished:
                self.acse.negotiate_release()
                return

    def _has_ended(self) -> bool:
        if self.messages.idle and self.acse.is_release_requested():
            self.acse.send_release(is_response=True)
            self.is_released = True
            self.is_established = False
            self.kill()
            return True
        if self.acse.is_aborted():
            self.is_aborted = True
            self.is_established = False
            self.kill()
            return True
        if not self.dul.is_alive():
            self.kill()
            return True
        return False

    def _serve(self, message: Message) -> None:
        command = message.command
        if command.is_response:
            return  # to nothing that was asked
        serve = self.edge.services.get(command.field)
        if serve is None:
            self.reply(message, 0x0211)  # unrecognized operation (PS3.7 section C.5.19)
            return
        serve(self, message)


def _short(count: int) -> int:
    return min(count, 0xFFFF)
