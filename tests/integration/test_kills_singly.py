"""One part of a running archive is killed, and the whole comes back without anybody's help."""

import os
import random
import signal
import threading
from collections.abc import Iterator

import pytest
import requests

from tests.archive import Archive, running_archive
from tests.integration.test_lifecycle import fetched, store, stored
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
    """The worker, orphaned, must not keep the port from the next server, however busy it is."""
    (master,) = victims(archive, "web server")
    (worker,) = victims(archive, "web worker")
    ended = threading.Event()

    def ask_for_ever() -> None:
        with requests.Session() as session:
            while not ended.is_set():
                try:
                    session.get(f"{archive.base_url}/health/live", timeout=10)
                except requests.RequestException:
                    ended.wait(0.1)

    client = threading.Thread(target=ask_for_ever)
    client.start()
    try:
        os.kill(master, signal.SIGKILL)
        wait_until(
            lambda: set(victims(archive, "web worker")) - {worker}, BACK_SECONDS, "a new server with a worker"
        )
        wait_until(archive.ready, BACK_SECONDS, "ready")
    finally:
        ended.set()
        client.join()
