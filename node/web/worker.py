"""Gunicorn's threaded worker, made so that no peer can hold a thread by being slow.

A thread is taken only when a request's head (request line and header fields) has arrived as a whole; until
then the connection waits in the poller, for `HEAD_SECONDS` in all, however its bytes trickle in. From then
on waits and rate are limited (`node.web.limited_socket`). Who is too slow gets 408 while a status can still
be sent; otherwise the connection is broken off. When there are nearly as many connections as the process may
have, one that waits for a request, of whoever has most of those, makes room for each newcomer.

Behind a proxy a connection begins with a PROXY protocol v2 header, which is demanded from the configured
networks and from nobody else; the address in it holds for the whole connection.
"""

import errno
import ipaddress
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import TConn, ThreadWorker

from node import metrics
from node.domain import proxy
from node.log import place_of
from node.services.limits import most_crowding
from node.web.body import READ_BYTES
from node.web.limited_socket import LimitedSocket
from node.web.status import PROBLEM, problem

HEAD_SECONDS = 10.0
MAX_HEAD_BYTES = 64 << 10
MAX_LINGERING = 500
NO_ROOM_SECONDS = 0.05  # pause when the process may open no more files and nobody can be sent away
SPARE_CONNECTIONS = 50  # so many fewer than the limit, at which gunicorn would accept no more
LINGER_SECONDS = 2.0  # for a client to take the last answer, while what it still sends is thrown away
_RECEIVE_BYTES = 16 << 10

log = structlog.get_logger()


class _NotAProxy(Exception):
    """A peer that has to speak PROXY protocol and does not."""


class _HeadTooLong(Exception):
    """A head beyond MAX_HEAD_BYTES."""


class Connection(TConn):  # type: ignore[misc]
    """A connection that gathers a request's head before a thread is spent on it."""

    def __init__(self, *arguments: Any, proxied: bool, linger: Callable[[LimitedSocket], None]) -> None:
        super().__init__(*arguments)
        self._linger = linger
        self._gathered = bytearray()
        self._announced = not proxied  # whether the PROXY header has been read
        self._peer = self.client

    @property
    def begun(self) -> bool:
        """Whether some of a head has arrived."""
        return bool(self._gathered)

    def gather(self, data: bytes) -> bool:
        """Take bytes; True when the head is complete. _NotAProxy, _HeadTooLong."""
        self._gathered += data
        if not self._announced and not self._read_announcement():
            return False
        if b"\r\n\r\n" in self._gathered:
            return True
        if len(self._gathered) > MAX_HEAD_BYTES:
            raise _HeadTooLong
        return False

    def _read_announcement(self) -> bool:
        gathered = self._gathered
        if not proxy.SIGNATURE.startswith(gathered[: len(proxy.SIGNATURE)]):
            raise _NotAProxy
        if len(gathered) < proxy.HEADER_BYTES:
            return False
        header = bytes(gathered[: proxy.HEADER_BYTES])
        try:
            end = proxy.HEADER_BYTES + proxy.body_length(header)
            if len(gathered) < end:
                return False
            address = proxy.source(header, bytes(gathered[proxy.HEADER_BYTES : end]))
        except proxy.NotProxy:
            raise _NotAProxy from None
        if address is not None:
            self.client = (address, 0)
        del gathered[:end]
        self._announced = True
        return True

    def close(self, graceful: bool = False) -> None:
        """Close; gracefully without waiting for the peer here (RFC 9112 section 9.6)."""
        if graceful:
            self._linger(self.sock)
        else:
            super().close()

    def init(self) -> None:
        """Make the parser and give it what has been gathered."""
        if not self.initialized:
            # The parser believes X-Forwarded-Proto by the peer it is told; that is the proxy.
            client, self.client = self.client, self._peer
            super().init()
            self.client = client
            # What is received beyond a read is copied at each: with gunicorn's own MiB that took longer
            # than receiving it.
            self.parser.unreader.max_body_chunk = READ_BYTES
        if self._gathered:
            self.parser.unreader.unread(bytes(self._gathered))
            self._gathered.clear()


