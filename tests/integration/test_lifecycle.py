"""`stele serve` as an operator sees it: stopping, killed parts, and which doors are open."""

import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from node.dimse import command as commands
from node.dimse import pdu
from node.dimse.command import Command
from node.domain.part10 import Meta, Part10Reader
from tests import corpus
from tests.archive import Archive, running_archive
from tests.integration.dimse_peer import CT, EXPLICIT, Peer, context, p_data, request
from tests.integration.test_dimse_roundtrip import get
from tests.support import wait_until

pytestmark = [pytest.mark.quiet, pytest.mark.slow]
STOP_SECONDS = 15.0  # "within seconds", on a busy machine
RESTART_SECONDS = 20.0
RETRY_SECONDS = 10.0  # the target is 3 s on a quiet machine


def image(number: int) -> tuple[str, bytes]:
    """A small CT slice: (SOP Instance UID, dataset bytes)."""
    study = corpus.Study(corpus.Person("PHANTOM^LIFE", "LIFE"), number)
    (ds,) = corpus.ct_series(1, 128, study=study)
    return str(ds.SOPInstanceUID), bytes(Part10Reader().feed(corpus.encode(ds)))


def store(archive: Archive, number: int) -> tuple[str, bytes]:
    """Store an image on an association of its own; it must be acknowledged."""
    uid, dataset = image(number)
    peer = Peer.associated(archive.dicom_port, context(1, CT, EXPLICIT))
    try:
        assert peer.store(1, uid, [dataset]).status == 0
    finally:
        peer.close()
    return uid, dataset


def fetched(archive: Archive, uids: list[str]) -> dict[str, bytes]:
    """What C-GET brings of these instances."""
    received, _ = get(archive.dicom_port, [Meta(CT, uid, EXPLICIT) for uid in uids])
    return received


