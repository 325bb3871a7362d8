"""A C-STORE SCU on a plain socket, cheap enough that the server is what is measured.

It sends one prepared dataset many times under fresh UIDs of the same length, patched into the bytes, so
that no server sees a duplicate. One process per association; the clock starts when all are associated and
stops when the last response is in.

    python -m tests.bench.scu PORT AE FILE COUNT ASSOCIATIONS   → JSON {"seconds", "ok", "failed"}
"""

import json
import multiprocessing
import multiprocessing.synchronize
import socket
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pydicom

APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
IMPLICIT = b"1.2.840.10008.1.2"
RESPONSE_SECONDS = 120


@dataclass(frozen=True)
class Prepared:
    """A dataset with the places of its UIDs."""

    sop_class_uid: bytes
    transfer_syntax_uid: bytes
    dataset: bytes
    instance_uid: bytes
    study_uid: bytes
    series_uid: bytes


def prepare(path: Path) -> Prepared:
    """Read a Part 10 file; its UIDs should be 64 characters long, as the corpus makes them."""
    dataset = pydicom.dcmread(path)
    raw = path.read_bytes()
    start = 132 + 12 + int(dataset.file_meta.FileMetaInformationGroupLength)
    return Prepared(
        str(dataset.SOPClassUID).encode(),
        str(dataset.file_meta.TransferSyntaxUID).encode(),
        raw[start:],
        str(dataset.SOPInstanceUID).encode(),
        str(dataset.StudyInstanceUID).encode(),
        str(dataset.SeriesInstanceUID).encode(),
    )


def fresh(length: int) -> bytes:
    """A new UID of `length` characters."""
    uid = f"2.25.{uuid4().int}.{uuid4().int}"
    return (uid + "1" * 64)[:length].rstrip(".").ljust(length, "1").encode()


class Association:
    """An association for one SOP class in one transfer syntax."""

    def __init__(self, port: int, called: str, prepared: Prepared) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), RESPONSE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(_request(called, prepared))
        kind, body = self._pdu()
        if kind != 2:
            raise ConnectionError(f"association refused: PDU {kind} {body[:8].hex()}")
        self._max_pdu = _max_pdu(body)
        self._prepared = prepared

    def store(self, message_id: int, instance_uid: bytes, dataset: bytes) -> int:
        """C-STORE; returns the status."""
        command = _command(message_id, self._prepared.sop_class_uid, instance_uid)
        size = self._max_pdu - 6
        parts: list[bytes | memoryview] = [
            struct.pack(">BBIIBB", 4, 0, len(command) + 6, len(command) + 2, 1, 3),
            command,
        ]
        for start in range(0, len(dataset), size):
            piece = memoryview(dataset)[start : start + size]
            last = 2 if start + size >= len(dataset) else 0
            parts += [struct.pack(">BBIIBB", 4, 0, len(piece) + 6, len(piece) + 2, 1, last), piece]
        self._socket.sendall(b"".join(parts))
        kind, body = self._pdu()
        if kind != 4:
            raise ConnectionError(f"no response: PDU {kind}")
        return _status(body[6:])

    def release(self) -> None:
        """A-RELEASE."""
        self._socket.sendall(struct.pack(">BBII", 5, 0, 4, 0))
        self._pdu()
        self._socket.close()

    def _pdu(self) -> tuple[int, bytes]:
        header = self._exactly(6)
        return header[0], self._exactly(struct.unpack(">I", header[2:])[0])

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = self._socket.recv(length - len(data))
            if not more:
                raise ConnectionError("closed by the peer")
            data += more
        return data


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


def _request(called: str, prepared: Prepared) -> bytes:
    context = b"\1\0\0\0" + _item(0x30, prepared.sop_class_uid) + _item(0x40, prepared.transfer_syntax_uid)
    user = _item(0x51, struct.pack(">I", 131072)) + _item(0x52, b"2.25.1") + _item(0x55, b"BENCH")
    body = struct.pack(">HH16s16s32s", 1, 0, called.encode().ljust(16), b"BENCH".ljust(16), b"")
    body += _item(0x10, APPLICATION_CONTEXT) + _item(0x20, context) + _item(0x50, user)
    return struct.pack(">BBI", 1, 0, len(body)) + body


def _max_pdu(accept: bytes) -> int:
    at = 68
    while at < len(accept):
        kind, length = accept[at], struct.unpack(">H", accept[at + 2 : at + 4])[0]
        if kind == 0x50:
            user, inner = accept[at + 4 : at + 4 + length], 0
            while inner < len(user):
                if user[inner] == 0x51:
                    limit = int(struct.unpack(">I", user[inner + 4 : inner + 8])[0])
                    return limit or 131072
                inner += 4 + struct.unpack(">H", user[inner + 2 : inner + 4])[0]
        at += 4 + length
    return 16384


def _element(group: int, element: int, value: bytes) -> bytes:
    return struct.pack("<HHI", group, element, len(value)) + value


def _even(uid: bytes) -> bytes:
    return uid + b"\0" * (len(uid) % 2)


def _command(message_id: int, class_uid: bytes, instance_uid: bytes) -> bytes:
    body = _element(0, 2, _even(class_uid)) + _element(0, 0x100, b"\1\0")
    body += _element(0, 0x110, struct.pack("<H", message_id)) + _element(0, 0x700, b"\0\0")
    body += _element(0, 0x800, b"\1\0") + _element(0, 0x1000, _even(instance_uid))
    return _element(0, 0, struct.pack("<I", len(body))) + body


def _status(command: bytes) -> int:
    at = 0
    while at < len(command):
        group, element, length = struct.unpack("<HHI", command[at : at + 8])
        if (group, element) == (0, 0x900):
            return int(struct.unpack("<H", command[at + 8 : at + 10])[0])
        at += 8 + length
    raise ConnectionError("a response without status")


def _sender(
    port: int,
    called: str,
    path: str,
    count: int,
    ready: "multiprocessing.synchronize.Barrier",
    results: "multiprocessing.Queue[tuple[float, float, int]]",
) -> None:
    prepared = prepare(Path(path))
    association = Association(port, called, prepared)
    study, series = fresh(len(prepared.study_uid)), fresh(len(prepared.series_uid))
    template = prepared.dataset.replace(prepared.study_uid, study).replace(prepared.series_uid, series)
    before, _, after = template.partition(prepared.instance_uid)
    ready.wait(60)
    started = time.monotonic()
    failed = 0
    for number in range(count):
        uid = fresh(len(prepared.instance_uid))
        if association.store(number % 65535 + 1, uid, before + uid + after) != 0:
            failed += 1
    results.put((started, time.monotonic(), failed))
    association.release()


def run(port: int, called: str, path: Path, count: int, associations: int) -> dict[str, float]:
    """Send `count` instances over each of `associations` at once: seconds, ok, failed."""
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(associations)
    results: multiprocessing.Queue[tuple[float, float, int]] = context.Queue()
    senders = [
        context.Process(target=_sender, args=(port, called, str(path), count, ready, results))
        for _ in range(associations)
    ]
    for sender in senders:
        sender.start()
    times = [results.get(timeout=900) for _ in senders]
    for sender in senders:
        sender.join(30)
    seconds = max(end for _, end, _ in times) - min(start for start, _, _ in times)
    failed = sum(failed for _, _, failed in times)
    return {"seconds": seconds, "ok": count * associations - failed, "failed": failed}


if __name__ == "__main__":
    port, called, path, count, associations = sys.argv[1:]
    print(json.dumps(run(int(port), called, Path(path), int(count), int(associations))))
