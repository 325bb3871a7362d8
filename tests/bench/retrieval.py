"""C-GET and C-MOVE beside Orthanc: a receiver on a plain socket, cheap enough that the sender is measured.

The receiver walks the PDUs in a large buffer, counts the dataset's bytes, answers each C-STORE and keeps
nothing. For C-MOVE it is a process of its own, configured as the destination at both servers.
"""

import contextlib
import multiprocessing
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from node.adapters.peers_socket import SocketPeers
from node.dimse import command as commands
from node.dimse import pdu
from node.dimse.command import Command
from node.domain.model import ApplicationEntity
from node.services.send import send_folder
from tests import corpus
from tests.bench.report import Report
from tests.bench.servers import Server
from tests.support import free_port

GET = "1.2.840.10008.5.1.4.1.2.2.3"
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
IMPLICIT = "1.2.840.10008.1.2"
SINK = "SINK"
MAX_PDU_BYTES = 128 << 10  # that the receiver takes; DCMTK sends no more
BUFFER_BYTES = 1 << 20
WAIT_SECONDS = 120.0
_VALUE = struct.Struct(">BxIIBB")


@dataclass
class Received:
    """What came: whole datasets, their bytes, and the final response."""

    instances: int = 0
    dataset_bytes: int = 0
    final: Command | None = None


class Stream:
    """P-DATA-TF PDUs of one value each out of a socket: dataset bytes are counted, commands handed out."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self.received = Received()

    def pdu(self) -> tuple[int, bytes]:
        """(type, body) of a PDU that is small."""
        kind, length = pdu.read_header(self._take(6))
        return kind, self._take(length)

    def command(self) -> tuple[int, Command] | None:
        """The next command with its context's number; None at a release."""
        while True:
            head = self._take(6)
            kind, length = pdu.read_header(head)
            if kind != pdu.P_DATA:
                self._take(length)
                return None
            rest = length
            while rest:
                size, context_id, control = struct.unpack(">IBB", self._take(6))
                rest -= 4 + size
                if control & 1:
                    return context_id, commands.decode(self._take(size - 2))
                self._pass(size - 2)
                self.received.dataset_bytes += size - 2
                if control & 2:
                    self.received.instances += 1

    def _take(self, size: int) -> bytes:
        while self._end - self._start < size:
            self._fill()
        at = self._start
        self._start += size
        return bytes(self._view[at : at + size])

    def _pass(self, size: int) -> None:
        while (there := self._end - self._start) < size:
            size -= there
            self._start = self._end
            self._fill()
        self._start += size

    def _fill(self) -> None:
        if self._start:
            rest = self._end - self._start
            self._view[:rest] = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, rest
        count = self._socket.recv_into(self._view[self._end :])
        if not count:
            raise ConnectionError("closed by the peer")
        self._end += count


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _user(max_pdu: int, more: bytes = b"") -> bytes:
    return _item(0x50, _item(0x51, struct.pack(">I", max_pdu)) + _item(0x52, b"2.25.1") + more)


def _associate_pdu(kind: int, called: str, calling: str, items: bytes) -> bytes:
    body = struct.pack(">HH16s16s32s", 1, 0, called.encode().ljust(16), calling.encode().ljust(16), b"")
    body += _item(0x10, pdu.DICOM_APPLICATION_CONTEXT.encode()) + items
    return struct.pack(">BxI", kind, len(body)) + body


def _context(number: int, abstract: str, syntax: str) -> bytes:
    inner = _item(0x30, abstract.encode()) + _item(0x40, syntax.encode())
    return _item(0x20, bytes([number, 0, 0, 0]) + inner)


def _connect(server: Server, items: bytes, calling: str) -> tuple[socket.socket, Stream]:
    connected = socket.create_connection(("127.0.0.1", server.port), WAIT_SECONDS)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.sendall(_associate_pdu(pdu.ASSOCIATE_RQ, server.title, calling, items))
    stream = Stream(connected)
    kind, _ = stream.pdu()
    if kind != pdu.ASSOCIATE_AC:
        raise ConnectionError(f"{server.name} refuses the association")
    return connected, stream


