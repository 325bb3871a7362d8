"""A C-STORE SCU on a plain socket (PS3.7, PS3.8), cheap enough that the server is what is measured.

One association for one SOP class in one transfer syntax. OSError when it is refused, lost or too slow.
"""

import struct

from chaos.target import Dicom

_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
_MAX_PDU_BYTES = 131072


class Association:
    """An association for one SOP class in one transfer syntax."""

    def __init__(self, address: Dicom, sop_class: str, syntax: str, *, seconds: float | None = None) -> None:
        self._socket = address.connect() if seconds is None else address.connect(seconds)
        self._sop_class = sop_class.encode()
        try:
            self._socket.sendall(_request(address, self._sop_class, syntax.encode()))
            kind, body = self._pdu()
            if kind != 2:
                raise ConnectionError(f"association refused: PDU {kind} {body[:8].hex()}")
        except BaseException:
            self._socket.close()
            raise
        self._max_pdu = _max_pdu(body)

    def store(self, message_id: int, instance_uid: str, dataset: bytes) -> int:
        """C-STORE; returns the status."""
        size = self._max_pdu - 6
        parts = self._request(message_id, instance_uid)
        for start in range(0, len(dataset), size):
            parts += _data(memoryview(dataset)[start : start + size], last=start + size >= len(dataset))
        self._socket.sendall(b"".join(parts))
        kind, body = self._pdu()
        if kind != 4:
            raise ConnectionError(f"no response: PDU {kind}")
        return _status(body[6:])

    def store_without_end(self, message_id: int, instance_uid: str, begin: bytes, more: int) -> None:
        """A C-STORE whose dataset begins so, and goes on with `more` zeros; its last fragment never comes."""
        self._socket.sendall(b"".join([*self._request(message_id, instance_uid), *_data(begin, last=False)]))
        size = self._max_pdu - 6
        zeros = b"".join(_data(bytes(size), last=False))
        for _ in range(more // size):
            self._socket.sendall(zeros)

    def _request(self, message_id: int, instance_uid: str) -> "list[bytes | memoryview]":
        command = _command(message_id, self._sop_class, instance_uid.encode())
        return [struct.pack(">BBIIBB", 4, 0, len(command) + 6, len(command) + 2, 1, 3), command]

    def release(self) -> None:
        """A-RELEASE."""
        self._socket.sendall(struct.pack(">BBII", 5, 0, 4, 0))
        self._pdu()
        self.close()

    def close(self) -> None:
        """Close the connection without a word."""
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


def _request(address: Dicom, sop_class: bytes, syntax: bytes) -> bytes:
    context = b"\1\0\0\0" + _item(0x30, sop_class) + _item(0x40, syntax)
    user = _item(0x51, struct.pack(">I", _MAX_PDU_BYTES)) + _item(0x52, b"2.25.1") + _item(0x55, b"CHAOS")
    titles = address.called.encode().ljust(16), address.calling.encode().ljust(16)
    body = struct.pack(">HH16s16s32s", 1, 0, *titles, b"")
    body += _item(0x10, _APPLICATION_CONTEXT) + _item(0x20, context) + _item(0x50, user)
    return struct.pack(">BBI", 1, 0, len(body)) + body


def _data(piece: bytes | memoryview, *, last: bool) -> "list[bytes | memoryview]":
    return [struct.pack(">BBIIBB", 4, 0, len(piece) + 6, len(piece) + 2, 1, 2 if last else 0), piece]


def _max_pdu(accept: bytes) -> int:
    at = 68
    while at < len(accept):
        kind, length = accept[at], struct.unpack(">H", accept[at + 2 : at + 4])[0]
        if kind == 0x50:
            user, inner = accept[at + 4 : at + 4 + length], 0
            while inner < len(user):
                if user[inner] == 0x51:
                    limit = int(struct.unpack(">I", user[inner + 4 : inner + 8])[0])
                    return limit or _MAX_PDU_BYTES
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