class Worker(ThreadWorker):  # type: ignore[misc]
    """See the module's docstring."""

    def init_process(self) -> None:
        """Read the proxies' networks, then as usual."""
        self._proxies = [ipaddress.ip_network(each) for each in self.cfg.proxy_allow_ips]
        self._lingering: deque[tuple[float, LimitedSocket]] = deque()
        super().init_process()

    def set_accept_enabled(self, enabled: bool) -> None:
        """Stopping, listen no longer at all, so that new clients are refused at once and go elsewhere."""
        super().set_accept_enabled(enabled)
        if not self.alive:
            for listener in self.sockets:
                if listener.sock is not None:
                    while self.accept(listener):  # who is through already is served
                        pass
                    listener.close()

    def is_parent_alive(self) -> bool:
        """Without its master a worker stops as it does when told to: the port is the next master's."""
        living: bool = super().is_parent_alive()
        if not living:
            self.alive = False
        return living

    def accept(self, listener: Any) -> bool:
        """Take a connection, if one is there, and wait for its first request's head."""
        try:
            plain, address = listener.accept()
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK):
                return False
            if error.errno == errno.ECONNABORTED:
                return True
            if error.errno in (errno.EMFILE, errno.ENFILE):
                if not self._make_room():
                    time.sleep(NO_ROOM_SECONDS)
                return False
            raise
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.nr_conns += 1
        sock = LimitedSocket.of(plain)
        conn = Connection(
            self.cfg,
            sock,
            address,
            listener.getsockname(),
            proxied=self._is_proxy(address),
            linger=self._linger,
        )
        conn.data_ready = True  # so that no thread waits for it
        if self.nr_conns > self.worker_connections - SPARE_CONNECTIONS:
            self._make_room()
        self._await_head(conn)
        return True

    def on_client_socket_readable(self, conn: Connection, client: Any) -> None:
        """A kept-alive connection's next request begins."""
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._await_head(conn)
        self._gather(conn, client)

    def handle(self, conn: Connection) -> Any:
        """A request with its whole head; runs in a thread."""
        conn.sock.begin()
        outcome = super().handle(conn)
        try:
            conn.sock.flush()
        except OSError:
            return False  # the connection is of no use any more
        return outcome

    def handle_error(self, _req: Any, client: Any, _addr: Any, exc: Exception) -> None:
        """A request that gunicorn itself refuses: answered and logged without any of its content."""
        status = _status_of(exc)
        metrics.REFUSALS.labels("http", "protocol" if status < 500 else "internal").inc()
        log.warning("request refused by the server", status=status, kind=type(exc).__name__)
        try:
            client.sendall(_answer(status))
        except OSError:
            return  # the client has gone

    def murder_pending(self) -> None:
        """Close connections whose head did not come in time."""
        now = time.monotonic()
        while self.pending_conns and self.pending_conns[0].timeout <= now:
            conn = self.pending_conns[0]
            if conn.begun:
                self._refuse(conn, 408)
            self._drop(conn)
        while self._lingering and self._lingering[0][0] <= now:
            self._let_go(self._lingering[0])

    def _make_room(self) -> bool:
        """Close a connection on which no request is going on; False if there is none."""
        waiting = [(str(conn.client[0]), conn) for conn in (*self.pending_conns, *self.keepalived_conns)]
        if not waiting:
            return False
        conn = most_crowding(waiting)
        metrics.REFUSALS.labels("http", "too_many").inc()
        if conn in self.pending_conns:
            self._drop(conn)
        else:
            self.keepalived_conns.remove(conn)
            self.poller.unregister(conn.sock)
            self.nr_conns -= 1
            conn.close()
        return True

    def _await_head(self, conn: Connection) -> None:
        conn.sock.rest()
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + HEAD_SECONDS
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._gather, conn))

    def _gather(self, conn: Connection, _client: Any) -> None:
        try:
            data = conn.sock.recv(_RECEIVE_BYTES)
            complete = bool(data) and conn.gather(data)
        except BlockingIOError:
            return
        except (OSError, _NotAProxy):
            data, complete = b"", False
        except _HeadTooLong:
            self._refuse(conn, 431)
            data, complete = b"", False
        if complete:
            self.poller.unregister(conn.sock)
            self.pending_conns.remove(conn)
            self.enqueue_req(conn)
        elif not data:
            self._drop(conn)

    def _drop(self, conn: Connection) -> None:
        self.pending_conns.remove(conn)
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()

    @staticmethod
    def _refuse(conn: Connection, status: int) -> None:
        metrics.REFUSALS.labels("http", _REASONS[status]).inc()
        try:
            conn.sock.send(_answer(status))
        except OSError:
            pass  # it does not read either

    def _linger(self, sock: LimitedSocket) -> None:
        """Let the peer take the last answer before the connection goes; on the main thread."""
        sock.rest()
        sock.setblocking(False)
        try:
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            sock.close()
            return
        entry = (time.monotonic() + LINGER_SECONDS, sock)
        while len(self._lingering) >= MAX_LINGERING:
            self._let_go(self._lingering[0])
        self._lingering.append(entry)
        self.poller.register(sock, selectors.EVENT_READ, partial(self._throw_away, entry))

    def _throw_away(self, entry: tuple[float, LimitedSocket], _client: Any) -> None:
        try:
            over = not entry[1].recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            over = True
        if over:
            self._let_go(entry)

    def _let_go(self, entry: tuple[float, LimitedSocket]) -> None:
        self._lingering.remove(entry)
        self.poller.unregister(entry[1])
        entry[1].close()

    def _is_proxy(self, address: Any) -> bool:
        peer = ipaddress.ip_address(address[0])
        if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped:
            peer = peer.ipv4_mapped
        return any(peer in network for network in self._proxies)