def _send(connected: socket.socket, context_id: int, command: Command, dataset: bytes = b"") -> None:
    encoded = commands.encode(command)
    data = _VALUE.pack(4, len(encoded) + 6, len(encoded) + 2, context_id, 3) + encoded
    if dataset:
        data += _VALUE.pack(4, len(dataset) + 6, len(dataset) + 2, context_id, 2) + dataset
    connected.sendall(data)


def _keys(study_uid: str) -> bytes:
    uid = study_uid.encode() + b"\0" * (len(study_uid) % 2)
    return (
        struct.pack("<HHI6s", 0x0008, 0x0052, 6, b"STUDY ") + struct.pack("<HHI", 0x20, 0xD, len(uid)) + uid
    )


def _stored(request: Command) -> Command:
    return Command(
        commands.C_STORE_RQ | commands.RESPONSE,
        class_uid=request.class_uid,
        responded_id=request.message_id,
        status=0,
        instance_uid=request.instance_uid,
    )


def _release(connected: socket.socket) -> None:
    connected.sendall(struct.pack(">BxII", pdu.RELEASE_RQ, 4, 0))
    with contextlib.suppress(OSError):
        connected.recv(64)
    connected.close()


def get(server: Server, study_uid: str, class_uid: str, syntax_uid: str, max_pdu: int) -> Received:
    """C-GET of a study whose instances are all of one class and syntax."""
    role = _item(0x54, struct.pack(">H", len(class_uid)) + class_uid.encode() + b"\0\1")
    items = _context(1, GET, IMPLICIT) + _context(3, class_uid, syntax_uid) + _user(max_pdu, role)
    connected, stream = _connect(server, items, "GETTER")
    _send(connected, 1, Command(commands.C_GET_RQ, GET, 1, priority=0, dataset_type=0), _keys(study_uid))
    while (found := stream.command()) is not None:
        context_id, command = found
        if command.field == commands.C_STORE_RQ:
            # Its dataset comes before anything else: the next command says that it is there
            stream_dataset(stream)
            _send(connected, context_id, _stored(command))
        elif command.status not in (0xFF00,):
            stream.received.final = command
            break
    _release(connected)
    return stream.received


def stream_dataset(stream: Stream) -> None:
    """Take one dataset to its end."""
    before = stream.received.instances
    while stream.received.instances == before:
        size, _, control = _fragment(stream)
        stream._pass(size)
        stream.received.dataset_bytes += size
        if control & 2:
            stream.received.instances += 1


def _fragment(stream: Stream) -> tuple[int, int, int]:
    kind, _, size, context_id, control = _VALUE.unpack(stream._take(_VALUE.size))
    if kind != pdu.P_DATA or control & 1:
        raise ConnectionError("no dataset where one is due")
    return size - 2, context_id, control


def _serve(listener: socket.socket, max_pdu: int) -> None:
    while True:
        connected, _ = listener.accept()
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connected, contextlib.suppress(OSError):
            stream = Stream(connected)
            _, body = stream.pdu()
            asked = pdu.parse_request(body)
            items = b"".join(
                _item(
                    0x21, bytes([each.context_id, 0, 0, 0]) + _item(0x40, each.transfer_syntaxes[0].encode())
                )
                for each in asked.proposals
            )
            connected.sendall(
                _associate_pdu(pdu.ASSOCIATE_AC, asked.called, asked.calling, items + _user(max_pdu))
            )
            while (found := stream.command()) is not None:
                context_id, command = found
                stream_dataset(stream)
                _send(connected, context_id, _stored(command))
            connected.sendall(struct.pack(">BxII", pdu.RELEASE_RP, 4, 0))


