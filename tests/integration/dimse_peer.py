"""Helpers of the DIMSE tests: an archive's DICOM ports within the process, and a peer made of raw bytes."""

import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from node import bootstrap
from node.adapters.catalog_postgres import migrate
from node.adapters.postgres_embedded import EmbeddedPostgres
from node.config import Dicom, Settings
from node.dimse import command as commands
from node.dimse import pdu, serve
from node.dimse.command import Command
from node.dimse.listener import Listener
from node.domain.part10 import Part10Reader
from node.services.archive import Archive
from tests.support import free_port

CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"


def settings_for(data: Path, dsn: str, **dicom: object) -> Settings:
    """Settings of an archive on loopback that takes any calling AE unless told otherwise."""
    chosen = {"host": "127.0.0.1", "port": free_port(), "any_calling_ae": True, **dicom}
    return Settings.model_validate(
        {"data": data, "catalog": {"dsn": dsn}, "dicom": Dicom.model_validate(chosen)}
    )


@contextmanager
def listening(settings: Settings, archive: Archive) -> Iterator[Listener]:
    """The archive's DICOM ports, stopped at the end."""
    listener = serve.listener(settings, archive)
    listener.start()
    try:
        yield listener
    finally:
        listener.stop(5)


@contextmanager
def archive_on(data: Path) -> Iterator[tuple[Settings, Archive]]:
    """An archive in this process, on an embedded server of its own."""
    server = EmbeddedPostgres(data / "postgres")
    settings = settings_for(data, server.start())
    try:
        migrate.migrate(settings.catalog.dsn, bootstrap.extra_tags(settings))
        archive = bootstrap.build(settings)
        try:
            yield settings, archive
        finally:
            archive.close()
    finally:
        server.stop()


def item(kind: int, value: bytes) -> bytes:
    """An item of an association PDU."""
    return struct.pack(">BxH", kind, len(value)) + value


def context(number: int, abstract: str, *syntaxes: str) -> bytes:
    """A proposed presentation context."""
    inner = item(0x30, abstract.encode()) + b"".join(item(0x40, syntax.encode()) for syntax in syntaxes)
    return item(0x20, bytes([number, 0, 0, 0]) + inner)


def request(
    *contexts: bytes,
    called: str = "STELE",
    calling: str = "RAW",
    version: int = 1,
    application: str = pdu.DICOM_APPLICATION_CONTEXT,
    implementation: str = "1.2.3.4",
    more: bytes = b"",
) -> bytes:
    """An A-ASSOCIATE-RQ; `more` are further items of user information."""
    user = item(0x51, struct.pack(">I", 65536)) + item(0x52, implementation.encode()) + more
    body = struct.pack(">HH", version, 0) + called.ljust(16).encode() + calling.ljust(16).encode() + bytes(32)
    body += item(0x10, application.encode()) + b"".join(contexts) + item(0x50, user)
    return struct.pack(">BxI", 1, len(body)) + body


def p_data(context_id: int, control: int, data: bytes) -> bytes:
    """A P-DATA-TF with one value."""
    return struct.pack(">BxIIBB", 4, len(data) + 6, len(data) + 2, context_id, control) + data


@dataclass
class Peer:
    """A connection on which anything can be sent."""

    socket: socket.socket

    @classmethod
    def connect(cls, port: int) -> "Peer":
        """A TCP connection to loopback."""
        return cls(socket.create_connection(("127.0.0.1", port), timeout=20))

    @classmethod
    def associated(cls, port: int, *contexts: bytes, calling: str = "RAW") -> "Peer":
        """An association; AssertionError if it was not accepted."""
        peer = cls.connect(port)
        peer.send(request(*contexts, calling=calling))
        kind, _ = peer.read_pdu()
        assert kind == pdu.ASSOCIATE_AC, kind
        return peer

    def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self.socket.sendall(data)

    def read_pdu(self) -> tuple[int, bytes]:
        """(type, body); (0, b"") when the archive has closed."""
        header = self._read(6)
        if len(header) < 6:
            return 0, b""
        kind, length = pdu.read_header(header)
        return kind, self._read(length)

    def read_command(self) -> Command:
        """The next message's command set, which is in one fragment."""
        kind, body = self.read_pdu()
        assert kind == pdu.P_DATA, (kind, body)
        assert body[5] == 3
        return commands.decode(body[6:])

    def send_command(self, context_id: int, command: Command) -> None:
        """A command set."""
        self.send(p_data(context_id, 3, commands.encode(command)))

    def store(
        self,
        context_id: int,
        instance_uid: str,
        dataset: Iterable[bytes],
        *,
        class_uid: str = CT,
        message_id: int = 1,
    ) -> Command:
        """C-STORE, the dataset in pieces of one fragment each; the answer's command set."""
        self.send_command(
            context_id,
            Command(
                commands.C_STORE_RQ,
                class_uid=class_uid,
                message_id=message_id,
                priority=0,
                dataset_type=0,
                instance_uid=instance_uid,
            ),
        )
        held = None
        for piece in dataset:
            if held is not None:
                self.send(p_data(context_id, 0, held))
            held = piece
        self.send(p_data(context_id, 2, held or b""))
        return self.read_command()

    def release(self) -> None:
        """Release the association as PS3.8 section 7.2 has it."""
        self.send(b"\5\0\0\0\0\4\0\0\0\0")
        assert self.read_pdu()[0] == pdu.RELEASE_RP
        self.close()

    def close(self) -> None:
        """End the connection without a word."""
        self.socket.close()

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                more = self.socket.recv(size - len(data))
            except ConnectionResetError:
                break
            if not more:
                break
            data += more
        return bytes(data)


def echo(peer: Peer, context_id: int = 1) -> int | None:
    """A C-ECHO's status."""
    peer.send_command(context_id, Command(commands.C_ECHO_RQ, class_uid=VERIFICATION, message_id=7))
    return peer.read_command().status


def dataset_of(file: bytes) -> bytes:
    """The dataset bytes of a Part 10 file."""
    return bytes(Part10Reader().feed(file))


def abort(reason: int) -> tuple[int, bytes]:
    """An A-ABORT by the provider, as `Peer.read_pdu` gives it (PS3.8 table 9-26)."""
    return pdu.ABORT, bytes((0, 0, 2, reason))


def rejection(result: int, source: int, reason: int) -> tuple[int, bytes]:
    """An A-ASSOCIATE-RJ, as `Peer.read_pdu` gives it (PS3.8 table 9-21)."""
    return pdu.ASSOCIATE_RJ, bytes((0, result, source, reason))
