"""Sending a folder's DICOM files to an AE, byte for byte as they are (`stele send`)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from node.domain.errors import Refusal
from node.domain.model import ApplicationEntity
from node.domain.part10 import Meta, Part10Reader
from node.ports import Delivery, Peers

CHUNK_BYTES = 1 << 20
MAX_CONTEXTS = 128
_DIRECTORY_CLASS = "1.2.840.10008.1.3.10"  # a DICOMDIR is no instance


@dataclass
class Sent:
    """How many files were acknowledged, and which were not, with the reason."""

    sent: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)


def send_folder(
    peers: Peers, entity: ApplicationEntity, folder: Path, report: Callable[[int, int], None]
) -> Sent:
    """Send every DICOM file below `folder` (or the one file that it is) by C-STORE.

    `report(done, total)` is called as it goes. Other files and DICOMDIRs in a folder are passed over.
    Refusal(UNAVAILABLE) if the AE does not answer at all.
    """
    result = Sent()
    files = list(_files(folder, result))
    total = len(files) + len(result.failed)
    done = len(result.failed)
    report(done, total)
    for batch in _batches(files):
        delivery = peers.connect(
            entity, list({(meta.sop_class_uid, meta.transfer_syntax_uid) for _, meta in batch})
        )
        try:
            for path, meta in batch:
                why = _send_one(delivery, path, meta)
                if why:
                    result.failed.append((path, why))
                else:
                    result.sent += 1
                done += 1
                report(done, total)
        finally:
            delivery.close()
    return result


def _files(folder: Path, result: Sent) -> Iterator[tuple[Path, Meta]]:
    """The DICOM files with their meta information; what is wrong with others goes to `result`."""
    for path in (
        [folder] if folder.is_file() else sorted(each for each in folder.rglob("*") if each.is_file())
    ):
        reader = Part10Reader()
        try:
            with path.open("rb") as stream:
                while reader.meta is None and (chunk := stream.read(CHUNK_BYTES)):
                    reader.feed(chunk)
            meta = reader.finish()
        except (Refusal, OSError) as error:
            if path == folder:
                result.failed.append((path, str(error)))
            continue
        if meta.sop_class_uid and meta.sop_instance_uid:
            if meta.sop_class_uid != _DIRECTORY_CLASS:
                yield path, meta
        else:
            result.failed.append((path, "file meta information without SOP UIDs"))


def _batches(files: list[tuple[Path, Meta]]) -> Iterator[list[tuple[Path, Meta]]]:
    """Runs of files that one association's presentation contexts are enough for."""
    batch: list[tuple[Path, Meta]] = []
    pairs: set[tuple[str, str]] = set()
    for path, meta in files:
        pair = (meta.sop_class_uid, meta.transfer_syntax_uid)
        if pair not in pairs and len(pairs) == MAX_CONTEXTS:
            yield batch
            batch, pairs = [], set()
        pairs.add(pair)
        batch.append((path, meta))
    if batch:
        yield batch


def _send_one(delivery: Delivery, path: Path, meta: Meta) -> str:
    """Why the file was not stored; "" if it was."""
    if meta.transfer_syntax_uid not in delivery.accepts(meta.sop_class_uid):
        return "the AE does not take its SOP class in its transfer syntax"
    try:
        status = delivery.send(
            meta.sop_class_uid, meta.sop_instance_uid, meta.transfer_syntax_uid, _dataset(path)
        )
    except (Refusal, OSError) as error:
        return str(error)
    return "" if status == 0 or status >> 12 == 0xB else f"status {status:04X}"


def _dataset(path: Path) -> Iterator[bytes]:
    reader = Part10Reader()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield bytes(reader.feed(chunk))