@contextmanager
def sink(max_pdu: int) -> Iterator[int]:
    """A storage SCP that takes anything and keeps nothing; its port on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = multiprocessing.get_context("fork").Process(
            target=_serve, args=(listener, max_pdu), daemon=True
        )
        process.start()
        try:
            yield listener.getsockname()[1]
        finally:
            process.terminate()
            process.join(10)


def configure(server: Server, port: int) -> None:
    """Make the sink known to a server as a C-MOVE destination."""
    if server.dicomweb and server.name.startswith("Orthanc"):
        about = {"AET": SINK, "Host": "127.0.0.1", "Port": port, "AllowTranscoding": False}
        url = server.dicomweb.removesuffix("/dicom-web")
        requests.put(f"{url}/modalities/{SINK}", json=about, timeout=30).raise_for_status()
        about = {"AET": "MOVER", "Host": "127.0.0.1", "Port": free_port()}
        requests.put(f"{url}/modalities/MOVER", json=about, timeout=30).raise_for_status()
    else:
        command = [sys.executable, "-m", "node.cli", "ae", "add", SINK, "--address", f"127.0.0.1:{port}"]
        subprocess.run([*command, "--data", str(server.folder)], check=True, capture_output=True, timeout=60)


def move(server: Server, study_uid: str) -> Command:
    """C-MOVE of a study to the sink; the final response."""
    connected, stream = _connect(server, _context(1, MOVE, IMPLICIT) + _user(16384), "MOVER")
    request = Command(commands.C_MOVE_RQ, MOVE, 1, destination=SINK, priority=0, dataset_type=0)
    _send(connected, 1, request, _keys(study_uid))
    while (found := stream.command()) is not None:
        if found[1].status != 0xFF00:
            _release(connected)
            return found[1]
    raise ConnectionError("released in the middle of a C-MOVE")


def loaded(server: Server, slices: int) -> str:
    """Store a CT series, in the syntax that is asked for later; its Study Instance UID."""
    study = corpus.Study(seed=4711)
    with tempfile.TemporaryDirectory() as folder:
        corpus.write(corpus.ct_series(slices, study=study), Path(folder))
        entity = ApplicationEntity(server.title, "127.0.0.1", server.port)
        sent = send_folder(SocketPeers("LOADER"), entity, Path(folder), lambda *_: None)
    if sent.sent != slices:
        raise RuntimeError(f"{server.name} refuses {sent.failed[:1]}")
    return str(next(iter(corpus.ct_series(1, study=study))).StudyInstanceUID)


def measure(report: Report, among: list[Server], slices: int) -> None:
    """C-GET and C-MOVE of a CT series that each of the servers is given first."""
    image = next(iter(corpus.ct_series(1)))
    class_uid, syntax_uid = str(image.SOPClassUID), str(image.file_meta.TransferSyntaxUID)
    with sink(MAX_PDU_BYTES) as port:
        for server in among:
            configure(server, port)
        studies = {server.name: loaded(server, slices) for server in among}

        def get_rate(server: Server) -> float:
            started = time.perf_counter()
            received = get(server, studies[server.name], class_uid, syntax_uid, MAX_PDU_BYTES)
            took = time.perf_counter() - started
            if received.instances != slices or received.final is None or received.final.status != 0:
                raise RuntimeError(f"{server.name}: C-GET gives {received}")
            return received.dataset_bytes / took / 1e6

        def move_rate(server: Server) -> float:
            started = time.perf_counter()
            final = move(server, studies[server.name])
            took = time.perf_counter() - started
            if final.status != 0 or final.completed != slices:
                raise RuntimeError(f"{server.name}: C-MOVE gives {final}")
            return slices / took

        report.alternate(f"C-GET of {slices} CT", "MB/s", get_rate, among)
        report.alternate(f"C-MOVE of {slices} CT", "inst/s", move_rate, among)
