"""One image sent many times, as fast as an archive takes it, by clients so cheap that the archive is what is
measured.

The dataset is prepared once; every instance has fresh UIDs of the same length, patched into its bytes, so
that no archive sees a duplicate. One process and one study for each association. The clock starts when all
are associated and stops when the last answer is in.
"""

import math
import multiprocessing
import random
import time
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier as _Barrier
from uuid import uuid4

from chaos import corpus
from chaos.target import Dicom
from chaos.traffic.association import Association

START_SECONDS = 60.0  # until all are associated
RESPONSE_SECONDS = 120.0
CT_SIZE = 512
MESSAGE_IDS = 65535


@dataclass(frozen=True, slots=True)
class Image:
    """A dataset, and the UIDs in it that are replaced; longer ones leave more room for fresh ones."""

    sop_class: str
    syntax: str
    dataset: bytes
    instance_uid: bytes
    study_uid: bytes
    series_uid: bytes


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of it; `studies` are the Study Instance UIDs, one for each association."""

    seconds: float
    stored: int
    failed: int
    studies: tuple[str, ...]


_Told = tuple[float, float, int, int, str]  # begin, end, stored, failed, study
_Limits = tuple[float, float]  # instances, seconds


def ct(seed: int) -> Image:
    """A CT of 512 x 512 pixels of noise, which no storage makes smaller."""
    instance = corpus.instances(seed, 1)[0]
    pixels = random.Random(seed).randbytes(2 * CT_SIZE * CT_SIZE)
    return Image(
        instance.sop_class,
        instance.syntax,
        corpus.dataset(instance, pixels, CT_SIZE),
        instance.uid.encode(),
        instance.study.encode(),
        instance.series.encode(),
    )


def fresh(length: int) -> bytes:
    """A new UID of `length` characters."""
    uid = f"2.25.{uuid4().int}.{uuid4().int}"
    return (uid + "1" * 64)[:length].rstrip(".").ljust(length, "1").encode()


def send(
    address: Dicom, image: Image, associations: int, count: float = math.inf, *, seconds: float = math.inf
) -> Sent:
    """Send over several associations at once: `count` instances over each, or for so many seconds.

    ConnectionError if an association is refused or lost.
    """
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(associations)
    results: multiprocessing.Queue[_Told | str] = context.Queue()
    senders = [
        context.Process(target=_guarded, args=(address, image, (count, seconds), ready, results))
        for _ in range(associations)
    ]
    for sender in senders:
        sender.start()
    told = [results.get() for _ in senders]
    for sender in senders:
        sender.join()
    if lost := [each for each in told if isinstance(each, str)]:
        raise ConnectionError("; ".join(lost))
    began, ended, stored, failed, studies = zip(*told, strict=True)
    return Sent(max(ended) - min(began), sum(stored), sum(failed), studies)


def _guarded(
    address: Dicom,
    image: Image,
    limits: _Limits,
    ready: _Barrier,
    results: "multiprocessing.Queue[_Told | str]",
) -> None:
    try:
        results.put(_send(address, image, limits, ready))
    except Exception as error:  # noqa: BLE001 - the parent's to tell
        ready.abort()
        results.put(repr(error))


def _send(address: Dicom, image: Image, limits: _Limits, ready: _Barrier) -> _Told:
    count, seconds = limits
    association = Association(address, image.sop_class, image.syntax, seconds=RESPONSE_SECONDS)
    study, series = fresh(len(image.study_uid)), fresh(len(image.series_uid))
    template = image.dataset.replace(image.study_uid, study).replace(image.series_uid, series)
    before, _, after = template.partition(image.instance_uid)
    ready.wait(START_SECONDS)
    began = time.monotonic()
    sent, stored = 0, 0
    while sent < count and time.monotonic() < began + seconds:
        sent += 1
        uid = fresh(len(image.instance_uid))
        stored += association.store(sent % MESSAGE_IDS + 1, uid.decode(), before + uid + after) == 0
    ended = time.monotonic()
    association.release()
    return began, ended, stored, sent - stored, study.decode()
