"""DIMSE messages on an association (PS3.7 section 6.3, annex F): fragments in, commands and datasets out.

Replaces pynetdicom's DIMSE provider. A dataset is never gathered whole, unless it is an identifier (which
is small, and limited): a C-STORE's goes to the archive's intake fragment by fragment as it is read.
"""

import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider

from node.dimse import command as commands
from node.dimse import pdu
from node.dimse.command import Command
from node.dimse.pdu import Broken, Fragment
from node.domain import pdata
from node.domain.errors import Reason, Refusal
from node.domain.pdata import Buffer
from node.services.ingest import Intake

MAX_IDENTIFIER_BYTES = 1 << 20
MAX_WAITING = 4  # complete messages that wait to be served; the next one is not read until then
MAX_CANCELS = 10


@dataclass
class Message:
    """A received message. `intake` if its dataset is being stored, otherwise `identifier` holds it.

    `error` is what went wrong while it was received; the rest of its dataset was thrown away.
    """

    context_id: int
    command: Command
    identifier: bytearray = field(default_factory=bytearray)
    intake: Intake | None = None
    error: Exception | None = None

    def take(self, data: memoryview) -> None:
        """Dataset bytes; never raises."""
        if self.error is not None:
            return
        try:
            if self.intake is not None:
                self.intake.write(data)
            elif len(self.identifier) + len(data) > MAX_IDENTIFIER_BYTES:
                raise Refusal(Reason.TOO_LARGE, f"identifier over {MAX_IDENTIFIER_BYTES} bytes")
            else:
                self.identifier += data
        except Exception as error:  # noqa: BLE001 - told when the message is served
            self.error = error
            self.drop()

    def drop(self) -> None:
        """Leave nothing behind of what was received."""
        self.identifier.clear()
        if self.intake is not None:
            self.intake.abort()


class Messages(DIMSEServiceProvider):
    """The messages of one association.

    `begin(message)` is called on a C-STORE request's command, before its dataset is read, to give the
    message its intake; `send` writes whole PDUs to the connection and raises ConnectionLost.
    """

    def __init__(
        self,
        assoc: Association,
        begin: Callable[[Message], None],
        send: Callable[[list[Buffer]], None],
        max_peer_pdu_bytes: int,
    ) -> None:
        super().__init__(assoc)
        self._begin = begin
        self._send = send
        self._value_bytes = pdata.value_bytes(max_peer_pdu_bytes)
        self._room = threading.Semaphore(MAX_WAITING)
        self._inbox: queue.Queue[Message | None] = queue.Queue()
        self._command = bytearray()
        self._command_context = 0
        self._current: Message | None = None
        self._cancelled: set[int | None] = set()
        self._closed = threading.Event()

    # --- upper layer's thread ---

    @property
    def unfinished(self) -> bool:
        """Whether a message has begun that is not complete."""
        return bool(self._command) or self._current is not None

    def receive(self, fragments: list[Fragment]) -> None:
        """Take what a P-DATA-TF brought; Broken."""
        for fragment in fragments:
            if fragment.context_id not in self.assoc._accepted_cx:
                raise Broken(pdu.INVALID_VALUE, "a presentation context that was not accepted")
            if fragment.is_command:
                self._receive_command(fragment)
            else:
                self._receive_dataset(fragment)

    def wake(self) -> None:
        """Let a waiting `next` return None."""
        self._inbox.put(None)

    def _receive_command(self, fragment: Fragment) -> None:
        if self._current is not None:
            raise Broken(pdu.UNEXPECTED_PARAMETER, "a command in the middle of a dataset")
        if self._command and fragment.context_id != self._command_context:
            raise Broken(pdu.UNEXPECTED_PARAMETER, "a message on two presentation contexts")
        self._command_context = fragment.context_id
        self._command += fragment.data
        if len(self._command) > commands.MAX_COMMAND_BYTES:
            raise Broken(pdu.INVALID_VALUE, "command set too long")
        if not fragment.is_last:
            return
        command = commands.decode(self._command)
        self._command.clear()
        if command.field == commands.C_CANCEL_RQ:
            if len(self._cancelled) >= MAX_CANCELS:
                self._cancelled.clear()  # they came too late for what they meant
            self._cancelled.add(command.responded_id)
            return
        self._cancelled.discard(command.message_id)  # a cancel that came before means another operation
        message = Message(fragment.context_id, command)
        if command.field == commands.C_STORE_RQ:
            self._begin(message)
        if command.has_dataset:
            self._current = message
        else:
            self._complete(message)

    def _receive_dataset(self, fragment: Fragment) -> None:
        message = self._current
        if message is None or self._command:
            raise Broken(pdu.UNEXPECTED_PARAMETER, "a dataset without a command")
        if fragment.context_id != message.context_id:
            raise Broken(pdu.UNEXPECTED_PARAMETER, "a message on two presentation contexts")
        message.take(fragment.data)
        if fragment.is_last:
            self._complete(message)
            self._current = None

    def _complete(self, message: Message) -> None:
        while not self._room.acquire(timeout=1):
            if self._closed.is_set():
                message.drop()
                return
        self._inbox.put(message)

    # --- reactor's thread ---

    def next(self, seconds: float) -> Message | None:
        """The next complete message; None when `seconds` have passed or there is other news."""
        try:
            message = self._inbox.get(timeout=seconds)
        except queue.Empty:
            return None
        if message is not None:
            self._room.release()
        return message

    @property
    def idle(self) -> bool:
        """Whether nothing is under way and nothing waits."""
        return not self.unfinished and self._inbox.empty()

    def cancelled(self, message_id: int | None) -> bool:
        """Whether the peer has asked to cancel that operation."""
        return message_id in self._cancelled

    def send(self, context_id: int, command: Command, dataset: Iterable[bytes] = ()) -> None:
        """Send a message; `command.dataset_type` says whether a dataset follows, whose encoded bytes
        come in pieces of any size. ConnectionLost."""
        pieces = dataset if command.has_dataset else None
        for buffers in pdata.gathered(context_id, commands.encode(command), pieces, self._value_bytes):
            self._send(buffers)

    def close(self) -> None:
        """The association is over and its upper layer has ended: drop what was not served."""
        self._closed.set()
        for message in (self._current, *iter_queue(self._inbox)):
            if message is not None:
                message.drop()
        self._current = None


def iter_queue(inbox: "queue.Queue[Message | None]") -> Iterable[Message | None]:
    """What is in the queue now."""
    while True:
        try:
            yield inbox.get_nowait()
        except queue.Empty:
            return
