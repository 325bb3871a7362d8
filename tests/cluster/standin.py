"""What HAProxy needs of a node, and no more: a DICOM port, a web port with health, a record of who came.

For tests whose subject is HAProxy and the agent. The DICOM port answers each connection's first bytes with
the stand-in's name, then echoes. Both ports take a PROXY header or none.
"""

import contextlib
import socket
import threading
from dataclasses import dataclass, field

from cluster.registry import Node
from node.domain import proxy
from tests.cluster.servers import server_port

# The fixed part of an A-ASSOCIATE-RQ and an empty rest: type 01H, length 68, version 1, two AE titles
REQUEST = b"\x01\x00" + (68).to_bytes(4, "big") + b"\x00\x01\x00\x00" + b"STELE".ljust(16) * 2 + bytes(32)

IP_BIND_ADDRESS_NO_PORT = 24  # Linux ip(7); Python's socket module does not name it


@dataclass
class Connection:
    """A connection that reached the DICOM port: who from, as the PROXY header says, and what came."""

    source: str = ""
    certificate: str | None = None
    data: bytearray = field(default_factory=bytearray)


class StandIn:
    """A node's two ports. `ready`, `live` and `respond` (the web port answers) may be changed."""

    def __init__(self, name: str, ports: tuple[int, int] | None = None) -> None:
        self.name = name
        self.ready = self.live = True
        self.respond = True
        self.connections: list[Connection] = []
        self.requests: list[tuple[str, bytes]] = []  # source and head, but for health checks
        self.dicom_port, self.http_port = ports or (server_port(), server_port())
        self._associations = 0
        self._listeners: list[socket.socket] = []
        self._open: set[socket.socket] = set()
        self.start()

    @property
    def node(self) -> Node:
        return Node(self.name, "127.0.0.1", self.dicom_port, self.http_port, "0.1.0")

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def start(self) -> None:
        for port, serve in ((self.dicom_port, self._dicom), (self.http_port, self._web)):
            listener = socket.create_server(("127.0.0.1", port), reuse_port=True)
            self._listeners.append(listener)
            threading.Thread(target=self._accept, args=(listener, serve), daemon=True).start()

    def die(self) -> None:
        """Close every socket, as a killed process does."""
        for each in [*self._listeners, *self._open]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._listeners.clear()

    def _accept(self, listener: socket.socket, serve: object) -> None:
        while True:
            try:
                connected, _ = listener.accept()
            except OSError:
                return
            self._open.add(connected)
            threading.Thread(target=self._guarded, args=(connected, serve), daemon=True).start()

    def _guarded(self, connected: socket.socket, serve: object) -> None:
        try:
            assert callable(serve)
            serve(connected)
        except OSError:
            pass
        finally:
            self._open.discard(connected)
            connected.close()

    def _dicom(self, connected: socket.socket) -> None:
        connection = Connection()
        self.connections.append(connection)
        connection.source, connection.certificate, rest = _proxied(connected)
        greeted = False
        while data := rest or connected.recv(65536):
            rest = b""
            connection.data += data
            if not greeted and len(connection.data) >= len(REQUEST):
                greeted = True
                self._associations += 1
                connected.sendall(self.name.encode() + b"\n" + bytes(connection.data[len(REQUEST) :]))
            elif greeted:
                connected.sendall(data)
        self._associations -= greeted

    def _web(self, connected: socket.socket) -> None:
        source, _, data = _proxied(connected)
        while True:
            while b"\r\n\r\n" not in data:
                more = connected.recv(65536)
                if not more:
                    return
                data += more
            head, _, data = data.partition(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            if path.startswith("/health/"):
                fine = self.ready and self.live if path.endswith("ready") else self.live
                connected.sendall(_answer("200 OK" if fine else "503 Not Now", path))
                continue
            self.requests.append((source, head))
            if not self.respond:
                return
            metrics = f'stele_associations{{state="open"}} {self._associations}\n'
            connected.sendall(_answer("200 OK", metrics if path == "/metrics" else self.name))


def _answer(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def _proxied(connected: socket.socket) -> tuple[str, str | None, bytes]:
    """What a PROXY v2 header says: the source ("" for none, "LOCAL" for the proxy itself) and the client's
    certificate; and what followed it."""
    data = connected.recv(65536)
    if not data.startswith(proxy.SIGNATURE):
        return "", None, data
    while len(data) < 16 or len(data) < 16 + int.from_bytes(data[14:16], "big"):
        data += connected.recv(65536)
    end = 16 + int.from_bytes(data[14:16], "big")
    source = "LOCAL" if data[12] == 0x20 else socket.inet_ntoa(data[16:20])
    return source, proxy.certificate(data[:16], data[16:end]), data[end:]


class Client:
    """A connection through HAProxy to the DICOM port."""

    def __init__(self, port: int, *, first: bytes = REQUEST, source: str = "127.0.0.1") -> None:
        self._rest = b""
        self.socket = socket.socket()
        self.socket.settimeout(15)
        # A port is taken at the connection, when one that served another destination will do: a test makes
        # more connections in a minute than there are ports
        self.socket.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        try:
            self.socket.bind((source, 0))
            self.socket.connect(("127.0.0.1", port))
            self.socket.sendall(first)
        except BaseException:
            self.socket.close()
            raise

    def line(self) -> str:
        """The next line that comes back; "" when the connection ends."""
        data = bytearray(self._rest)
        while b"\n" not in data:
            try:
                more = self.socket.recv(65536)
            except ConnectionResetError:
                return ""
            if not more:
                return ""
            data += more
        line, _, self._rest = bytes(data).partition(b"\n")
        return line.decode().strip()

    def say(self, text: str) -> str:
        """Send a line and return what comes back."""
        self.socket.sendall(text.encode() + b"\n")
        return self.line()

    def close(self) -> None:
        self.socket.close()


def who_answers(port: int, *, source: str = "127.0.0.1") -> str:
    """The name of the stand-in behind a port; "" if there is none."""
    try:
        client = Client(port, source=source)
    except OSError:
        return ""
    try:
        return client.line()
    except OSError:
        return ""
    finally:
        client.close()
