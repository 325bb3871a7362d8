"""Connections to HTTP clients that cannot hold a thread by being slow.

Each wait for the peer is limited (`IDLE_SECONDS`), and so is the average rate of a request and its answer,
in both directions (`RATE_BYTES_PER_SECOND_MIN`, after a grace). Small pieces of an answer are gathered, so
that heads and delimiters cost no system call, and no packet, of their own.
"""

import errno
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from node.domain import pdata

IDLE_SECONDS = 30.0
GRACE_SECONDS = 60.0
RATE_BYTES_PER_SECOND_MIN = 32 << 10
GATHERED_BYTES = 32 << 10  # of an answer, held until more of it comes or it is over


class TooSlow(TimeoutError):
    """The peer took too long. Carries an errno that gunicorn takes for an ordinary broken connection."""

    def __init__(self) -> None:
        super().__init__(errno.EPIPE, "peer too slow")


class LimitedSocket(socket.socket):
    """A connection whose waits are limited in length and in sum. Only the peer's time counts: what we
    ourselves take to make an answer, or to store what was sent, is no fault of its."""

    _counts = False
    _waited_seconds = 0.0
    _moved = 0
    _held: tuple[bytes, ...] = ()
    _held_bytes = 0

    @classmethod
    def of(cls, plain: socket.socket) -> "LimitedSocket":
        """The same connection, limited; `plain` is not used afterwards."""
        return cls(plain.family, plain.type, plain.proto, fileno=plain.detach())

    def begin(self) -> None:
        """A request begins: its waits and its bytes count from here."""
        self._counts = True
        self._waited_seconds = 0.0
        self._moved = 0

    def rest(self) -> None:
        """No request is going on: nothing counts."""
        self._counts = False

    def setblocking(self, flag: bool, /) -> None:
        """Blocking means: for at most `IDLE_SECONDS`."""
        super().settimeout(IDLE_SECONDS if flag else 0.0)

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """As usual, after what is held has been sent; TooSlow."""
        if self._held:
            self.flush()
        with self._waiting():
            data = super().recv(size, flags)
        self._moved += len(data)
        return data

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """As usual, but the limit is on each advance, not on the whole, and what is small is held for the
        next call or `flush`; TooSlow."""
        size = len(data)
        if self._held_bytes + size < GATHERED_BYTES:
            self._held += (bytes(data),)
            self._held_bytes += size
        else:
            self._send([*self._take_held(), data], flags)

    def flush(self) -> None:
        """Send what is held; TooSlow."""
        if self._held:
            self._send(self._take_held(), 0)

    def _take_held(self) -> list[pdata.Buffer]:
        held, self._held, self._held_bytes = self._held, (), 0
        return list(held)

    def _send(self, buffers: list[pdata.Buffer], flags: int) -> None:
        while buffers:
            with self._waiting():
                sent = super().sendmsg(buffers, (), flags)
            self._moved += sent
            buffers = pdata.unwritten(buffers, sent)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        allowed = GRACE_SECONDS + self._moved / RATE_BYTES_PER_SECOND_MIN
        if self._counts and self._waited_seconds > allowed:
            raise TooSlow
        began = time.monotonic()
        try:
            yield
        except TimeoutError:
            raise TooSlow from None
        finally:
            self._waited_seconds += time.monotonic() - began
