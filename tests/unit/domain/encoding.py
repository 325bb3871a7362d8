"""Datasets written by hand, so that they can be wrong in exactly one way, and pydicom's real ones."""

import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pydicom

from node.domain.errors import Refusal
from node.domain.header import Limits
from node.domain.part10 import Part10Reader
from node.domain.vr import LONG

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
JPEG = "1.2.840.10008.1.2.4.50"
LIMITS = Limits(max_header_bytes=4 << 20, max_depth=32, max_elements=100_000, max_object_bytes=256 << 20)
UNDEFINED = 0xFFFFFFFF

_FILES = Path(pydicom.__file__).parent / "data"


def element(tag: int, vr: str, value: bytes, length: int | None = None, order: str = "<") -> bytes:
    """An explicit VR element; `length` overrides the truth."""
    length = len(value) if length is None else length
    head = struct.pack(f"{order}HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    if vr.encode() in LONG:
        return head + struct.pack(f"{order}HI", 0, length) + value
    return head + struct.pack(f"{order}H", length) + value


def implicit(tag: int, value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def item(content: bytes, length: int | None = None) -> bytes:
    return implicit(0xFFFEE000, content, length)


ITEM_END = implicit(0xFFFEE00D, b"")
SEQUENCE_END = implicit(0xFFFEE0DD, b"")


def nested(depth: int, defined: bool = False) -> bytes:
    """A sequence in a sequence in a …"""
    content = element(0x00100020, "LO", b"ID")
    for _ in range(depth):
        if defined:
            content = element(0x00081140, "SQ", item(content))
        else:
            content = element(0x00081140, "SQ", item(content + ITEM_END, UNDEFINED) + SEQUENCE_END, UNDEFINED)
    return content


@dataclass(frozen=True)
class RealFile:
    """One of pydicom's bundled files: its dataset as encoded, and where that begins in the file."""

    path: Path
    transfer_syntax_uid: str
    dataset: bytes
    offset: int


@cache
def real_files() -> tuple[RealFile, ...]:
    """All bundled files that are in the DICOM file format."""
    found = []
    for path in sorted(_FILES.rglob("*")):
        if path.is_file() and path.suffix != ".py":
            data = path.read_bytes()
            reader = Part10Reader()
            try:
                dataset = bytes(reader.feed(data))
                meta = reader.finish()
            except Refusal:
                continue
            found.append(RealFile(path, meta.transfer_syntax_uid, dataset, len(data) - len(dataset)))
    return tuple(found)


def real_file(name: str) -> RealFile:
    return next(file for file in real_files() if file.path.name == name)
