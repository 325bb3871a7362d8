"""Peers that take more than their share, each as a process of its own: `python -m … KIND PORT [PATH]`.

They come from 127.0.0.2, say "ready" on standard output when they are in position, and go on until they are
killed.
"""

import contextlib
import os
import resource
import selectors
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable

from pydicom.uid import generate_uid

from node.dimse import command as commands
from node.dimse import pdu
from node.dimse.command import Command
from tests.integration.dimse_peer import CT, EXPLICIT, IMPLICIT, Peer, context, item, p_data, request
from tests.integration.test_dimse_memory import MULTI_FRAME, header

HERE = ("127.0.0.2", 0)
HALF_OPEN = 2000
MOST = 250  # connections that a greedy peer opens
BYTES_PER_SECOND = 10_000
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"


def connect(port: int) -> socket.socket:
    """A connection from our address with a small window, so that the kernel takes little for us."""
    connected = socket.socket()
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    connected.bind(HERE)
    connected.settimeout(20)
    connected.connect(("127.0.0.1", port))
    return connected


def half_open(port: int, begin: bytes) -> None:
    """Two thousand connections that have said half a word; those that are closed are opened again, a
    few hundred a second."""
    begun = 0
    with selectors.DefaultSelector() as selector:
        while True:
            room = HALF_OPEN - len(selector.get_map())
            for _ in range(min(room, 200 if begun < HALF_OPEN else 30)):
                with contextlib.suppress(OSError):
                    connected = connect(port)
                    connected.sendall(begin)
                    selector.register(connected, selectors.EVENT_READ)
                begun += 1
                if begun == HALF_OPEN:
                    ready()
            for key, _ in selector.select(0.1):
                assert isinstance(key.fileobj, socket.socket)
                selector.unregister(key.fileobj)
                key.fileobj.close()
            time.sleep(0.1 if begun >= HALF_OPEN else 0)


def trickle(port: int, _path: str) -> None:
    """Every association that it may have under any title, each with a C-STORE at a byte a second."""
    peers = associations(port, [context(1, CT, EXPLICIT)])
    for peer in peers:
        peer.send_command(1, store_request(CT))
        peer.send(struct.pack(">BxIIBB", 4, 60_006, 60_002, 1, 0))
    ready()
    while True:
        for peer in peers:
            with contextlib.suppress(OSError):
                peer.send(b"\0")
        time.sleep(1)


def gigabytes(port: int, _path: str) -> None:
    """Ten C-STOREs of 1 GB each at once, over and over, as fast as they are taken."""
    piece = p_data(1, 0, bytes(65_530)) * 8

    def send() -> None:
        while True:
            with contextlib.suppress(OSError, AssertionError):
                peer = associate(port, "GREEDY", [context(1, MULTI_FRAME, EXPLICIT)])
                uid = generate_uid()
                peer.send_command(1, store_request(MULTI_FRAME, uid))
                peer.send(p_data(1, 0, header(uid)))
                for _ in range((1 << 30) // len(piece)):
                    peer.send(piece)
                peer.close()

    for _ in range(10):
        threading.Thread(target=send, daemon=True).start()
    time.sleep(1)
    ready()
    threading.Event().wait()


def slow_wado(port: int, path: str) -> None:
    """As many WADO-RS answers as it gets, each read at 10 KB/s; refused ones are asked for again."""
    accept = 'multipart/related; type="application/dicom"'
    ask = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {accept}\r\n\r\n"

    def begin() -> socket.socket:
        connected = connect(port)
        connected.sendall(ask.encode())
        return connected

    read_slowly([begin() for _ in range(MOST)], begin)


def slow_get(port: int, study_uid: str) -> None:
    """As many C-GETs of a study as it may have associations, each read at 10 KB/s."""
    role = item(0x54, struct.pack(">H", len(CT)) + CT.encode() + b"\0\1")
    contexts = [context(1, STUDY_ROOT_GET, IMPLICIT), context(3, CT, EXPLICIT)]
    peers = associations(port, contexts, role)
    for peer in peers:
        ask = Command(commands.C_GET_RQ, class_uid=STUDY_ROOT_GET, message_id=1, priority=0, dataset_type=0)
        peer.send_command(1, ask)
        peer.send(p_data(1, 2, identifier(study_uid)))
    read_slowly([peer.socket for peer in peers], None)


def read_slowly(sockets: list[socket.socket], again: Callable[[], socket.socket] | None) -> None:
    """Read all of them at BYTES_PER_SECOND, for ever; what ends is begun again."""
    for each in sockets:
        each.setblocking(False)
    ready()
    while True:
        for number, each in enumerate(sockets):
            try:
                over = not each.recv(BYTES_PER_SECOND)
            except BlockingIOError:
                over = False
            except OSError:
                over = True
            if over and again is not None:
                each.close()
                with contextlib.suppress(OSError):
                    sockets[number] = again()
                    sockets[number].setblocking(False)
        time.sleep(1)


def associations(port: int, contexts: list[bytes], more: bytes = b"") -> list[Peer]:
    """All that are accepted of MOST, under a new title for each ten."""
    found = []
    for number in range(MOST):
        with contextlib.suppress(OSError, AssertionError):
            found.append(associate(port, f"GREEDY{number // 10}", contexts, more))
    return found


def associate(port: int, calling: str, contexts: list[bytes], more: bytes = b"") -> Peer:
    """An association from our address; AssertionError if it is refused."""
    peer = Peer(connect(port))
    peer.send(request(*contexts, calling=calling, more=more))
    kind, _ = peer.read_pdu()
    if kind != pdu.ASSOCIATE_AC:
        peer.close()
    assert kind == pdu.ASSOCIATE_AC
    return peer


def store_request(class_uid: str, uid: str = "2.25.1") -> Command:
    """A C-STORE-RQ."""
    return Command(
        commands.C_STORE_RQ,
        class_uid=class_uid,
        message_id=1,
        priority=0,
        dataset_type=0,
        instance_uid=uid,
    )


def identifier(study_uid: str) -> bytes:
    """A C-GET identifier in Implicit VR Little Endian."""
    uid = study_uid.encode() + b"\0" * (len(study_uid) % 2)
    level = struct.pack("<HHI", 0x0008, 0x0052, 6) + b"STUDY "
    return level + struct.pack("<HHI", 0x0020, 0x000D, len(uid)) + uid


def ready() -> None:
    """Tell who started us that we are in position."""
    print("ready", flush=True)


if __name__ == "__main__":
    os.nice(19)  # a peer on a machine of its own would take none of the archive's processor time
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    kinds: dict[str, Callable[[int, str], None]] = {
        "half-open-dicom": lambda port, _: half_open(port, b"\1\0\0"),
        "half-open-http": lambda port, _: half_open(port, b"GET /dicom-web/stu"),
        "trickle": trickle,
        "gigabytes": gigabytes,
        "slow-wado": slow_wado,
        "slow-get": slow_get,
    }
    kinds[sys.argv[1]](int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
