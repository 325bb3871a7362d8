"""One part of a running archive is killed, and the whole comes back without anybody's help."""

import os
import random
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.archive import Archive, running_archive
from tests.integration.test_lifecycle import fetched, gone, store, stored
from tests.kills import faults
from tests.support import wait_until

pytestmark = pytest.mark.slow
BACK_SECONDS = 30.0  # seconds on a quiet machine


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with running_archive(tmp_path_factory.mktemp("singly") / "data") as running:
        yield running


def victims(archive: Archive, name: str) -> list[int]:
    """Whom the fault of this name could kill now."""
    (fault,) = (each for each in faults.FAULTS if each.name == name)
    return fault.victims(faults.processes(archive.process.pid))


@pytest.mark.parametrize("name", [each.name for each in faults.FAULTS])
def test_a_killed_part_is_replaced_and_nothing_is_lost(archive: Archive, name: str) -> None:
    number = [each.name for each in faults.FAULTS].index(name)
    sent = dict([store(archive, 2 * number)])
    killed = victims(archive, name)
    (fault,) = (each for each in faults.FAULTS if each.name == name)
    assert faults.kill_one(fault, archive, random.Random(1)) in killed
    wait_until(lambda: set(victims(archive, name)) - set(killed), BACK_SECONDS, f"a new {name}")
    wait_until(lambda: stored(archive, 2 * number + 1, sent), BACK_SECONDS, "stored again")
    wait_until(archive.ready, BACK_SECONDS, "ready")
    assert fetched(archive, list(sent)) == sent


def test_a_web_server_that_was_killed_while_a_client_kept_its_worker_busy(archive: Archive) -> None:
    """The orphaned worker may finish what it has begun, but not keep the port from the next server."""
    (master,) = victims(archive, "web server")
    (worker,) = victims(archive, "web worker")
    with socket.create_connection(("127.0.0.1", archive.http_port), timeout=10) as client:
        client.sendall(
            b"POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
            b"Content-Type: application/dicom\r\n\r\n" + bytes(1000)
        )
        os.kill(master, signal.SIGKILL)
        wait_until(lambda: set(victims(archive, "web worker")) - {worker}, BACK_SECONDS, "a new worker")
        assert not gone(worker), "it still waits for its client"
    wait_until(archive.ready, BACK_SECONDS, "ready")
    wait_until(lambda: gone(worker), BACK_SECONDS, "the orphan has ended")