class ServerLog(Logger):  # type: ignore[misc]
    """Gunicorn's own log lines, without what requests say: that could name patients."""

    def setup(self, cfg: Any) -> None:
        """Nothing: the lines go through structlog."""

    def exception(self, msg: str, *_args: Any, **_kwargs: Any) -> None:
        """The kind of the fault and where it was, not its message."""
        error = sys.exc_info()[1]
        log.error("web server", what=msg.partition("%")[0].strip(), **(place_of(error) if error else {}))

    def error(self, msg: str, *_args: Any, **_kwargs: Any) -> None:
        """The line's fixed beginning."""
        log.error("web server", what=msg.partition("%")[0].strip())

    def critical(self, msg: str, *_args: Any, **_kwargs: Any) -> None:
        """The line's fixed beginning."""
        log.error("web server", what=msg.partition("%")[0].strip())

    def warning(self, msg: str, *_args: Any, **_kwargs: Any) -> None:
        """The line's fixed beginning."""
        log.warning("web server", what=msg.partition("%")[0].strip())

    def info(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Starting and stopping: the supervisor tells of it."""

    def debug(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Not kept."""

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Kept by `node.web.observe`."""

    def reopen_files(self) -> None:
        """There are none."""


def _status_of(exc: Exception) -> int:
    """What gunicorn's parser refuses (its exceptions name themselves)."""
    known = {"LimitRequestLine": 414, "LimitRequestHeaders": 431, "ExpectationFailed": 417}
    known |= {"UnsupportedTransferCoding": 501}
    if type(exc).__name__ in known:
        return known[type(exc).__name__]
    return 400 if type(exc).__module__ == "gunicorn.http.errors" else 500


_REASONS = {
    400: "malformed_request",
    408: "request_timeout",
    414: "uri_too_long",
    417: "expectation_failed",
    431: "header_too_large",
    500: "internal",
    501: "unsupported_transfer_coding",
}


def _answer(status: int) -> bytes:
    body = problem(status, _REASONS[status], "", "")
    head = (
        f"HTTP/1.1 {status} {_REASONS[status].replace('_', ' ').title()}\r\nContent-Type: {PROBLEM}\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
