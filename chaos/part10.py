"""DICOM files (PS3.10 section 7.1) as far as the suite needs them: made, and taken apart again.

Apart from the archive's own code, so that a fault there cannot hide itself here.
"""

import struct
from typing import NamedTuple

_IMPLEMENTATION = b"2.25.150116283474093214170327219286071466717"
_META_AT = 132 + 12  # preamble, "DICM", and the element that holds the length of the others


class Part10(NamedTuple):
    """A file's parts."""

    uid: str
    syntax: str
    dataset: bytes


def prefix(sop_class: str, uid: str, syntax: str) -> bytes:
    """All that precedes the dataset: zeroed preamble, "DICM", File Meta Information."""
    group = struct.pack("<HH2sxxIH", 2, 1, b"OB", 2, 0x0100)
    for element, value in ((2, sop_class), (3, uid), (0x10, syntax), (0x12, _IMPLEMENTATION.decode())):
        encoded = value.encode() + b"\0" * (len(value) % 2)
        group += struct.pack("<HH2sH", 2, element, b"UI", len(encoded)) + encoded
    return bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(group)) + group


def parse(file: bytes) -> Part10 | None:
    """A file's parts; None if it is no DICOM file."""
    if file[128:140] != b"DICM" + struct.pack("<HH2sH", 2, 0, b"UL", 4) or len(file) < _META_AT:
        return None
    end = _META_AT + int(struct.unpack("<I", file[140:144])[0])
    values: dict[int, str] = {}
    at = _META_AT
    while at + 8 <= end <= len(file):
        element, vr, length = struct.unpack("<xxH2sH", file[at : at + 8])
        at += 8
        if vr in (b"OB", b"UN"):
            length = struct.unpack("<I", file[at : at + 4])[0]
            at += 4
        values[element] = file[at : at + length].rstrip(b"\0 ").decode("ascii", "replace")
        at += length
    if at != end or not {3, 0x10} <= values.keys():
        return None
    return Part10(values[3], values[0x10], file[end:])
