"""The web server with peers that are slow, proxies, damaged objects, and an operator who stops it."""

import json
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from pydicom.dataset import FileDataset

from tests import corpus
from tests.archive import Archive, running_archive
from tests.support import wait_until

pytestmark = pytest.mark.quiet

CANARY = "CANARYBIRD"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with running_archive(tmp_path_factory.mktemp("web")) as running:
        yield running


def connect(archive: Archive, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", archive.http_port), 20, (source, 0))


def store(archive: Archive, image: FileDataset | Path) -> str:
    """Store; returns the instance's address."""
    answer = requests.post(
        f"{archive.base_url}/dicom-web/studies",
        data=image.read_bytes() if isinstance(image, Path) else corpus.encode(image),
        headers={"Content-Type": "application/dicom"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["00081199"]["Value"][0]["00081190"]["Value"][0])


def received(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    data = bytearray()
    while piece := connection.recv(65536):
        data += piece
    return bytes(data)


def one_answer(connection: socket.socket) -> bytes:
    """What comes up to the empty list that the answer consists of."""
    data = b""
    while not data.endswith(b"[]"):
        data += connection.recv(65536)
    return data


# --- Slow peers ---


def test_half_a_head_on_many_connections_keeps_nobody_waiting(archive: Archive) -> None:
    began = time.monotonic()
    halves = [connect(archive) for _ in range(150)]
    for half in halves:
        half.sendall(b"GET /dicom-web/studies HTTP/1.1\r\nHost: 127.0")
    assert requests.get(f"{archive.base_url}/health/ready", timeout=5).status_code == 200
    assert requests.get(f"{archive.base_url}/dicom-web/studies", timeout=5).status_code == 200
    assert time.monotonic() - began < 9  # while they all were open
    halves[0].sendall(b".0.1")  # trickling does not stretch it
    for half in halves:
        assert received(half).startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began < 25


def test_health_is_answered_while_everything_else_is_busy(tmp_path: Path) -> None:
    with running_archive(tmp_path, environment={"STELE_HTTP__THREADS": "2"}) as small:
        head = (
            b"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/dicom\r\n"
            b"Content-Length: 1000\r\n\r\n"
        )
        busy = [connect(small) for _ in range(2)]
        for each in busy:
            each.sendall(head + b"x" * 500)
        waiting = [connect(small) for _ in range(30)]
        for each in waiting:
            each.sendall(b"GET /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        began = time.monotonic()
        assert requests.get(f"{small.base_url}/health/live", timeout=5).status_code == 200
        assert requests.get(f"{small.base_url}/health/ready", timeout=5).status_code == 200
        assert requests.get(f"{small.base_url}/metrics", timeout=5).status_code == 200
        assert time.monotonic() - began < 5
        for each in busy:
            each.sendall(b"x" * 500)
        answers = [received(each) for each in waiting]
        statuses = {answer[9:12] for answer in answers}
        assert statuses == {b"200", b"503"}
        assert all(b"retry-after" in answer.lower() for answer in answers if answer[9:12] == b"503")


# --- Damaged objects ---


def objects(archive: Archive) -> set[Path]:
    files = (path for path in (archive.data / "objects").rglob("*") if path.is_file())
    return {path for path in files if not path.stat().st_mode & 0o200}  # what is writable is no object


def damage(path: Path, offset: int) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))
    path.chmod(0o400)


def test_an_answer_that_fails_half_way_is_broken_off(archive: Archive, tmp_path: Path) -> None:
    before = objects(archive)
    image = corpus.multiframe(tmp_path / "image.dcm", megabytes=12)
    address = store(archive, image)
    (largest,) = [path for path in objects(archive) - before if path.stat().st_size > (8 << 20)]
    whole = requests.get(address, headers={"Accept": "application/dicom; transfer-syntax=*"}, timeout=60)
    assert whole.status_code == 200
    assert len(whole.content) > 10 << 20
    damage(largest, largest.stat().st_size - 1000)
    for accept in (
        "application/dicom; transfer-syntax=*",
        'multipart/related; type="application/dicom"; transfer-syntax=*',
    ):
        with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError)):
            requests.get(address, headers={"Accept": accept}, timeout=60)
    assert "answer broken off" in archive.log


