"""`python -m chaos.traffic.greedy KIND`: clients that take more than their share, until they are killed.

They say "ready" on standard output when they are in position. Nobody notes what becomes of what they send: it
is of patients that no history knows.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import selectors
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

from chaos import corpus, options
from chaos.corpus import CT, EXPLICIT, Instance
from chaos.multipart import AS_RECEIVED
from chaos.target import Dicom, Web, WebSession
from chaos.traffic.association import Association

HALF_OPEN = 2000
OBJECTS = 10
OBJECT_BYTES = 1 << 30
FLOODING = 100  # associations at once: ten of what clients usually keep busy
READERS = 200
BYTES_PER_SECOND = 10_000
SMALL_WINDOW = 8192  # so that the kernel takes little for us
PAUSE_SECONDS = 0.2


class Greedy:
    """Clients at an own address, on one archive."""

    def __init__(self, dicom: Dicom, web: Web, source: str, seed: int) -> None:
        self._dicom = replace(dicom, source=source, calling="GREEDY")
        self._web = web
        self._source = source
        self._seed = seed

    def half_open_dicom(self) -> None:
        """Connections that have sent three bytes of an A-ASSOCIATE-RQ."""
        self._half_open(self._dicom.host, self._dicom.port, b"\1\0\0")

    def half_open_web(self) -> None:
        """Connections that have sent three bytes of a TLS ClientHello, or of a request."""
        scheme, host, port = self._where()
        self._half_open(host, port, b"\x16\3\1" if scheme == "https" else b"GET")

    def gigabytes(self) -> None:
        """Objects of 1 GB each at once, over and over, as fast as they are taken; none comes to its end."""

        def send(number: int) -> None:
            each = _instance(self._seed, number)
            pixels = b"\xe0\x7f\x10\x00OW\0\0" + OBJECT_BYTES.to_bytes(4, "little")
            association = Association(self._dicom, CT, EXPLICIT)
            try:
                association.store_without_end(1, each.uid, corpus.head(each) + pixels, OBJECT_BYTES)
            finally:
                association.close()

        self._everywhere(OBJECTS, send)

    def flood(self) -> None:
        """Small images over as many associations as are accepted, as fast as they are taken."""

        def send(number: int) -> None:
            association = Association(self._dicom, CT, EXPLICIT)
            try:
                for message in range(1, 1000):
                    each = _instance(self._seed, number * 1000 + message)
                    pixels = b"\xe0\x7f\x10\x00OW\0\0" + (8192).to_bytes(4, "little") + bytes(8192)
                    association.store(message, each.uid, corpus.head(each) + pixels)
            finally:
                association.close()

        self._everywhere(FLOODING, send)

    def slow_readers(self) -> None:
        """The largest study, retrieved many times at once, each time at 10 KB/s."""
        path = f"/dicom-web/studies/{self._largest()}"
        sockets: dict[int, socket.socket] = {}
        for number in range(READERS):
            with contextlib.suppress(OSError):
                sockets[number] = self._ask(path)
        _ready()
        while True:
            for number, each in sockets.items():
                try:
                    over = not each.recv(BYTES_PER_SECOND)
                except (ssl.SSLWantReadError, BlockingIOError):
                    over = False
                except OSError:
                    over = True
                if over:
                    each.close()
                    with contextlib.suppress(OSError):
                        sockets[number] = self._ask(path)
            time.sleep(1)

    # --- Inside ----------------------------------------------------------------------------------

    def _where(self) -> tuple[str, str, int]:
        url = urlsplit(self._web.url)
        return url.scheme, url.hostname or "", url.port or (443 if url.scheme == "https" else 80)

    def _connect(self, host: str, port: int) -> socket.socket:
        connected = socket.socket()
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW)
        connected.settimeout(20)
        if self._source:
            connected.bind((self._source, 0))
        connected.connect((host, port))
        return connected

    def _half_open(self, host: str, port: int, begin: bytes) -> None:
        """What is closed is opened again, a few hundred a second."""
        begun = 0
        with selectors.DefaultSelector() as selector:
            while True:
                room = HALF_OPEN - len(selector.get_map())
                for _ in range(min(room, 200 if begun < HALF_OPEN else 30)):
                    with contextlib.suppress(OSError):
                        connected = self._connect(host, port)
                        connected.sendall(begin)
                        selector.register(connected, selectors.EVENT_READ)
                    begun += 1
                    if begun == HALF_OPEN:
                        _ready()
                for key, _ in selector.select(0.1):
                    selector.unregister(key.fileobj)
                    if isinstance(key.fileobj, socket.socket):
                        key.fileobj.close()
                time.sleep(0.1 if begun >= HALF_OPEN else 0)

    def _everywhere(self, count: int, send: Callable[[int], None]) -> None:
        """Send in so many threads, again whenever it has ended or failed, each time with another number."""

        def over_and_over(thread: int) -> None:
            number = thread
            while True:
                with contextlib.suppress(OSError):
                    send(number)
                number += count
                time.sleep(PAUSE_SECONDS)

        for thread in range(count):
            threading.Thread(target=over_and_over, args=(thread,), daemon=True).start()
        _ready()
        threading.Event().wait()

    def _largest(self) -> str:
        session = WebSession(self._web, lambda _page: None)
        answer = session.get("studies?limit=100&includefield=00201208", "application/dicom+json")
        studies = json.loads(answer.text)
        return str(max(studies, key=_instances)["0020000D"]["Value"][0])

    def _ask(self, path: str) -> socket.socket:
        scheme, host, port = self._where()
        connected = self._connect(host, port)
        name = self._web.server_name or host
        if scheme == "https":
            context = ssl.create_default_context(cafile=self._web.ca)
            connected = context.wrap_socket(connected, server_hostname=name)
        lines = [f"GET {path} HTTP/1.1", f"Host: {name}", f"Accept: {AS_RECEIVED}"]
        if self._web.token:
            lines.append(f"Authorization: Bearer {self._web.token}")
        connected.sendall("\r\n".join([*lines, "", ""]).encode())
        connected.setblocking(False)
        return connected


def _instances(study: dict[str, dict[str, list[int]]]) -> int:
    return study["00201208"]["Value"][0]


def _instance(seed: int, number: int) -> Instance:
    """An instance of a corpus that is in no history, as CT in Explicit VR."""
    return replace(corpus.instance(seed, number), sop_class=CT, syntax=EXPLICIT)


def _ready() -> None:
    print("ready", flush=True)


KINDS: dict[str, Callable[[Greedy], None]] = {
    "half-open-dicom": Greedy.half_open_dicom,
    "half-open-web": Greedy.half_open_web,
    "gigabytes": Greedy.gigabytes,
    "flood": Greedy.flood,
    "slow-readers": Greedy.slow_readers,
}


def main(argv: list[str] | None = None) -> int:
    """Run until killed; returns 2 for wrong options."""
    parser = argparse.ArgumentParser(prog="python -m chaos.traffic.greedy", description=__doc__)
    options.add(parser)
    parser.add_argument("--from", metavar="ADDRESS", dest="source", default="", help="the clients' own")
    parser.add_argument("kind", choices=KINDS)
    given = parser.parse_args(argv)
    try:
        where = options.Addresses(given)
        dicom, web = where.dicom(given.dicom)[0], where.web(given.http)[0]
    except (ValueError, OSError) as error:
        parser.error(str(error))
    os.nice(19)  # on machines of their own they would take none of the archive's processor time
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    KINDS[given.kind](Greedy(dicom, web, given.source, random.SystemRandom().getrandbits(40)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
