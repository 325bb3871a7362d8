"""What is sent: thousands of small instances, of several patients, studies and series, and rivals for some.

Made out of a seed, so that who reads back knows them all without the files. Encoded here rather than by
pydicom, which takes a millisecond for each; the bytes are what every client sends, so DCMTK must not have a
reason to encode them otherwise (even lengths, ordered tags, no sequences).
"""

import random
import struct
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from chaos import part10
from chaos.history import content_of
from chaos.model import Row

CANARY = "CANARY"  # in every name, number and description that could tell who a patient is
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
RLE = "1.2.840.10008.1.2.5"
CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
SIZE = 64  # rows and columns
PATIENTS, STUDIES, SERIES = 6, 2, 3  # studies per patient, series per study
IMPLICIT_PATIENTS = 1
INSTANCES_PER_RIVAL = 50
_LONG = ("OB", "OW", "SQ", "UN", "UT")
_NAMESPACE = uuid.UUID("0b5d3f2e-93b1-5c0f-8b6e-5f0f0a6b7c21")


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance of the corpus: what it is, and where it belongs."""

    number: int
    sop_class: str
    uid: str
    syntax: str
    patient_id: str
    study: str
    series: str

    @property
    def row(self) -> Row:
        """How a query has to list it."""
        return Row(self.patient_id, self.study, self.series, self.uid)


@dataclass(frozen=True, slots=True)
class Sample(Instance):
    """Bytes to send for an instance, and where their Part 10 file lies."""

    content: str
    path: Path

    def dataset(self) -> bytes:
        """Its bytes as they go over the wire in C-STORE."""
        return self.file()[len(part10.prefix(self.sop_class, self.uid, self.syntax)) :]

    def file(self) -> bytes:
        """Its Part 10 file."""
        return self.path.read_bytes()


@dataclass(frozen=True, slots=True)
class Corpus:
    """`samples` have a SOP Instance UID each; `rivals[i]` has that of `originals[i]` and other bytes."""

    samples: list[Sample]
    originals: list[Sample]
    rivals: list[Sample]

    def first(self, count: int) -> "Corpus":
        """A smaller corpus with as many rivals in proportion."""
        rivals = count * len(self.rivals) // len(self)
        return Corpus(self.samples[: count - rivals], self.originals[:rivals], self.rivals[:rivals])

    @property
    def everything(self) -> list[Sample]:
        """One sample of every instance."""
        return [*self.samples, *self.originals]

    def __len__(self) -> int:
        return len(self.samples) + len(self.originals)


def patient_prefix(seed: int) -> str:
    """What the Patient IDs of a seed begin with, and no other's."""
    return f"{CANARY}-{seed}-"


def instances(seed: int, count: int) -> list[Instance]:
    """The instances of a corpus, without their bytes."""
    return [instance(seed, number) for number in range(count)]


def all_instances(corpora: Iterable[tuple[int, int]]) -> list[Instance]:
    """The instances of some corpora given as (seed, count), each once."""
    counts: dict[int, int] = {}
    for seed, count in corpora:
        counts[seed] = max(count, counts.get(seed, 0))
    return [each for seed, count in sorted(counts.items()) for each in instances(seed, count)]


def make(folder: Path, count: int, seed: int) -> Corpus:
    """Write the samples of `count` instances (and of rivals) as Part 10 files into the new `folder`."""
    folder.mkdir(parents=True)
    generator = random.Random(seed)
    planned = instances(seed, count)
    made = [_sample(folder, each, generator) for each in planned]
    contested = count // INSTANCES_PER_RIVAL
    rivals = [_sample(folder, each, generator, rival=True) for each in planned[:contested]]
    return Corpus(made[contested:], made[:contested], rivals)


def _uid(*parts: int) -> str:
    return f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(map(str, parts))).int}"


def instance(seed: int, number: int) -> Instance:
    """The instance of that number in a corpus, without its bytes."""
    patient = number % PATIENTS
    study = number // PATIENTS % STUDIES
    series = number // (PATIENTS * STUDIES) % SERIES
    # A series is of one class and one syntax, as scanners make them. Few are in Implicit VR: DCMTK's clients
    # cannot keep it, and pynetdicom's takes its time.
    of_mr = IMPLICIT if patient < IMPLICIT_PATIENTS else EXPLICIT
    sop_class, syntax = ((CT, EXPLICIT), (MR, of_mr), (CT, RLE))[series]
    return Instance(
        number,
        sop_class,
        _uid(seed, patient, study, series, number),
        syntax,
        f"{patient_prefix(seed)}{patient}",
        _uid(seed, patient, study),
        _uid(seed, patient, study, series),
    )


def head(each: Instance, size: int = SIZE) -> bytes:
    """All elements of an instance's dataset before its pixels: one frame of `size` rows and columns."""
    elements = [
        (0x00080008, "CS", b"ORIGINAL\\PRIMARY"),
        (0x00080016, "UI", each.sop_class.encode()),
        (0x00080018, "UI", each.uid.encode()),
        (0x00080020, "DA", b"20240102"),
        (0x00080030, "TM", b"101500"),
        (0x00080050, "SH", f"{CANARY}-ACC".encode()),
        (0x00080060, "CS", b"MR" if each.sop_class == MR else b"CT"),
        (0x00080090, "PN", f"{CANARY}^REFERRER".encode()),
        (0x00081030, "LO", f"{CANARY} STUDY".encode()),
        (0x00100010, "PN", f"{CANARY}^PATIENT^{each.patient_id[-1]}".encode()),
        (0x00100020, "LO", each.patient_id.encode()),
        (0x00100030, "DA", b"19500101"),
        (0x00100040, "CS", b"O"),
        (0x0020000D, "UI", each.study.encode()),
        (0x0020000E, "UI", each.series.encode()),
        (0x00200010, "SH", b"1"),
        (0x00200011, "IS", b"1"),
        (0x00200013, "IS", str(each.number).encode()),
        (0x00280002, "US", struct.pack("<H", 1)),
        (0x00280004, "CS", b"MONOCHROME2"),
        (0x00280010, "US", struct.pack("<H", size)),
        (0x00280011, "US", struct.pack("<H", size)),
        (0x00280100, "US", struct.pack("<H", 16)),
        (0x00280101, "US", struct.pack("<H", 16)),
        (0x00280102, "US", struct.pack("<H", 15)),
        (0x00280103, "US", struct.pack("<H", 0)),
    ]
    return b"".join(_element(tag, vr, value, each.syntax) for tag, vr, value in elements)


def dataset(each: Instance, pixels: bytes, size: int = SIZE) -> bytes:
    """An instance in its transfer syntax: one frame of `size` rows and columns, 16 bits a pixel."""
    return head(each, size) + _pixel_data(pixels, each.syntax)


def _sample(folder: Path, each: Instance, generator: random.Random, *, rival: bool = False) -> Sample:
    encoded = dataset(each, generator.randbytes(2 * SIZE * SIZE))
    path = folder / f"{each.number}{'r' if rival else ''}.dcm"
    path.write_bytes(part10.prefix(each.sop_class, each.uid, each.syntax) + encoded)
    return Sample(**asdict(each), content=content_of(each.syntax, encoded), path=path)


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