def test_an_object_that_fails_at_once_is_500_and_not_sent(archive: Archive) -> None:
    before = objects(archive)
    (image,) = corpus.ct_series(1, size=64, study=corpus.Study(seed=81))
    address = store(archive, image)
    for path in objects(archive) - before:
        damage(path, path.stat().st_size // 2)
    for below, accept in (
        ("", "application/dicom; transfer-syntax=*"),
        ("", "multipart/related; type=application/dicom; transfer-syntax=*"),
        ("/frames/1", "application/octet-stream"),
        ("/frames/1", 'multipart/related; type="application/octet-stream"'),
        ("/bulkdata/7FE00010", "*/*"),
        ("/rendered", "image/png"),
    ):
        answer = requests.get(f"{address}{below}", headers={"Accept": accept}, timeout=60)
        assert (answer.status_code, answer.json()["title"]) == (500, "corrupt"), (below, accept)
    assert requests.get(f"{address}/metadata", timeout=60).status_code == 200


# --- Proxies ---


def announced(address: str) -> bytes:
    """A PROXY protocol v2 header for a TCP connection from an address."""
    addresses = socket.inet_aton(address) + socket.inet_aton("192.0.2.1") + struct.pack(">HH", 4711, 80)
    return b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack(">H", len(addresses)) + addresses


def test_proxies_tell_whom_they_speak_for(tmp_path: Path) -> None:
    request = b"GET /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-Proto: https\r\n"
    environment = {"STELE_HTTP__PROXIES": json.dumps(["127.0.0.2/32"])}
    with running_archive(tmp_path, environment=environment) as behind:
        with connect(behind, "127.0.0.2") as proxy:
            proxy.sendall(announced("192.0.2.77")[:20])
            proxy.sendall(announced("192.0.2.77")[20:] + request + b"\r\n")
            assert one_answer(proxy).startswith(b"HTTP/1.1 200 ")
            # the same connection: still the same client
            proxy.sendall(request + b"Connection: close\r\n\r\n")
            assert received(proxy).startswith(b"HTTP/1.1 200 ")
        wait_until(lambda: behind.log.count('"192.0.2.77"') >= 2, 10, "both requests in the log")
        with connect(behind, "127.0.0.2") as silent:
            silent.sendall(request + b"\r\n")
            assert received(silent) == b""
        with connect(behind) as liar:
            liar.sendall(announced("192.0.2.78") + request + b"\r\n")
            assert received(liar).startswith(b"HTTP/1.1 400 ")
        assert "192.0.2.78" not in behind.log


# --- Stopping ---


def test_a_request_in_hand_is_finished_before_it_stops(tmp_path: Path) -> None:
    with running_archive(tmp_path) as stopping:
        (image,) = corpus.ct_series(1, size=64, study=corpus.Study(seed=82))
        data = corpus.encode(image)
        with connect(stopping) as sender:
            sender.sendall(
                b"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/dicom\r\n"
                b"Content-Length: %d\r\n\r\n" % len(data)
            )
            sender.sendall(data[:1000])
            stopping.process.send_signal(signal.SIGTERM)

            def refuses() -> bool:
                try:
                    connect(stopping).close()
                except OSError:
                    return True
                return False

            wait_until(refuses, 20, "no new connections")
            sender.sendall(data[1000:])
            assert received(sender).startswith(b"HTTP/1.1 200 ")
        assert stopping.stop() == 0


# --- Silence ---


def test_names_of_patients_never_reach_the_log(archive: Archive) -> None:
    (image,) = corpus.ct_series(1, size=32, study=corpus.Study(seed=83))
    image.PatientName, image.PatientID = f"{CANARY}^A", f"{CANARY}1"
    store(archive, image)
    found = requests.get(f"{archive.base_url}/dicom-web/studies?PatientName={CANARY}*", timeout=30)
    assert len(found.json()) == 1
    base = f"{archive.base_url}/dicom-web"
    for address in (
        f"{base}/studies?PatientName={CANARY}*&limit=x",
        f"{base}/studies?{CANARY}=1",
        f"{base}/{CANARY}",
        f"{base}/studies/{CANARY}",
        f"{base}/studies?PatientBirthDate={CANARY}",
    ):
        answer = requests.get(address, timeout=30)
        assert answer.status_code in (400, 404)
        assert CANARY not in answer.text
    for content_type in (f"multipart/related; boundary={CANARY}; type={CANARY}", f"{CANARY}/x"):
        answer = requests.post(
            f"{base}/studies", data=CANARY, headers={"Content-Type": content_type}, timeout=30
        )
        assert answer.status_code in (400, 415)
        assert CANARY not in answer.text
    assert CANARY not in requests.get(f"{archive.base_url}/metrics", timeout=30).text
    assert CANARY not in archive.log


def test_every_request_is_numbered_logged_and_measured(archive: Archive) -> None:
    answer = requests.get(f"{archive.base_url}/dicom-web/studies/1.2.3/series", timeout=30)
    number = answer.headers["X-Request-ID"]
    wait_until(lambda: number in archive.log, 10, "the request in the log")
    line = next(json.loads(each) for each in archive.log.splitlines() if number in each)
    assert (line["route"], line["status"]) == ("/dicom-web/studies/{study}/series", 200)
    measured = requests.get(f"{archive.base_url}/metrics", timeout=30).text
    assert 'stele_http_seconds_count{method="GET",route="/dicom-web/studies/{study}/series"' in measured
