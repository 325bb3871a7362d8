"""A C-STORE SCU that is cheap enough that the server is what is measured.

It sends one prepared dataset many times under fresh UIDs of the same length, patched into the bytes, so
that no server sees a duplicate. One process per association; the clock starts when all are associated and
stops when the last response is in.

    python -m tests.bench.scu PORT AE FILE COUNT ASSOCIATIONS   → JSON {"seconds", "ok", "failed"}
"""

import json
import multiprocessing
import multiprocessing.synchronize
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pydicom

from chaos.target import Dicom
from chaos.traffic.association import Association

RESPONSE_SECONDS = 120


@dataclass(frozen=True)
class Prepared:
    """A dataset with the places of its UIDs."""

    sop_class_uid: bytes
    transfer_syntax_uid: bytes
    dataset: bytes
    instance_uid: bytes
    study_uid: bytes
    series_uid: bytes


def prepare(path: Path) -> Prepared:
    """Read a Part 10 file; its UIDs should be 64 characters long, as the corpus makes them."""
    dataset = pydicom.dcmread(path)
    raw = path.read_bytes()
    start = 132 + 12 + int(dataset.file_meta.FileMetaInformationGroupLength)
    return Prepared(
        str(dataset.SOPClassUID).encode(),
        str(dataset.file_meta.TransferSyntaxUID).encode(),
        raw[start:],
        str(dataset.SOPInstanceUID).encode(),
        str(dataset.StudyInstanceUID).encode(),
        str(dataset.SeriesInstanceUID).encode(),
    )


def fresh(length: int) -> bytes:
    """A new UID of `length` characters."""
    uid = f"2.25.{uuid4().int}.{uuid4().int}"
    return (uid + "1" * 64)[:length].rstrip(".").ljust(length, "1").encode()


def associate(port: int, called: str, sop_class: str, syntax: str) -> Association:
    """An association with a server on loopback."""
    address = Dicom("127.0.0.1", port, called, "BENCH")
    return Association(address, sop_class, syntax, seconds=RESPONSE_SECONDS)


def _sender(
    port: int,
    called: str,
    path: str,
    count: int,
    ready: "multiprocessing.synchronize.Barrier",
    results: "multiprocessing.Queue[tuple[float, float, int]]",
) -> None:
    prepared = prepare(Path(path))
    association = associate(
        port, called, prepared.sop_class_uid.decode(), prepared.transfer_syntax_uid.decode()
    )
    study, series = fresh(len(prepared.study_uid)), fresh(len(prepared.series_uid))
    template = prepared.dataset.replace(prepared.study_uid, study).replace(prepared.series_uid, series)
    before, _, after = template.partition(prepared.instance_uid)
    ready.wait(60)
    started = time.monotonic()
    failed = 0
    for number in range(count):
        uid = fresh(len(prepared.instance_uid))
        if association.store(number % 65535 + 1, uid.decode(), before + uid + after) != 0:
            failed += 1
    results.put((started, time.monotonic(), failed))
    association.release()


def run(port: int, called: str, path: Path, count: int, associations: int) -> dict[str, float]:
    """Send `count` instances over each of `associations` at once: seconds, ok, failed."""
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(associations)
    results: multiprocessing.Queue[tuple[float, float, int]] = context.Queue()
    senders = [
        context.Process(target=_sender, args=(port, called, str(path), count, ready, results))
        for _ in range(associations)
    ]
    for sender in senders:
        sender.start()
    times = [results.get(timeout=900) for _ in senders]
    for sender in senders:
        sender.join(30)
    seconds = max(end for _, end, _ in times) - min(start for start, _, _ in times)
    failed = sum(failed for _, _, failed in times)
    return {"seconds": seconds, "ok": count * associations - failed, "failed": failed}


if __name__ == "__main__":
    port, called, path, count, associations = sys.argv[1:]
    print(json.dumps(run(int(port), called, Path(path), int(count), int(associations))))
