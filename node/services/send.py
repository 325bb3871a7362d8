"""Sending a folder's DICOM files to an AE, byte for byte as they are (`stele send`)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from node.domain.errors import Refusal
from node.domain.header import HeaderReader, Limits
from node.domain.model import ApplicationEntity
from node.domain.part10 import Part10Reader
from node.ports import Peers
from node.services.link import Link, batches

CHUNK_BYTES = 1 << 20
_SOP_CLASS, _SOP_INSTANCE = 0x00080016, 0x00080018
_DIRECTORY_CLASS = "1.2.840.10008.1.3.10"  # a DICOMDIR is no instance
# Of what precedes the UIDs, which is little. A file that asks for more is sent by its meta information.
_PEEK = Limits(max_header_bytes=1 << 20, max_depth=32, max_elements=10_000, max_object_bytes=1 << 40)


@dataclass(frozen=True, slots=True)
class File:
    """A DICOM file with the UIDs that it is sent under. `differs`: its meta information has others."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    differs: bool = False

    def __iter__(self) -> Iterator[bytes]:
        """The dataset in pieces. Refusal if the file is no DICOM file any more."""
        reader = Part10Reader()
        with self.path.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield bytes(reader.feed(chunk))
        reader.finish()


@dataclass
class Sent:
    """How many files were acknowledged, and which were not, with the reason. `differing` ones were sent
    under their dataset's SOP UIDs, which are not those of their meta information."""

    sent: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)
    differing: list[Path] = field(default_factory=list)


def send_folder(
    peers: Peers, entity: ApplicationEntity, folder: Path, report: Callable[[int, int], None]
) -> Sent:
    """Send every DICOM file below `folder` (or the one file that it is) by C-STORE.

    `report(done, total)` is called as it goes. Other files and DICOMDIRs in a folder are passed over.
    Refusal(UNAVAILABLE) if the AE does not answer at all.
    """
    result = Sent()
    files = list(_files(folder, result))
    result.differing = [file.path for file in files if file.differs]
    total = len(files) + len(result.failed)
    done = len(result.failed)
    report(done, total)
    for pairs, batch in batches(files, lambda file: (file.sop_class_uid, file.transfer_syntax_uid)):
        link = Link(peers, entity, pairs)
        try:
            for file in batch:
                why = _send_one(link, file)
                if why:
                    result.failed.append((file.path, why))
                else:
                    result.sent += 1
                done += 1
                report(done, total)
        finally:
            link.close()
    return result


def _files(folder: Path, result: Sent) -> Iterator[File]:
    """The DICOM files; what is wrong with others goes to `result`."""
    for path in (
        [folder] if folder.is_file() else sorted(each for each in folder.rglob("*") if each.is_file())
    ):
        try:
            file = identified(path)
        except (Refusal, OSError) as error:
            if path == folder:
                result.failed.append((path, str(error)))
            continue
        if not file.sop_class_uid or not file.sop_instance_uid:
            result.failed.append((path, "file without SOP UIDs"))
        elif file.sop_class_uid != _DIRECTORY_CLASS:
            yield file


def identified(path: Path) -> File:
    """The file's UIDs: the dataset's, which the peer compares with, or the meta information's where it has
    none. Refusal if it is no DICOM file."""
    part10 = Part10Reader()
    dataset: HeaderReader | None = None
    with path.open("rb") as stream:
        while (dataset is None or not dataset.passed(_SOP_INSTANCE)) and (chunk := stream.read(CHUNK_BYTES)):
            data = part10.feed(chunk)
            if part10.meta is None:
                continue
            dataset = dataset or HeaderReader(part10.meta.transfer_syntax_uid, _PEEK)
            try:
                dataset.feed(data)
            except Refusal:
                break  # whether it can be stored is for the peer to say
    meta = part10.finish()
    named = (meta.sop_class_uid, meta.sop_instance_uid)
    found = [_uid(dataset, tag) or named[index] for index, tag in enumerate((_SOP_CLASS, _SOP_INSTANCE))]
    differs = any(told and told != uid for told, uid in zip(named, found, strict=True))
    return File(path, found[0], found[1], meta.transfer_syntax_uid, differs)


def _uid(dataset: HeaderReader | None, tag: int) -> str:
    value = dataset.peek(tag) if dataset is not None else None
    return (value or b"").decode("latin-1").strip("\0 ")


def _send_one(link: Link, file: File) -> str:
    """Why the file was not stored; "" if it was."""
    if file.transfer_syntax_uid not in (accepted := link.accepts(file.sop_class_uid)):
        return "the AE does not take its SOP class" + (" in its transfer syntax" if accepted else "")
    try:
        answer = link.send(file.sop_class_uid, file.sop_instance_uid, file.transfer_syntax_uid, file)
    except (Refusal, OSError) as error:
        return str(error)
    if answer.stored:
        return ""
    return f"status {answer.status:04X}" + (f": {answer.comment}" if answer.comment else "")
