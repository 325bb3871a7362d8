"""Connections whose peers are slow, and heads that arrive in any pieces."""

import itertools
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from gunicorn.config import Config
from hypothesis import given
from hypothesis import strategies as st

from node.web import limited_socket, worker
from node.web.body import READ_BYTES
from node.web.limited_socket import LimitedSocket, TooSlow
from node.web.worker import Connection

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
ADDRESSES = socket.inet_aton("192.0.2.9") + socket.inet_aton("192.0.2.1") + struct.pack(">HH", 1, 2)
ANNOUNCED = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack(">H", len(ADDRESSES)) + ADDRESSES


@pytest.fixture
def pair() -> Iterator[tuple[LimitedSocket, socket.socket]]:
    ours, theirs = socket.socketpair()
    limited = LimitedSocket.of(ours)
    limited.setblocking(True)
    theirs.settimeout(10)
    yield limited, theirs
    limited.close()
    theirs.close()


def connection(*, proxied: bool) -> Connection:
    ours, theirs = socket.socketpair()
    theirs.close()
    return Connection(
        Config(),
        LimitedSocket.of(ours),
        ("198.51.100.1", 5),
        ("127.0.0.1", 80),
        proxied=proxied,
        linger=lambda sock: sock.close(),
    )


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[low:high] for low, high in itertools.pairwise(edges) if high > low]


def test_silence_has_an_end(
    pair: tuple[LimitedSocket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limited_socket, "IDLE_SECONDS", 0.05)
    limited, _ = pair
    limited.setblocking(True)
    with pytest.raises(TooSlow):
        limited.recv(10)


def test_who_does_not_read_is_left(
    pair: tuple[LimitedSocket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limited_socket, "IDLE_SECONDS", 0.05)
    limited, _ = pair
    limited.setblocking(True)
    with pytest.raises(TooSlow):
        limited.sendall(bytes(16 << 20))


def test_trickling_has_an_end_too(
    pair: tuple[LimitedSocket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limited_socket, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(limited_socket, "RATE_BYTES_PER_SECOND_MIN", 1 << 50)  # any peer is slower
    limited, theirs = pair
    over = threading.Event()

    def trickle() -> None:
        while not over.wait(0.02):
            theirs.sendall(b"x")

    peer = threading.Thread(target=trickle)
    peer.start()
    try:
        limited.begin()
        began = time.monotonic()
        with pytest.raises(TooSlow):
            while time.monotonic() - began < 30:
                limited.recv(1)
        limited.begin()  # the next request has its own time
        assert limited.recv(1) == b"x"
    finally:
        over.set()
        peer.join()


def test_our_own_time_is_not_the_peers(
    pair: tuple[LimitedSocket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limited_socket, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(limited_socket, "RATE_BYTES_PER_SECOND_MIN", 1 << 50)
    limited, theirs = pair
    limited.begin()
    began = time.monotonic()
    while time.monotonic() - began < 0.3:
        pass  # an answer is being made
    limited.sendall(b"x")
    limited.flush()
    assert theirs.recv(1) == b"x"


def test_between_requests_nothing_counts(
    pair: tuple[LimitedSocket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limited_socket, "GRACE_SECONDS", -1.0)
    limited, theirs = pair
    limited.begin()
    limited.rest()
    theirs.sendall(b"x")
    assert limited.recv(1) == b"x"


def test_large_answers_arrive_whole(pair: tuple[LimitedSocket, socket.socket]) -> None:
    limited, theirs = pair
    data = bytes(range(256)) * 64
    limited.begin()
    limited.sendall(memoryview(data))
    limited.flush()
    assert taken(theirs, len(data)) == data


def test_small_pieces_wait_for_a_large_one(pair: tuple[LimitedSocket, socket.socket]) -> None:
    limited, theirs = pair
    large = bytes(limited_socket.GATHERED_BYTES)
    limited.sendall(b"head")
    reused = bytearray(b"more")
    limited.sendall(reused)
    reused[:] = b"less"
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(1)
    theirs.settimeout(10)
    limited.sendall(large)
    assert taken(theirs, 8 + len(large)) == b"headmore" + large


def test_small_pieces_are_held_up_to_a_limit(pair: tuple[LimitedSocket, socket.socket]) -> None:
    limited, theirs = pair
    pieces = [bytes([number]) * 1000 for number in range(-(-limited_socket.GATHERED_BYTES // 1000))]
    for piece in pieces:
        limited.sendall(piece)
    assert taken(theirs, 1000 * len(pieces)) == b"".join(pieces)


def test_who_waits_for_the_peer_has_sent_all_before(pair: tuple[LimitedSocket, socket.socket]) -> None:
    limited, theirs = pair
    theirs.sendall(b"question")
    limited.sendall(b"go on")
    assert limited.recv(8) == b"question"
    assert taken(theirs, 5) == b"go on"


def taken(peer: socket.socket, size: int) -> bytes:
    """So many bytes, which must come within the socket's own limit."""
    received = b""
    while len(received) < size:
        received += peer.recv(65536)
    return received


@given(st.lists(st.integers(0, 1000), max_size=8))
def test_a_head_is_complete_at_its_empty_line(places: list[int]) -> None:
    conn = connection(proxied=False)
    pieces = cut(HEAD, places)
    assert [conn.gather(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert conn.client == ("198.51.100.1", 5)
    conn.close()


@given(st.lists(st.integers(0, 1000), max_size=8))
def test_a_proxy_speaks_first(places: list[int]) -> None:
    conn = connection(proxied=True)
    pieces = cut(ANNOUNCED + HEAD, places)
    assert [conn.gather(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert conn.client == ("192.0.2.9", 0)
    conn.close()


@given(st.binary(min_size=1, max_size=100))
def test_a_proxy_that_says_anything_else_is_refused(data: bytes) -> None:
    conn = connection(proxied=True)
    try:
        complete = conn.gather(data)
    except worker._NotAProxy:
        complete = False
    else:
        signature = ANNOUNCED[:12]
        assert signature.startswith(data[:12]) or data[:12] == signature
    assert not complete
    conn.close()


def test_a_head_without_end() -> None:
    conn = connection(proxied=False)
    with pytest.raises(worker._HeadTooLong):
        while True:
            conn.gather(b"x" * 8192)
    conn.close()


def test_no_more_of_a_body_is_received_than_is_read_at_a_time() -> None:
    asked: list[int] = []

    class Counted(LimitedSocket):
        def recv(self, size: int, flags: int = 0, /) -> bytes:
            asked.append(size)
            return super().recv(size, flags)

    ours, theirs = socket.socketpair()
    conn = Connection(
        Config(),
        Counted.of(ours),
        ("198.51.100.1", 5),
        ("127.0.0.1", 80),
        proxied=False,
        linger=lambda sock: sock.close(),
    )
    conn.sock.setblocking(True)
    conn.gather(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4194304\r\n\r\n")
    conn.init()
    sender = threading.Thread(target=theirs.sendall, args=(bytes(4 << 20),))
    sender.start()
    request = next(conn.parser)
    total = 0
    while data := request.body.read(READ_BYTES):
        total += len(data)
    sender.join()
    assert total == 4 << 20
    assert max(asked) == READ_BYTES
    conn.close()
    theirs.close()
