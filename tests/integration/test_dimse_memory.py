"""Ten associations that send a gigabyte each at once: bounded memory, and none fails."""

import json
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from tests.integration.dimse_peer import EXPLICIT, Peer, archive_on, context
from tests.support import wait_until

pytestmark = pytest.mark.quiet

MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.7.3"  # Multi-frame Grayscale Word Secondary Capture
PROCESSES = 2
ASSOCIATIONS = 10
FRAMES = 2000
FRAME_BYTES = 2 * 512 * 512
LIMIT_BYTES = 1500 << 20
FRAGMENT = bytes(65536 - 6)

# One DIMSE process of an archive, as the supervisor starts it
SERVE = """
import json, signal, sys, threading
from node import bootstrap
from node.config import Settings
from node.dimse.serve import serve
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
settings = Settings.model_validate(json.loads(sys.argv[1]))
archive = bootstrap.build(settings)
serve(settings, archive, stop)
archive.close()
"""


def element(group: int, number: int, vr: str, value: bytes) -> bytes:
    """An element in Explicit VR Little Endian with a short length."""
    value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    return struct.pack("<HH2sH", group, number, vr.encode(), len(value)) + value


def header(uid: str) -> bytes:
    """All of a multi-frame dataset but the pixels."""
    short = struct.Struct("<H").pack
    return b"".join(
        (
            element(0x0008, 0x0016, "UI", MULTI_FRAME.encode()),
            element(0x0008, 0x0018, "UI", uid.encode()),
            element(0x0010, 0x0020, "LO", b"BIG"),
            element(0x0020, 0x000D, "UI", generate_uid().encode()),
            element(0x0020, 0x000E, "UI", generate_uid().encode()),
            element(0x0028, 0x0002, "US", short(1)),
            element(0x0028, 0x0004, "CS", b"MONOCHROME2"),
            element(0x0028, 0x0008, "IS", str(FRAMES).encode()),
            element(0x0028, 0x0010, "US", short(512)),
            element(0x0028, 0x0011, "US", short(512)),
            element(0x0028, 0x0100, "US", short(16)),
            element(0x0028, 0x0101, "US", short(16)),
            element(0x0028, 0x0102, "US", short(15)),
            element(0x0028, 0x0103, "US", short(0)),
            struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, FRAMES * FRAME_BYTES),
        )
    )


def pieces(uid: str) -> Iterator[bytes]:
    """The dataset in fragments."""
    yield header(uid)
    rest = FRAMES * FRAME_BYTES
    while rest:
        yield FRAGMENT[: min(rest, len(FRAGMENT))]
        rest -= min(rest, len(FRAGMENT))


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_gigabyte_objects_at_once(tmp_path: Path) -> None:
    with archive_on(tmp_path) as (settings, stele):
        command = [sys.executable, "-c", SERVE, json.dumps(settings.model_dump(mode="json"))]
        processes = [subprocess.Popen(command) for _ in range(PROCESSES)]
        try:
            wait_until(lambda: _answers(settings.dicom.port), 30, "the DICOM port")
            uids = [generate_uid() for _ in range(ASSOCIATIONS)]
            statuses: dict[str, int | None] = {}
            threads = [
                threading.Thread(target=_store, args=(settings.dicom.port, uid, statuses)) for uid in uids
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert statuses == dict.fromkeys(uids, 0)
            peaks = [peak_bytes(process.pid) for process in processes]
            print("peaks in MiB:", [peak >> 20 for peak in peaks])
            assert sum(peaks) < LIMIT_BYTES, peaks
            for uid in uids:
                stored = stele.catalog.instances.find(uid)
                assert stored is not None
                assert stored.stored.dataset_length > FRAMES * FRAME_BYTES
        finally:
            for process in processes:
                process.terminate()
            shutil.rmtree(settings.data / "objects")  # pytest would keep ten gigabytes
            assert [process.wait(30) for process in processes] == [0] * PROCESSES


def _store(port: int, uid: str, statuses: dict[str, int | None]) -> None:
    peer = Peer.associated(port, context(1, MULTI_FRAME, EXPLICIT))
    peer.socket.settimeout(600)
    statuses[uid] = peer.store(1, uid, pieces(uid), class_uid=MULTI_FRAME).status
    peer.close()


def _answers(port: int) -> bool:
    try:
        Peer.associated(port, context(1, MULTI_FRAME, EXPLICIT)).close()
    except OSError:
        return False
    return True
