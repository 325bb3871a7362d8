"""What is sent: thousands of small instances, of several patients, studies and series, and rivals for some.

Encoded here rather than by pydicom, which takes a millisecond for each; the bytes are what every client
sends, so DCMTK must not have a reason to encode them otherwise (even lengths, ordered tags, no sequences).
"""

import random
import struct
from dataclasses import dataclass
from pathlib import Path

from node.domain.part10 import prefix
from tests.corpus.people import uid
from tests.kills.log import content_of

CANARY = "CANARY"  # in every name, number and description that could tell who a patient is
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
RLE = "1.2.840.10008.1.2.5"
CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
SIZE = 64  # rows and columns
PATIENTS, STUDIES, SERIES = 6, 2, 3  # studies per patient, series per study
IMPLICIT_PATIENTS = 1
RIVALS = 100
_LONG = ("OB", "OW", "SQ", "UN", "UT")


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance and where its Part 10 file lies."""

    sop_class: str
    uid: str
    patient_id: str
    study: str
    series: str
    syntax: str
    content: str
    path: Path

    def dataset(self) -> bytes:
        """Its bytes as they go over the wire in C-STORE."""
        return self.file()[len(prefix(self.sop_class, self.uid, self.syntax, "")) :]

    def file(self) -> bytes:
        """Its Part 10 file."""
        return self.path.read_bytes()


@dataclass(frozen=True, slots=True)
class Corpus:
    """`instances` have a SOP Instance UID each; `rivals[i]` has that of `originals[i]` and other bytes."""

    instances: list[Instance]
    originals: list[Instance]
    rivals: list[Instance]

    def first(self, count: int) -> "Corpus":
        """A smaller corpus with as many rivals in proportion."""
        rivals = count * len(self.rivals) // (len(self.instances) + len(self.originals))
        return Corpus(self.instances[: count - rivals], self.originals[:rivals], self.rivals[:rivals])

    def __len__(self) -> int:
        return len(self.instances) + len(self.originals)


def make(folder: Path, count: int) -> Corpus:
    """Write `count` instances (and rivals) as Part 10 files into `folder`."""
    folder.mkdir()
    generator = random.Random(count)
    made = [_instance(folder, number, generator) for number in range(count)]
    originals = made[:RIVALS]
    rivals = [_instance(folder, number, generator, rival=True) for number in range(RIVALS)]
    return Corpus(made[RIVALS:], originals, rivals)


def _instance(folder: Path, number: int, generator: random.Random, *, rival: bool = False) -> Instance:
    patient = number % PATIENTS
    study = number // PATIENTS % STUDIES
    series = number // (PATIENTS * STUDIES) % SERIES
    study_uid, series_uid = uid("kills", patient, study), uid("kills", patient, study, series)
    instance_uid = uid("kills", number)
    # A series is of one class and one syntax, as scanners make them. Few are in Implicit VR: DCMTK's clients
    # cannot keep it, and pynetdicom's takes its time.
    of_mr = IMPLICIT if patient < IMPLICIT_PATIENTS else EXPLICIT
    sop_class, syntax = ((CT, EXPLICIT), (MR, of_mr), (CT, RLE))[series]
    patient_id = f"{CANARY}-ID-{patient}"
    pixels = generator.randbytes(2 * SIZE * SIZE)
    elements = [
        (0x00080008, "CS", b"ORIGINAL\\PRIMARY"),
        (0x00080016, "UI", sop_class.encode()),
        (0x00080018, "UI", instance_uid.encode()),
        (0x00080020, "DA", b"20240102"),
        (0x00080030, "TM", b"101500"),
        (0x00080050, "SH", f"{CANARY}-ACC".encode()),
        (0x00080060, "CS", b"MR" if sop_class == MR else b"CT"),
        (0x00080090, "PN", f"{CANARY}^REFERRER".encode()),
        (0x00081030, "LO", f"{CANARY} STUDY {study}".encode()),
        (0x00100010, "PN", f"{CANARY}^PATIENT^{patient}".encode()),
        (0x00100020, "LO", patient_id.encode()),
        (0x00100030, "DA", b"19500101"),
        (0x00100040, "CS", b"O"),
        (0x0020000D, "UI", study_uid.encode()),
        (0x0020000E, "UI", series_uid.encode()),
        (0x00200010, "SH", str(study).encode()),
        (0x00200011, "IS", str(series).encode()),
        (0x00200013, "IS", str(number).encode()),
        (0x00280002, "US", struct.pack("<H", 1)),
        (0x00280004, "CS", b"MONOCHROME2"),
        (0x00280010, "US", struct.pack("<H", SIZE)),
        (0x00280011, "US", struct.pack("<H", SIZE)),
        (0x00280100, "US", struct.pack("<H", 16)),
        (0x00280101, "US", struct.pack("<H", 16)),
        (0x00280102, "US", struct.pack("<H", 15)),
        (0x00280103, "US", struct.pack("<H", 0)),
    ]
    dataset = b"".join(_element(tag, vr, value, syntax) for tag, vr, value in elements)
    dataset += _pixel_data(pixels, syntax)
    path = folder / f"{number}{'r' if rival else ''}.dcm"
    path.write_bytes(prefix(sop_class, instance_uid, syntax, "") + dataset)
    content = content_of(syntax, dataset)
    return Instance(sop_class, instance_uid, patient_id, study_uid, series_uid, syntax, content, path)


def _element(tag: int, vr: str, value: bytes, syntax: str) -> bytes:
    value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if syntax == IMPLICIT:
        return head + struct.pack("<I", len(value)) + value
    if vr in _LONG:
        return head + vr.encode() + struct.pack("<xxI", len(value)) + value
    return head + vr.encode() + struct.pack("<H", len(value)) + value


def _pixel_data(pixels: bytes, syntax: str) -> bytes:
    if syntax != RLE:
        return _element(0x7FE00010, "OW", pixels, syntax)
    frame = _rle(pixels)
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, len(frame)) + frame
    head = struct.pack("<HH2sxxI", 0x7FE0, 0x0010, b"OB", 0xFFFFFFFF)
    return head + items + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def _rle(pixels: bytes) -> bytes:
    """A frame in RLE (PS3.5 annex G): high bytes, low bytes, all as literal runs."""
    segments = [_literal(pixels[1::2]), _literal(pixels[0::2])]
    offsets = [64, 64 + len(segments[0])]
    return struct.pack("<16I", 2, *offsets, *[0] * 13) + b"".join(segments)


def _literal(data: bytes) -> bytes:
    runs = [data[at : at + 128] for at in range(0, len(data), 128)]
    coded = b"".join(bytes([len(run) - 1]) + run for run in runs)
    return coded + b"\0" * (len(coded) % 2)
