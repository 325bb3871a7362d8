"""The DICOM JSON model (PS3.18 annex F) of a walked dataset."""

import base64
import math
import struct
from array import array
from collections import deque
from collections.abc import Callable
from typing import Any

from node.domain.dictionary import SIGNED_BY_PIXELS, vr_of
from node.domain.errors import Refusal
from node.domain.model import Attributes
from node.domain.text import CharacterSet, character_set
from node.domain.vr import CUT_BYTES, ENCODED_TEXT, NUMBERS, SINGLE_TEXT, TRIMMED_TEXT, WIDTHS, WORDS
from node.domain.walk import Element, Elements, Limits, Walk

_CHARACTER_SET = 0x00080005
_PADDING = 0xFFFCFFFC
_TEXT = ENCODED_TEXT | SINGLE_TEXT | TRIMMED_TEXT
_PAD = " \0"
# Of a sequence inside one kept UN value. The depth adds to that of the dataset, and JSON is made by
# recursion, five Python frames a level.
_INNER_LIMITS = Limits(2 * CUT_BYTES, 16, CUT_BYTES, 2 * CUT_BYTES)
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


class Scope:
    """What the values of one dataset or item are to be read with."""

    __slots__ = ("big", "bulk_uri", "charset", "implicit", "kept", "path", "signed")

    def __init__(
        self,
        kept: bytes,
        charset: CharacterSet,
        big: bool,
        implicit: bool,
        signed: bool,
        bulk_uri: Callable[[tuple[str | int, ...], int, int], str] | None,
        path: tuple[str | int, ...] = (),
    ) -> None:
        self.kept = kept
        self.charset = charset
        self.big = big
        self.implicit = implicit
        self.signed = signed  # Pixel Representation is 1
        self.bulk_uri = bulk_uri
        self.path = path

    def item(self, elements: Elements, opaque: bool, path: tuple[str | int, ...]) -> "Scope":
        """The scope of an item; `opaque` if its sequence is encoded as UN (PS3.5 section 6.2.2)."""
        charset, signed = self.charset, self.signed
        own = elements.get(_CHARACTER_SET)
        if own is not None and own[1] >= 0 and own[2]:
            charset = character_set(self.kept[own[1] : own[1] + own[2]])
        own = elements.get(0x00280103)
        if own is not None and own[1] >= 0 and own[2] == 2:
            signed = bool(self.kept[own[1]] or self.kept[own[1] + 1])
        return Scope(
            self.kept, charset, self.big and not opaque, self.implicit or opaque, signed, self.bulk_uri, path
        )


def dataset(elements: Elements, scope: Scope) -> Attributes:
    """All attributes but group lengths and padding, by ascending tag."""
    return {
        f"{tag:08X}": attribute(tag, elements[tag], scope)
        for tag in sorted(elements)
        if tag & 0xFFFF and tag != _PADDING
    }


def attribute(tag: int, element: Element, scope: Scope) -> dict[str, Any]:
    """One attribute. A value that is not what its VR promises is given as text, or left out."""
    vr, start, length, items = element
    if items is not None:
        return _sequence(tag, items, scope, vr == "UN")
    if start < 0:
        if scope.bulk_uri is None:
            return {"vr": vr}
        return {"vr": vr, "BulkDataURI": scope.bulk_uri((*scope.path, f"{tag:08X}"), ~start, length)}
    big = scope.big
    if vr == "UN":  # encoded in little endian, whatever is around it (PS3.5 section 6.2.2)
        known = vr_of(tag)
        if known == "SQ":
            return _unknown_sequence(tag, scope.kept[start : start + length], scope)
        if not length % WIDTHS.get(known, 1):
            vr, big = known, False
    elif scope.signed and vr == "US" and scope.implicit and tag in SIGNED_BY_PIXELS:
        vr = "SS"
    if not length:
        return {"vr": vr}
    raw = scope.kept[start : start + length]
    if tag == _CHARACTER_SET:
        return {"vr": "CS", "Value": ["ISO_IR 192"]}
    if vr in _TEXT:
        values = _values(vr, raw, scope)
        return {"vr": vr, "Value": values} if values else {"vr": vr}
    code = NUMBERS.get(vr)
    if code is not None:
        return {"vr": vr, "Value": _numbers(code, raw, WIDTHS[vr], big)}
    if vr == "AT":
        return {"vr": vr, "Value": _tags(raw, big)}
    return {"vr": vr, "InlineBinary": base64.b64encode(_little(vr, raw, big)).decode("ascii")}


