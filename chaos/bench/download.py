"""Studies by WADO-RS (PS3.18 section 10.4), fetched as fast as an archive sends them, and only counted."""

import http.client
import multiprocessing
import socket
import ssl
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from chaos.multipart import AS_RECEIVED
from chaos.target import Web

BUFFER_BYTES = 1 << 20
ANSWER_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Got:
    """Bytes of all answers' bodies, and the seconds from the first request to the last byte."""

    size: int
    seconds: float


_Told = tuple[float, float, int]  # begin, end, bytes


def download(web: Web, studies: list[str]) -> Got:
    """Fetch studies at once, a process for each. ConnectionError if one is refused or breaks off."""
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[_Told | str] = context.Queue()
    clients = [context.Process(target=_guarded, args=(web, study, results)) for study in studies]
    for client in clients:
        client.start()
    told = [results.get() for _ in clients]
    for client in clients:
        client.join()
    if lost := [each for each in told if isinstance(each, str)]:
        raise ConnectionError("; ".join(lost))
    began, ended, sizes = zip(*told, strict=True)
    return Got(sum(sizes), max(ended) - min(began))


def _guarded(web: Web, study: str, results: "multiprocessing.Queue[_Told | str]") -> None:
    try:
        results.put(_download(web, study))
    except Exception as error:  # noqa: BLE001 - the parent's to tell
        results.put(repr(error))


def _download(web: Web, study: str) -> _Told:
    connection = _connection(web)
    headers = {"Accept": AS_RECEIVED}
    if web.token:
        headers["Authorization"] = f"Bearer {web.token}"
    if web.server_name:
        headers["Host"] = web.server_name
    buffer = bytearray(BUFFER_BYTES)
    began, size = time.monotonic(), 0
    connection.request("GET", f"/dicom-web/studies/{study}", headers=headers)
    answer = connection.getresponse()
    if answer.status != http.client.OK:
        raise ConnectionError(f"WADO-RS: {answer.status}")
    while received := answer.readinto(buffer):
        size += received
    connection.close()
    return began, time.monotonic(), size


def _connection(web: Web) -> http.client.HTTPConnection:
    """Connected; by https, to a server that has a certificate of `server_name`."""
    parts = urlsplit(web.url)
    if parts.hostname is None or parts.port is None:
        raise ValueError(f"{web.url}: no host and port")
    connection = http.client.HTTPConnection(parts.hostname, parts.port)
    connection.sock = socket.create_connection((parts.hostname, parts.port), ANSWER_SECONDS)
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=web.ca)
        connection.sock = context.wrap_socket(connection.sock, server_hostname=web.server_name)
    return connection
