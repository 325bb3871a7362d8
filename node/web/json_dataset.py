"""From the DICOM JSON model (PS3.18 annex F) to an encoded dataset in Explicit VR Little Endian.

Text is written in UTF-8, and Specific Character Set says so. Bulk data stays where it is: the encoded
dataset is a list of bytes and of `Bulk` values that stand for bytes elsewhere. Whatever does not fit the
model is refused; refusals name tags, never values.
"""

import base64
import binascii
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from node.domain.errors import Reason, Refusal
from node.domain.vr import LONG, NUMBERS, SHORT, SINGLE_TEXT

UNDEFINED = 0xFFFFFFFF
PIXEL_DATA = "7FE00010"
_CHARACTER_SET = "00080005"
_UTF_8 = {"vr": "CS", "Value": ["ISO_IR 192"]}
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_NOT_FINITE = ("NaN", "inf", "-inf")  # as `node.domain.jsonmodel` writes them
_TEXTS = frozenset(
    ["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"]
)
# Not of the dataset: file meta information, and what an archive computes
_LEFT_OUT = frozenset({"00083002", "00080056"})


@dataclass(frozen=True, slots=True)
class Bulk:
    """`length` bytes at `offset` of the request's bulk data."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class BulkValue:
    """What a BulkDataURI refers to: one or several parts; `syntax` if they are compressed frames."""

    parts: tuple[Bulk, ...]
    syntax: str | None


Pieces = list[bytes | Bulk]
Resolve = Callable[[str], BulkValue]


def encode(attributes: Any, resolve: Resolve, max_depth: int) -> Pieces:
    """The dataset's bytes. Refusal(NOT_UNDERSTOOD).

    `resolve` gives the bulk data behind a BulkDataURI, or raises a Refusal.
    """
    if not isinstance(attributes, dict):
        raise Refusal(Reason.NOT_UNDERSTOOD, "metadata is not a list of datasets")
    return _dataset({**attributes, _CHARACTER_SET: _UTF_8}, resolve, max_depth, top=True)


def length_of(pieces: Pieces) -> int:
    """Length in bytes."""
    return sum(piece.length if isinstance(piece, Bulk) else len(piece) for piece in pieces)


def _wrong(tag: str, what: str) -> Refusal:
    return Refusal(Reason.NOT_UNDERSTOOD, f"{tag if _TAG.fullmatch(tag) else 'attribute'}: {what}")


def _dataset(attributes: dict[str, Any], resolve: Resolve, depth: int, *, top: bool) -> Pieces:
    pieces: Pieces = []
    for tag in sorted(attributes, key=str.upper):
        if not _TAG.fullmatch(tag):
            raise _wrong("", "a tag is eight hexadecimal digits")
        if int(tag[:4], 16) < 8 or tag in _LEFT_OUT or tag[4:] == "0000":
            continue
        pieces += _element(tag.upper(), attributes[tag], resolve, depth, top)
    return pieces


def _element(tag: str, element: Any, resolve: Resolve, depth: int, top: bool) -> Pieces:
    if not isinstance(element, dict) or not isinstance(element.get("vr"), str):
        raise _wrong(tag, "no vr")
    vr = element["vr"]
    code = vr.encode("ascii", "replace")
    if code not in LONG and code not in SHORT:
        raise _wrong(tag, "unknown vr")
    if vr == "SQ":
        value = _sequence(tag, element.get("Value", []), resolve, depth)
    elif "BulkDataURI" in element:
        bulk = resolve(_one_text(tag, element["BulkDataURI"]))
        if bulk.syntax is not None:
            if tag != PIXEL_DATA or not top:
                raise _wrong(tag, "compressed data that is no pixel data")
            return [_head(tag, b"OB", UNDEFINED), *_encapsulated(bulk)]
        value = list(bulk.parts)
        if length_of(value) % 2:
            value.append(b"\0")
    elif "InlineBinary" in element:
        value = [_padded(_binary(tag, element["InlineBinary"]), b"\0")]
    else:
        value = [_plain(tag, vr, element.get("Value", []))]
    return [_head(tag, code, length_of(value)), *value]


def _head(tag: str, code: bytes, length: int) -> bytes:
    start = struct.pack("<HH2s", int(tag[:4], 16), int(tag[4:], 16), code)
    if code in LONG:
        if length > UNDEFINED or (length == UNDEFINED and code != b"OB"):
            raise _wrong(tag, "value too long")
        return start + struct.pack("<HI", 0, length)
    if length > 0xFFFE:
        raise _wrong(tag, "value too long for its vr")
    return start + struct.pack("<H", length)


def _sequence(tag: str, items: Any, resolve: Resolve, depth: int) -> Pieces:
    if depth <= 1:
        raise _wrong(tag, "sequences nested too deep")
    if not isinstance(items, list):
        raise _wrong(tag, "Value is not a list")
    pieces: Pieces = []
    for item in items:
        if item is not None and not isinstance(item, dict):
            raise _wrong(tag, "an item that is no dataset")
        inner = _dataset(item or {}, resolve, depth - 1, top=False)
        pieces += [struct.pack("<HHI", 0xFFFE, 0xE000, length_of(inner)), *inner]
    return pieces


def _encapsulated(bulk: BulkValue) -> Pieces:
    """Frames as one fragment each, behind a Basic Offset Table (PS3.5 section A.4)."""
    offsets, at = [], 0
    fragments: Pieces = []
    for part in bulk.parts:
        offsets.append(at)
        even = part.length + part.length % 2
        fragments += [struct.pack("<HHI", 0xFFFE, 0xE000, even), part]
        if part.length % 2:
            fragments.append(b"\0")
        at += even + 8
    table = b"".join(struct.pack("<I", offset) for offset in offsets) if at <= UNDEFINED else b""
    head = struct.pack("<HHI", 0xFFFE, 0xE000, len(table)) + table
    return [head, *fragments, struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)]


def _plain(tag: str, vr: str, values: Any) -> bytes:
    if not isinstance(values, list):
        raise _wrong(tag, "Value is not a list")
    if not values:
        return b""
    try:
        if vr in NUMBERS:
            number = _float if vr in ("FL", "FD") else _integer
            return b"".join(struct.pack("<" + NUMBERS[vr], number(vr, value)) for value in values)
        if vr == "AT":
            return b"".join(_packed_tag(_one_text(tag, value)) for value in values)
    except (ValueError, TypeError, OverflowError, struct.error):
        raise _wrong(tag, f"a value that is no {vr}") from None
    if vr not in _TEXTS:
        raise _wrong(tag, f"{vr} has no Value")
    text = "\\".join(_text(tag, vr, value) for value in values)
    return _padded(text.encode("utf-8", "replace"), b"\0" if vr == "UI" else b" ")


def _packed_tag(text: str) -> bytes:
    if not _TAG.fullmatch(text):
        raise ValueError
    return struct.pack("<HH", int(text[:4], 16), int(text[4:], 16))


def _integer(vr: str, value: Any) -> int:
    """A number without a fraction, however it is written; ValueError, OverflowError.

    Text stands for a number where one may exceed what JSON's readers hold (section F.2.3).
    """
    if isinstance(value, str) and vr in ("SV", "UV") and _INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise ValueError
    return int(value)


def _float(_vr: str, value: Any) -> float:
    """A number, or the text of one that JSON does not have; ValueError, OverflowError."""
    if isinstance(value, bool) or not (isinstance(value, (int, float)) or value in _NOT_FINITE):
        raise ValueError
    return float(value)


def _text(tag: str, vr: str, value: Any) -> str:
    if value is None:
        return ""
    if vr == "PN":
        if not isinstance(value, dict) or not all(isinstance(part, str) for part in value.values()):
            raise _wrong(tag, "a person name that is no object of texts")
        groups = [value.get(name, "") for name in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(groups).rstrip("=")
    if vr in ("IS", "DS") and isinstance(value, (int, float)):
        try:
            return _decimal(_float(vr, value)) if vr == "DS" else str(_integer(vr, value))
        except (ValueError, OverflowError):
            raise _wrong(tag, f"a value that is no {vr}") from None
    text = _one_text(tag, value)
    if "\\" in text and vr not in SINGLE_TEXT:
        raise _wrong(tag, "a backslash inside a value")
    return text


def _decimal(number: float) -> str:
    """As exact as the 16 characters of a DS allow."""
    return next(text for digits in range(16, 0, -1) if len(text := f"{number:.{digits}g}") <= 16)


def _one_text(tag: str, value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:  # as an example in annex F has it
        value = value[0]
    if not isinstance(value, str):
        raise _wrong(tag, "a value that is no text")
    return value


def _binary(tag: str, value: Any) -> bytes:
    try:
        return base64.b64decode(_one_text(tag, value), validate=True)
    except (binascii.Error, ValueError):
        raise _wrong(tag, "InlineBinary is not Base64") from None


def _padded(value: bytes, pad: bytes) -> bytes:
    return value + pad if len(value) % 2 else value
