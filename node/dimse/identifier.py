"""Identifiers (PS3.4 section C.4): encoded datasets to the DICOM JSON model and back.

Requests are read by the archive's own bounded parser. Responses are written here: in the request's
character set if it can represent all of the text, otherwise in UTF-8, never undecodable.
"""

import base64
import struct
import zlib
from collections.abc import Callable
from typing import Any

from pydicom import charset

from node.domain.errors import Reason, Refusal
from node.domain.header import Limits, read_header
from node.domain.model import Attributes
from node.domain.syntaxes import DEFLATED, EXPLICIT_BIG, IMPLICIT_LITTLE
from node.domain.text import character_set
from node.domain.vr import ENCODED_TEXT, LONG, NUMBERS

CHARACTER_SET = "00080005"
UTF_8 = b"ISO_IR 192"
_LIMITS = Limits(max_header_bytes=1 << 20, max_depth=8, max_elements=2000, max_object_bytes=1 << 20)
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_SHORT_BYTES = 0xFFFE

# Character sets without code extensions, by their defined terms (PS3.3 section C.12.1.1.2)
_CODECS = {
    b"": "ascii",
    b"ISO_IR 6": "ascii",
    b"ISO_IR 100": "latin-1",
    b"ISO_IR 101": "iso8859_2",
    b"ISO_IR 109": "iso8859_3",
    b"ISO_IR 110": "iso8859_4",
    b"ISO_IR 144": "iso8859_5",
    b"ISO_IR 127": "iso8859_6",
    b"ISO_IR 126": "iso8859_7",
    b"ISO_IR 138": "iso8859_8",
    b"ISO_IR 148": "iso8859_9",
    b"ISO_IR 203": "iso8859_15",
    b"ISO_IR 166": "iso8859_11",
    b"GB18030": "gb18030",
    b"GBK": "gbk",
    UTF_8: "utf-8",
}

Encode = Callable[[str, str], bytes]  # (text, VR) -> bytes; UnicodeError if it cannot be said


def decode(data: bytes | bytearray, syntax_uid: str) -> tuple[Attributes, bytes]:
    """(attributes, raw Specific Character Set) of a request's identifier; Refusal(NOT_UNDERSTOOD …)."""
    header = read_header(bytes(data), syntax_uid, _LIMITS)
    return header.attributes(), (header.get(0x00080005) or b"").rstrip(b" \0")


def level(attributes: Attributes) -> str:
    """Query/Retrieve Level; Refusal(MISMATCH) if there is none."""
    values = attributes.get("00080052", {}).get("Value") or [None]
    if not isinstance(values[0], str):
        raise Refusal(Reason.MISMATCH, "identifier without Query/Retrieve Level")
    return values[0]


def encode(attributes: Attributes, syntax_uid: str, requested: bytes = b"") -> bytes:
    """An identifier in a transfer syntax.

    `requested`: the request's Specific Character Set, used if all text can be said in it.
    """
    plain = {tag: element for tag, element in attributes.items() if tag != CHARACTER_SET}
    for name, encoder in ((requested, _encoder(requested)), (UTF_8, _encoder(UTF_8))):
        if encoder is None:
            continue
        try:
            terms = {"vr": "CS", "Value": name.decode("ascii").split("\\")} if name else None
            chosen = {**plain, CHARACTER_SET: terms} if terms else plain
            encoded = _dataset(chosen, syntax_uid, encoder)
        except UnicodeError:
            continue
        if syntax_uid == DEFLATED:
            deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            encoded = deflater.compress(encoded) + deflater.flush()
            encoded += b"\0" * (len(encoded) % 2)
        return encoded
    raise AssertionError("UTF-8 can say everything")


def uids(values: list[str]) -> dict[str, Any]:
    """A UI element with as many of the values as a short length can hold."""
    kept: list[str] = []
    size = 0
    for value in values:
        size += len(value) + 1
        if size > _SHORT_BYTES:
            break
        kept.append(value)
    return {"vr": "UI", "Value": kept}