def processes(parent: int) -> dict[int, str]:
    """A process's living descendants: command line by pid."""
    found = {}
    for task in Path("/proc").glob("[0-9]*"):
        try:
            status = (task / "stat").read_text().rpartition(")")[2].split()
            line = (task / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(status[1]) == parent and status[0] != "Z":
            found[int(task.name)] = line
            found.update(processes(int(task.name)))
    return found


def dimse_workers(archive: Archive) -> list[int]:
    """The pids of the processes that serve DICOM."""
    return sorted(
        pid for pid, line in processes(archive.process.pid).items() if "node.cli process dimse" in line
    )


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def listeners(archive: Archive) -> dict[int, set[str]]:
    """Listening TCP sockets of the archive's processes: addresses by port, out of /proc."""
    pids = [archive.process.pid, *processes(archive.process.pid)]
    inodes = set()
    for pid in pids:
        try:
            for descriptor in (Path("/proc") / str(pid) / "fd").iterdir():
                inodes.add(str(descriptor.readlink()).removeprefix("socket:[").rstrip("]"))
        except (FileNotFoundError, ProcessLookupError):
            continue
    found: dict[int, set[str]] = {}
    for table in ("tcp", "tcp6"):
        path = Path("/proc/net") / table
        for line in path.read_text().splitlines()[1:] if path.exists() else []:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, port = fields[1].split(":")
                found.setdefault(int(port, 16), set()).add(_address(address))
    return found


def _address(hexadecimal: str) -> str:
    words = [int(hexadecimal[at : at + 8], 16) for at in range(0, len(hexadecimal), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


@contextmanager
def half_sent(archive: Archive, uid: str, dataset: bytes) -> Iterator[Peer]:
    """A peer in the middle of its dataset: the command and the first half have been sent and read."""
    peer = Peer.associated(archive.dicom_port, context(1, CT, EXPLICIT))
    try:
        peer.send_command(
            1,
            Command(
                commands.C_STORE_RQ,
                class_uid=CT,
                message_id=1,
                priority=0,
                dataset_type=0,
                instance_uid=uid,
            ),
        )
        peer.send(p_data(1, 0, dataset[: len(dataset) // 2]))
        yield peer
    finally:
        peer.close()


# --- Stopping ---


def test_sigterm_ends_an_idle_archive_within_seconds_and_leaves_nothing_running(tmp_path: Path) -> None:
    with running_archive(tmp_path / "data") as archive:
        children = processes(archive.process.pid)
        assert len(children) >= 5  # two dimse, web, worker, PostgreSQL
        began = time.monotonic()
        assert archive.stop() == 0
        assert time.monotonic() - began < STOP_SECONDS
    wait_until(lambda: all(gone(pid) for pid in children), 5, "children gone")
    assert not (tmp_path / "data" / "run" / "settings.json").exists()


def test_sigterm_finishes_an_instance_that_is_under_way(tmp_path: Path) -> None:
    data = tmp_path / "data"
    uid, dataset = image(1)
    with running_archive(data) as archive:
        with half_sent(archive, uid, dataset) as peer:
            archive.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not accepts(archive.dicom_port), STOP_SECONDS, "no new connections")
            peer.send(p_data(1, 2, dataset[len(dataset) // 2 :]))
            assert peer.read_command().status == 0
        assert archive.stop() == 0
    with running_archive(data) as again:
        assert fetched(again, [uid]) == {uid: dataset}


def test_sigterm_does_not_wait_for_ever_for_half_an_instance(tmp_path: Path) -> None:
    data = tmp_path / "data"
    uid, dataset = image(2)
    with running_archive(data) as archive:
        kept, kept_dataset = store(archive, 1)
        with half_sent(archive, uid, dataset):
            assert archive.stop() == 0
    with running_archive(data) as again:
        assert fetched(again, [kept, uid]) == {kept: kept_dataset}


def accepts(port: int) -> bool:
    """Whether anybody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


# --- Killed parts ---


def test_a_killed_dimse_worker_is_replaced_and_the_other_serves_meanwhile(tmp_path: Path) -> None:
    with running_archive(tmp_path / "data") as archive:
        wait_until(lambda: len(dimse_workers(archive)) == 2, RESTART_SECONDS, "two workers")
        wait_until(lambda: listening_workers(archive) == 2, RESTART_SECONDS, "both listen")
        sent = dict([store(archive, 1)])
        victim, other = dimse_workers(archive)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: gone(victim), 5, "the killed worker has gone")
        wait_until(lambda: stored(archive, 2, sent), RETRY_SECONDS, "a retry is served meanwhile")
        wait_until(lambda: len(dimse_workers(archive)) == 2, RESTART_SECONDS, "a new worker")
        assert victim not in dimse_workers(archive)
        assert other in dimse_workers(archive)
        wait_until(lambda: listening_workers(archive) == 2, RESTART_SECONDS, "both listen again")
        sent.update([store(archive, 3)])
        assert fetched(archive, list(sent)) == sent
        assert '"event": "process died"' in archive.log


def stored(archive: Archive, number: int, sent: dict[str, bytes]) -> bool:
    """Store an instance as a modality does that tries again; whether it was acknowledged."""
    try:
        sent.update([store(archive, number)])
    except (AssertionError, OSError):
        return False  # the association went to the worker that died, or to one that begins
    return True


def listening_workers(archive: Archive) -> int:
    """How many sockets listen on the DICOM port (each worker has its own, by SO_REUSEPORT)."""
    wanted = f":{archive.dicom_port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(fields[1].endswith(wanted) and fields[3] == "0A" for fields in lines)


def test_a_killed_supervisor_takes_its_processes_along_and_nothing_acknowledged_is_lost(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    with running_archive(data) as archive:
        sent = dict(store(archive, number) for number in range(3))
        own = [pid for pid, line in processes(archive.process.pid).items() if "node.cli process" in line]
        assert len(own) >= 4
        archive.process.kill()
        archive.process.wait()
        wait_until(lambda: all(gone(pid) for pid in own), STOP_SECONDS, "children gone")
    with running_archive(data) as again:
        assert fetched(again, list(sent)) == sent
        more = dict([store(again, 7)])
        assert fetched(again, list(more)) == more


# --- Doors ---


def test_demo_listens_on_loopback_only_and_says_so(tmp_path: Path) -> None:
    everywhere = {"STELE_DICOM__HOST": "0.0.0.0", "STELE_HTTP__HOST": "0.0.0.0"}
    with running_archive(tmp_path / "data", environment=everywhere) as archive:
        found = listeners(archive)
        assert set(found) == {archive.dicom_port, archive.http_port}
        assert set().union(*found.values()) == {"127.0.0.1"}
        assert archive.log.startswith("DEMO: everyone on this machine may read, store and delete")
        assert "Listening on loopback only" in archive.log
        assert requests.get(f"{archive.base_url}/dicom-web/studies", timeout=10).status_code == 200


def test_without_demo_strangers_are_rejected_and_http_wants_a_login(tmp_path: Path) -> None:
    loopback = {"STELE_DICOM__HOST": "127.0.0.1", "STELE_HTTP__HOST": "127.0.0.1"}
    with running_archive(tmp_path / "data", arguments=(), environment=loopback) as archive:
        assert "DEMO" not in archive.log
        peer = Peer.connect(archive.dicom_port)
        peer.send(request(context(1, CT, EXPLICIT)))
        kind, body = peer.read_pdu()
        peer.close()
        assert (kind, tuple(body[1:4])) == (pdu.ASSOCIATE_RJ, (1, 1, 3))
        for path in ("studies", "instances", "studies/1.2.3", "studies/1.2.3/metadata"):
            answer = requests.get(f"{archive.base_url}/dicom-web/{path}", timeout=10)
            assert answer.status_code == 401, path
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert requests.post(f"{archive.base_url}/dicom-web/studies", timeout=10).status_code == 401
        assert requests.delete(f"{archive.base_url}/dicom-web/studies/1.2.3", timeout=10).status_code == 401
        assert requests.get(f"{archive.base_url}/health/live", timeout=10).status_code == 200
