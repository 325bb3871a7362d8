"""Full disks below a running archive: refused with what PS3.4 and PS3.18 have for it, nothing acknowledged
is lost, reads go on, and intake goes on by itself when there is room again.

The disks are small tmpfs; a ballast file fills them.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
import requests

from node.domain.part10 import Part10Reader
from tests import corpus
from tests.archive import Archive, running_archive
from tests.integration.dimse_peer import CT, EXPLICIT, Peer, context
from tests.integration.test_lifecycle import fetched
from tests.kills import faults
from tests.support import require, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
MIB = 1 << 20
RECOVERY_SECONDS = 60.0
PATIENT = corpus.Person("PHANTOM^FULL", "FULL")


def image(number: int, size: int = 128) -> tuple[str, bytes, bytes]:
    """(SOP Instance UID, dataset bytes, Part 10 file) of a CT slice of 2·size² bytes."""
    (ds,) = corpus.ct_series(1, size, study=corpus.Study(PATIENT, number))
    file = corpus.encode(ds)
    return str(ds.SOPInstanceUID), bytes(Part10Reader().feed(file)), file


def heavy_header(number: int) -> tuple[str, bytes, bytes]:
    """The same with 256 KiB of text that hardly packs: it all goes into the catalog, too."""
    (ds,) = corpus.ct_series(1, 64, study=corpus.Study(PATIENT, number))
    ds.ImageComments = None
    block = ds.private_block(0x0029, "PHANTOM", create=True)
    block.add_new(1, "UT", Random(number).randbytes(128 << 10).hex())
    file = corpus.encode(ds)
    return str(ds.SOPInstanceUID), bytes(Part10Reader().feed(file)), file


def c_store(archive: Archive, uid: str, dataset: bytes) -> int:
    """The status of a C-STORE on an association of its own; -1 if the association does not come about."""
    try:
        peer = Peer.associated(archive.dicom_port, context(1, CT, EXPLICIT))
    except (AssertionError, OSError):
        return -1
    try:
        status = peer.store(
            1, uid, [dataset[at : at + 100_000] for at in range(0, len(dataset), 100_000)]
        ).status
        return -1 if status is None else status
    finally:
        peer.close()


def stow(archive: Archive, file: bytes) -> requests.Response:
    """The answer to a STOW-RS request with one file."""
    return requests.post(
        f"{archive.base_url}/dicom-web/studies",
        data=b"--b\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n--b--\r\n",
        headers={"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'},
        timeout=60,
    )


def failure_reasons(answer: requests.Response) -> list[int]:
    """Failure Reasons of the Failed SOP Sequence."""
    return [item["00081197"]["Value"][0] for item in answer.json()["00081198"]["Value"]]


def health(archive: Archive) -> str:
    """What /health/ready says."""
    return requests.get(f"{archive.base_url}/health/ready", timeout=10).text


def supervised(archive: Archive) -> set[int]:
    """The supervisor and its Python processes: that none is new shows that nothing was restarted."""
    return {each.pid for each in faults.processes(archive.process.pid) if "node.cli" in each.line}


@contextmanager
def small_disk(path: Path, size_bytes: int) -> Iterator[None]:
    """A file system of `size_bytes` at `path`."""
    require("mount", needs_root=True)
    path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def free_bytes(path: Path) -> int:
    """Room in a file system."""
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize


def occupied_bytes(path: Path) -> int:
    """Length of all files."""
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())


def fill(path: Path, leave_bytes: int) -> None:
    """Write ballast until so much is left."""
    with (path / "ballast").open("ab") as ballast:
        while (more := free_bytes(path) - leave_bytes) > 0:
            try:
                ballast.write(bytes(min(more, MIB)))
                ballast.flush()
            except OSError:
                break


@pytest.mark.parametrize(
    ("kept_free", "left"), [(16 * MIB, 15 * MIB), (0, 300 << 10)], ids=["below-the-reserve", "no-room-at-all"]
)
def test_a_full_store_refuses_keeps_serving_and_recovers(tmp_path: Path, kept_free: int, left: int) -> None:
    disk = tmp_path / "store"
    environment = {"STELE_OBJECTS__PATH": str(disk), "STELE_OBJECTS__FREE_BYTES_MIN": str(kept_free)}
    with small_disk(disk, 64 * MIB), running_archive(tmp_path / "data", environment=environment) as archive:
        before = supervised(archive)
        sent: dict[str, bytes] = {}
        for number in range(3):
            uid, dataset, _ = image(number)
            assert c_store(archive, uid, dataset) == 0
            sent[uid] = dataset
        fill(disk, left)
        occupied = occupied_bytes(disk)

        uid, dataset, file = image(10, 1024)  # 2 MiB, more than fits anyhow
        assert c_store(archive, uid, dataset) == 0xA700
        answer = stow(archive, file)
        assert answer.status_code == 507
        assert failure_reasons(answer) == [0xA700]
        assert occupied_bytes(disk) == occupied, "nothing of it stays on the full disk"
        assert fetched(archive, [*sent, uid]) == sent, (
            "what was acknowledged is served, the other is not there"
        )

        (disk / "ballast").unlink()
        wait_until(lambda: c_store(archive, uid, dataset) == 0, RECOVERY_SECONDS, "stored again")
        sent[uid] = dataset
        assert stow(archive, image(11)[2]).status_code == 200
        assert fetched(archive, list(sent)) == sent
        wait_until(archive.ready, RECOVERY_SECONDS, "ready")
        assert supervised(archive) == before


def test_intake_stops_before_the_databases_disk_is_full_and_goes_on_by_itself(tmp_path: Path) -> None:
    data = tmp_path / "data"
    disk = data / "postgres"
    environment = {"STELE_CATALOG__FREE_BYTES_MIN": str(64 * MIB)}
    with small_disk(disk, 320 * MIB), running_archive(data, environment=environment) as archive:
        before = supervised(archive)
        sent: dict[str, bytes] = {}
        uid, dataset, _ = image(1)
        assert c_store(archive, uid, dataset) == 0
        sent[uid] = dataset
        fill(disk, 60 * MIB)

        refused, dataset, file = image(2)
        assert c_store(archive, refused, dataset) == 0xA700
        answer = stow(archive, file)
        assert answer.status_code == 507
        assert failure_reasons(answer) == [0xA700]
        wait_until(lambda: '"store_full"' in health(archive), RECOVERY_SECONDS, "health says why")
        assert fetched(archive, [*sent, refused]) == sent

        (disk / "ballast").unlink()
        wait_until(lambda: c_store(archive, refused, dataset) == 0, RECOVERY_SECONDS, "stored again")
        sent[refused] = dataset
        assert fetched(archive, list(sent)) == sent
        wait_until(archive.ready, RECOVERY_SECONDS, "ready")
        assert supervised(archive) == before


@pytest.mark.parametrize(
    ("left", "panics", "statuses"),
    [(1 * MIB, False, {507}), (13 * MIB, True, {503, 507})],  # 503 once the server has ended
    ids=["no-room-for-rows", "no-room-for-the-log"],
)
def test_a_database_out_of_disk_loses_nothing_and_comes_back_by_itself(
    tmp_path: Path, left: int, panics: bool, statuses: set[int]
) -> None:
    """Somebody else filled the disk: PostgreSQL refuses rows, or ends for want of its log. It is started
    again, in vain until there is room, and then the archive serves as if nothing had been."""
    data = tmp_path / "data"
    disk = data / "postgres"
    environment = {"STELE_CATALOG__FREE_BYTES_MIN": "0"}
    with small_disk(disk, 256 * MIB), running_archive(data, environment=environment) as archive:
        before = supervised(archive)
        sent: dict[str, bytes] = {}
        for number in range(400):
            if number == 1:
                fill(disk, left)
            uid, dataset, file = heavy_header(number)
            status = c_store(archive, uid, dataset)
            if status != 0:
                break
            sent[uid] = dataset
        assert status == 0xA700
        assert ("PANIC" in (disk / "server.log").read_text()) == panics
        answer = stow(archive, file)
        assert answer.status_code in statuses
        assert failure_reasons(answer) == [0xA700]

        (disk / "ballast").unlink()
        wait_until(lambda: c_store(archive, uid, dataset) == 0, RECOVERY_SECONDS, "stored again")
        sent[uid] = dataset
        wait_until(archive.ready, RECOVERY_SECONDS, "ready")
        assert fetched(archive, list(sent)) == sent
        assert supervised(archive) == before