def texts(tag: int, element: Element, scope: Scope) -> list[str]:
    """The values of an element as text, names with all their groups; [] if it holds none."""
    vr, start, length, items = element
    if items is not None or start < 0 or not length:
        return []
    if vr == "UN":
        vr = vr_of(tag)
    if vr in _TEXT:
        return _strings(vr, scope.kept[start : start + length], scope)
    found: list[Any] = attribute(tag, element, scope).get("Value", [])
    return [str(value) for value in found if not isinstance(value, dict)]


def _sequence(tag: int, items: list[Elements], scope: Scope, opaque: bool) -> dict[str, Any]:
    if not items:
        return {"vr": "SQ"}
    name = f"{tag:08X}"
    return {
        "vr": "SQ",
        "Value": [
            dataset(item, scope.item(item, opaque, (*scope.path, name, index)))
            for index, item in enumerate(items)
        ],
    }


def _unknown_sequence(tag: int, raw: bytes, scope: Scope) -> dict[str, Any]:
    """A sequence that passed through a system which did not know it and wrote UN with a length.

    Its items are in implicit VR little endian (PS3.5 section 6.2.2 note); if they are not, it stays
    binary.
    """
    walk = Walk(
        False, False, _INNER_LIMITS, (struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(raw)) + raw, deque())
    )
    try:
        walk.advance()
        walk.complete()
    except Refusal:
        return {"vr": "UN", "InlineBinary": base64.b64encode(raw).decode("ascii")}
    inner = Scope(bytes(walk.buffer), scope.charset, False, True, scope.signed, None)
    return attribute(tag, walk.top[tag], inner)


def _strings(vr: str, raw: bytes, scope: Scope) -> list[str]:
    text = scope.charset.decode(raw, vr == "PN") if vr in ENCODED_TEXT else raw.decode("latin-1")
    if vr in SINGLE_TEXT:
        return [text.rstrip(_PAD)]
    if vr in TRIMMED_TEXT:
        if "\\" not in text:
            return [text.strip(_PAD)]
        return [value.strip(_PAD) for value in text.split("\\")]
    return [value.rstrip(_PAD) for value in text.split("\\")]


def _values(vr: str, raw: bytes, scope: Scope) -> list[Any]:
    """The values as JSON has them, empty ones as None; [] if all there is is padding."""
    strings = _strings(vr, raw, scope)
    if len(strings) == 1 and not strings[0]:
        return []
    if vr == "PN":
        return [_name(value) for value in strings]
    if vr == "IS":
        return [_integer(value) if value else None for value in strings]
    if vr == "DS":
        return [_decimal(value) if value else None for value in strings]
    return [value or None for value in strings]


def _name(value: str) -> dict[str, str] | None:
    if "=" not in value:
        return {"Alphabetic": value} if value else None
    found = {group: text.rstrip(_PAD) for group, text in zip(_GROUPS, value.split("="), strict=False)}
    return {group: text for group, text in found.items() if text} or None


def _integer(value: str) -> int | str:
    try:
        return int(value) if "_" not in value and value.isascii() else value
    except ValueError:
        return value


def _decimal(value: str) -> float | str:
    try:
        number = float(value)
    except ValueError:
        return value
    return number if math.isfinite(number) and "_" not in value else value


def _numbers(code: str, raw: bytes, width: int, big: bool) -> list[Any]:
    values = struct.unpack(f"{'>' if big else '<'}{len(raw) // width}{code}", raw)
    if code in "fd":  # JSON has no numbers for these
        return [
            value if math.isfinite(value) else "NaN" if value != value else "inf" if value > 0 else "-inf"
            for value in values
        ]
    return list(values)


def _tags(raw: bytes, big: bool) -> list[str]:
    halves = struct.unpack(f"{'>' if big else '<'}{len(raw) // 2}H", raw)
    return [f"{group:04X}{number:04X}" for group, number in zip(halves[::2], halves[1::2], strict=True)]


def _little(vr: str, raw: bytes, big: bool) -> bytes:
    """Opaque words in little endian, as inline binary has them."""
    width = WORDS.get(vr, 1)
    if not big or width == 1 or len(raw) % width:
        return raw
    words = array({2: "H", 4: "I", 8: "Q"}[width], raw)
    words.byteswap()
    return words.tobytes()
