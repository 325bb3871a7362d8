"""A storage SCP on a plain socket that does what a test tells it to, on the wire."""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from node.dimse import command as commands
from node.dimse import pdu
from node.dimse.command import Command
from tests.integration.dimse_peer import item, p_data

ABORT = struct.pack(">BxIxxBB", 7, 4, 0, 0)


@dataclass
class Received:
    """A C-STORE as it came, with the lengths of its PDUs."""

    command: Command
    dataset: bytes
    pdus: list[int] = field(default_factory=list)


class Gone(Exception):
    """The sender has closed or aborted."""


class Caller:
    """One association that was accepted."""

    def __init__(self, connected: socket.socket, scp: "ScriptedSCP") -> None:
        self.socket = connected
        self.scp = scp
        self.number = len(scp.callers)  # of the association, from 0
        self.proposals: tuple[pdu.Proposal, ...] = ()
        scp.callers.append(self)

    def associate(self) -> None:
        """Accept every proposed context."""
        _, body = self.read_pdu()
        asked = pdu.parse_request(body)
        self.proposals = asked.proposals
        answers = b"".join(
            item(0x21, bytes([each.context_id, 0, 0, 0]) + item(0x40, each.transfer_syntaxes[0].encode()))
            for each in asked.proposals
        )
        user = item(0x50, item(0x51, struct.pack(">I", self.scp.max_pdu)) + item(0x52, b"1.2.3"))
        fixed = struct.pack(">HH16s16s32s", 1, 0, asked.called.encode(), asked.calling.encode(), b"")
        body = fixed + item(0x10, pdu.DICOM_APPLICATION_CONTEXT.encode()) + answers + user
        self.socket.sendall(struct.pack(">BxI", pdu.ASSOCIATE_AC, len(body)) + body)

    def receive(self) -> tuple[int, Received]:
        """The next C-STORE with its context's number; Gone after a release, which is answered."""
        parts = [bytearray(), bytearray()]
        lengths = []
        while True:
            kind, body = self.read_pdu()
            if kind == pdu.RELEASE_RQ:
                self.socket.sendall(struct.pack(">BxIxxxx", pdu.RELEASE_RP, 4))
                self.scp.released += 1
                raise Gone
            if kind != pdu.P_DATA:
                self.scp.aborted += kind == pdu.ABORT
                raise Gone
            lengths.append(len(body))
            for fragment in pdu.fragments(memoryview(body)):
                parts[not fragment.is_command] += fragment.data
                if fragment.is_last and not fragment.is_command:
                    received = Received(commands.decode(parts[0]), bytes(parts[1]), lengths)
                    return fragment.context_id, received

    def answer(self, context_id: int, request: Command, status: int = 0, **more: object) -> None:
        """A C-STORE-RSP; `more` replaces what it would say."""
        told: dict[str, object] = {
            "class_uid": request.class_uid,
            "responded_id": request.message_id,
            "status": status,
            "instance_uid": request.instance_uid,
        }
        encoded = commands.encode(Command(0x8001, **told | more))  # type: ignore[arg-type]
        self.socket.sendall(p_data(context_id, 3, encoded))

    def read_pdu(self) -> tuple[int, bytes]:
        """(type, body); Gone."""
        kind, length = pdu.read_header(self._read(6))
        return kind, self._read(length)

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise Gone
            data += more
        return bytes(data)


Serve = Callable[[Caller], None]


def keep(caller: Caller) -> None:
    """Store everything."""
    while True:
        context_id, received = caller.receive()
        caller.scp.received.append(received)
        caller.answer(context_id, received.command)


@dataclass
class ScriptedSCP:
    """Listens on `port`; `serve` is what it does with each association that it has accepted."""

    port: int
    max_pdu: int
    callers: list[Caller] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    released: int = 0
    aborted: int = 0


@contextmanager
def scripted_scp(
    serve: Serve = keep, *, max_pdu: int = 16384, tls: ssl.SSLContext | None = None
) -> Iterator[ScriptedSCP]:
    """A scripted SCP on loopback, one association after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        scp = ScriptedSCP(listener.getsockname()[1], max_pdu)

        def run() -> None:
            while True:
                try:
                    connected, _ = listener.accept()
                except OSError:
                    return
                connected.settimeout(30)
                with contextlib.suppress(OSError, Gone):
                    if tls is not None:
                        connected = tls.wrap_socket(connected, server_side=True)
                    caller = Caller(connected, scp)
                    caller.associate()
                    serve(caller)
                connected.close()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield scp
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(30)
