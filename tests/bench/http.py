"""An HTTP client on a plain socket, kept alive and cheap enough that the server is what is measured: answers
are read into one buffer and counted, small ones are handed out."""

import socket
from urllib.parse import urlsplit

BUFFER_BYTES = 1 << 20
WAIT_SECONDS = 300.0


class Client:
    """One connection to the server at `url`; it is opened again when the server has closed it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._host = parts.netloc
        self._root = parts.path
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._socket: socket.socket | None = None

    def get(self, path: str, accept: str) -> int:
        """GET below the root; the body's length in bytes. RuntimeError unless the answer is 200 or 204."""
        status, length, _ = self._ask(f"GET {self._root}{path}", f"Accept: {accept}\r\n", ())
        if status not in (200, 204):
            raise RuntimeError(f"{status} for {path}")
        return length

    def post(self, path: str, content_type: str, pieces: tuple[bytes, ...]) -> bytes:
        """POST below the root; the answer's body, which must be 200."""
        head = f"Accept: application/dicom+json\r\nContent-Type: {content_type}\r\n"
        head += f"Content-Length: {sum(map(len, pieces))}\r\n"
        status, _, body = self._ask(f"POST {self._root}{path}", head, pieces)
        if status != 200:
            raise RuntimeError(f"{status} for {path}: {body[:200]!r}")
        return body

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, line: str, head: str, pieces: tuple[bytes, ...]) -> tuple[int, int, bytes]:
        """(status, length of the body, its first bytes)."""
        if self._socket is None:
            self._socket = socket.create_connection(self._address, WAIT_SECONDS)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = f"{line} HTTP/1.1\r\nHost: {self._host}\r\n{head}\r\n".encode()
        self._socket.sendall(request)
        for piece in pieces:
            self._socket.sendall(piece)
        held = bytearray()
        while (end := held.find(b"\r\n\r\n")) < 0:
            held += self._more()
        lines = bytes(held[:end]).decode("latin-1").split("\r\n")
        fields = {
            name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines[1:])
        }
        rest = held[end + 4 :]
        if fields.get("transfer-encoding", "").lower() == "chunked":
            length, first = self._chunks(rest)
        elif "content-length" in fields:
            length = int(fields["content-length"])
            first = bytes(rest) + self._rest(length - len(rest), len(rest))
        else:  # to the end of the connection, as Orthanc sends its multipart answers
            length, first = len(rest), bytes(rest)
            while received := self._socket.recv_into(self._buffer):
                length += received
            self.close()
        if fields.get("connection", "").lower() == "close":
            self.close()
        return int(lines[0].split()[1]), length, first

    def _rest(self, left: int, held: int) -> bytes:
        """Read the rest of a body; returned are only the first bytes of it."""
        first = b""
        assert self._socket is not None
        while left:
            received = self._socket.recv_into(self._buffer, min(left, BUFFER_BYTES))
            if not received:
                raise ConnectionError("closed in the middle of an answer")
            if held + len(first) < BUFFER_BYTES:
                first += self._buffer[:received]
            left -= received
        return first

    def _chunks(self, held: bytearray) -> tuple[int, bytes]:
        total, first = 0, b""
        while True:
            while (end := held.find(b"\r\n")) < 0:
                held += self._more()
            size = int(held[:end].split(b";")[0], 16)
            del held[: end + 2]
            left = size + 2
            if not first:
                first = bytes(held[:size])
            taken = min(left, len(held))
            del held[:taken]
            left -= taken
            self._rest(left, BUFFER_BYTES)
            if not size:
                return total, first
            total += size

    def _more(self) -> bytes:
        assert self._socket is not None
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("closed by the server")
        return data