def _encoder(name: bytes) -> Encode | None:
    """How text is said in a character set; None if we do not know."""
    codec = _CODECS.get(name)
    if codec is not None:
        # Surrogates cannot be said in UTF-8 either; a question mark is better than no answer.
        errors = "replace" if name == UTF_8 else "strict"
        return lambda text, _vr: text.encode(codec, errors)
    try:
        encodings = charset.convert_encodings(name.decode("ascii").split("\\"))
    except (LookupError, UnicodeError):
        return None
    if isinstance(encodings, str) or len(encodings) < 2:
        return None
    decoder = character_set(name)
    ascii_first = name.partition(b"\\")[0] in (b"", b"ISO_IR 6", b"ISO 2022 IR 6")

    def extended(text: str, vr: str) -> bytes:
        """Code extensions by pydicom, believed only if they can be read back."""
        if ascii_first and any("\x80" <= letter <= "\xff" for letter in text):
            raise UnicodeError  # pydicom takes the default repertoire for Latin-1
        parts = [text]
        for delimiter in "=^" if vr == "PN" else "":
            parts = [each for part in parts for each in _with_delimiter(part, delimiter)]
        encoded = b"".join(charset.encode_string(part, encodings) for part in parts)
        if decoder.decode(encoded, vr == "PN") != text:
            raise UnicodeError
        return encoded

    return extended


def _with_delimiter(text: str, delimiter: str) -> list[str]:
    first, *rest = text.split(delimiter)
    return [first, *(piece for part in rest for piece in (delimiter, part))]


def _dataset(attributes: Attributes, syntax_uid: str, text: Encode) -> bytes:
    return b"".join(_element(tag, attributes[tag], syntax_uid, text) for tag in sorted(attributes))


def _element(tag: str, element: dict[str, Any], syntax_uid: str, text: Encode) -> bytes:
    order = ">" if syntax_uid == EXPLICIT_BIG else "<"
    vr: str = element["vr"]
    head = struct.pack(f"{order}HH", int(tag[:4], 16), int(tag[4:], 16))
    if vr == "SQ":
        items = (_dataset(item, syntax_uid, text) for item in element.get("Value", []))
        value: bytes = b"".join(
            struct.pack(f"{order}HHI", 0xFFFE, 0xE000, len(item)) + item for item in items
        )
    else:
        value = _value(vr, element, order, text)
    if syntax_uid == IMPLICIT_LITTLE:
        return head + struct.pack("<I", len(value)) + value
    if vr.encode() in LONG:
        return head + vr.encode() + struct.pack(f"{order}HI", 0, len(value)) + value
    if len(value) > _SHORT_BYTES:
        value = b""  # it cannot be said in this VR: as if it had no value
    return head + vr.encode() + struct.pack(f"{order}H", len(value)) + value


def _value(vr: str, element: dict[str, Any], order: str, text: Encode) -> bytes:
    if "InlineBinary" in element:
        return base64.b64decode(element["InlineBinary"])
    values = element.get("Value") or []
    if vr in NUMBERS:
        return struct.pack(f"{order}{len(values)}{NUMBERS[vr]}", *(_number(vr, each) for each in values))
    if vr == "AT":
        return b"".join(struct.pack(f"{order}HH", int(each[:4], 16), int(each[4:], 16)) for each in values)
    said: str = "\\".join(_text(each) for each in values)
    encoded = text(said, vr) if vr in ENCODED_TEXT else said.encode("ascii", "replace")
    if len(encoded) % 2:
        encoded += b"\0" if vr == "UI" else b" "
    return encoded


def _number(vr: str, value: Any) -> int | float:
    return float(value) if vr in ("FL", "FD") else int(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):  # a person name
        return "=".join(str(value.get(group, "")) for group in _GROUPS).rstrip("=")
    if isinstance(value, float):  # DS has 16 characters at most
        return next(
            said for said in (f"{value:.{digits}g}" for digits in range(16, 0, -1)) if len(said) <= 16
        )
    return str(value)
