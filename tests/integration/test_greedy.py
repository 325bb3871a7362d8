"""The suite's own greedy clients: each gets into position and takes, and others are served meanwhile."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from chaos import corpus
from chaos.corpus import Sample
from chaos.target import Dicom
from chaos.traffic.association import Association
from chaos.traffic.greedy import HALF_OPEN, KINDS, OBJECTS, READERS
from tests.archive import Archive, running_archive
from tests.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

GREEDY, OURS = "127.0.0.2", "127.0.0.1"
POSITION_SECONDS = 60.0


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """A running archive."""
    with running_archive(tmp_path_factory.mktemp("greedy") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sample]:
    """Instances that nobody has stored yet."""
    return iter(corpus.make(tmp_path_factory.mktemp("samples") / "made", 400, seed=71).samples)


@contextmanager
def greedy(archive: Archive, kind: str) -> Iterator[None]:
    """Greedy clients, in position."""
    where = ("--dicom", f"127.0.0.1:{archive.dicom_port}", "--http", archive.base_url, "--from", GREEDY)
    command = [sys.executable, "-m", "chaos.traffic.greedy", *where, kind]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    late = threading.Timer(POSITION_SECONDS, process.kill)
    late.start()
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
        assert process.poll() is None
    finally:
        late.cancel()
        process.kill()
        process.wait()


def store(archive: Archive, sample: Sample) -> int:
    """Store an image as somebody else does; its status."""
    address = Dicom("127.0.0.1", archive.dicom_port, source=OURS)
    association = Association(address, sample.sop_class, sample.syntax)
    try:
        return association.store(1, sample.uid, sample.dataset())
    finally:
        association.close()


def connections(port: int) -> int:
    """How many connections the greedy clients have to a port of ours."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    theirs, ours = "0200007F:", f"0100007F:{port:04X}"
    rows = (line.split() for line in lines)
    return sum(row[1].startswith(theirs) and row[2] == ours and row[3] == "01" for row in rows)


def patients(archive: Archive) -> set[str]:
    """Seeds of the corpora that the archive has something of."""
    found = requests.get(f"{archive.base_url}/dicom-web/studies?limit=1000", timeout=30).json()
    return {each["00100020"]["Value"][0].split("-")[1] for each in found}


# How many connections have to be there; half-open ones as many as an archive without a proxy lets wait
CASES = {
    "half-open-dicom": (False, HALF_OPEN // 8),
    "half-open-web": (True, HALF_OPEN // 8),
    "gigabytes": (False, OBJECTS),
    "flood": (False, 20),
    "slow-readers": (True, READERS // 8),
}


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_clients_take_and_others_are_served(
    archive: Archive, samples: Iterator[Sample], kind: str
) -> None:
    web, count = CASES[kind]
    assert store(archive, next(samples)) == 0
    port = archive.http_port if web else archive.dicom_port
    with greedy(archive, kind):
        wait_until(lambda: connections(port) >= count, 30, f"{count} connections")
        for _ in range(5):
            assert store(archive, next(samples)) == 0
        if kind == "flood":
            wait_until(lambda: len(patients(archive)) > 1, 30, "what floods it is stored")
    assert store(archive, next(samples)) == 0
