"""Decoding of text by Specific Character Set (PS3.3 section C.12.1.1.2, PS3.5 section 6.1).

A set with code extensions (ISO 2022) is a small state machine: escape sequences choose what the bytes
below 0x80 (G0) and from 0x80 (G1) stand for, and delimiters bring back the first set. Nothing here
raises: a byte that means nothing becomes U+FFFD, an unknown set is read as Latin-1.
"""

import functools
import re

_DEFAULT = "latin-1"  # the default repertoire is ASCII; real files without a set hold Latin-1

# Defined term's number -> Python codec of its G0 + G1 (single-byte sets without code extensions)
_SINGLE = {
    "6": _DEFAULT,
    "100": "latin-1",
    "101": "iso8859_2",
    "109": "iso8859_3",
    "110": "iso8859_4",
    "144": "iso8859_5",
    "127": "iso8859_6",
    "126": "iso8859_7",
    "138": "iso8859_8",
    "148": "iso8859_9",
    "203": "iso8859_15",
    "13": "shift_jis",  # JIS X 0201: its single-byte half
    "166": "iso8859_11",
    "192": "utf-8",
    # As a first (or only) value these mean ASCII until an escape sequence comes
    "87": _DEFAULT,
    "159": _DEFAULT,
    "149": "euc_kr",
    "58": "gb2312",
}
_WHOLE = {"192", "GB18030", "GBK"}  # sets that exclude code extensions

# Escape sequence -> (half, codec); the two-byte G0 sets are marked by _PAIRS.
_JISX0208, _JISX0212 = "jisx0208", "jisx0212"
_PAIRS = {_JISX0208: b"\x1b$B", _JISX0212: b"\x1b$(D"}
_ESCAPES = {
    b"\x1b(B": (0, ""),
    b"\x1b(J": (0, ""),
    b"\x1b$B": (0, _JISX0208),
    b"\x1b$@": (0, _JISX0208),
    b"\x1b$(D": (0, _JISX0212),
    b"\x1b)I": (1, "shift_jis"),
    b"\x1b$)C": (1, "euc_kr"),
    b"\x1b$)A": (1, "gb2312"),
    b"\x1b-A": (1, "latin-1"),
    b"\x1b-B": (1, "iso8859_2"),
    b"\x1b-C": (1, "iso8859_3"),
    b"\x1b-D": (1, "iso8859_4"),
    b"\x1b-L": (1, "iso8859_5"),
    b"\x1b-G": (1, "iso8859_6"),
    b"\x1b-F": (1, "iso8859_7"),
    b"\x1b-H": (1, "iso8859_8"),
    b"\x1b-M": (1, "iso8859_9"),
    b"\x1b-b": (1, "iso8859_15"),
    b"\x1b-T": (1, "iso8859_11"),
}
_SPLIT = re.compile(b"(" + b"|".join(re.escape(sequence) for sequence in _ESCAPES) + b")")
_DELIMITER = re.compile(rb"[\\\t\n\f\r]")
_NAME_DELIMITER = re.compile(rb"[\\\t\n\f\r^=]")
_PAIR_RUN = re.compile(rb"[\x21-\x7e]*")


class CharacterSet:
    """One value of Specific Character Set, ready to decode with. Get it from `character_set`."""

    __slots__ = ("_codec", "_extended")

    def __init__(self, codec: str, extended: bool) -> None:
        self._codec = codec
        self._extended = extended

    def decode(self, raw: bytes, name: bool = False) -> str:
        """Text of an encoded value, several values still joined by backslashes; `name` for VR PN."""
        if self._extended and b"\x1b" in raw:
            return self._decode_extended(raw, _NAME_DELIMITER if name else _DELIMITER)
        return raw.decode(self._codec, "replace")

    def _decode_extended(self, raw: bytes, delimiter: re.Pattern[bytes]) -> str:
        pieces: list[str] = []
        low, high = "", self._codec
        for fragment in _SPLIT.split(raw):
            escape = _ESCAPES.get(fragment)
            if escape is not None:
                if escape[0]:
                    high = escape[1]
                else:
                    low = escape[1]
                continue
            if low:
                # Two bytes a character, among them 0x5C, 0x5E and 0x3D: no delimiter is looked for.
                # The set ends with an escape sequence or, in text that forgot it, a control or G1 byte.
                run = _PAIR_RUN.match(fragment)
                length = run.end() if run else 0
                pieces.append(_decode_pairs(fragment[:length], low))
                fragment = fragment[length:]
                if fragment:
                    low = ""
            found = delimiter.search(fragment)
            if found:
                pieces.append(fragment[: found.start()].decode(high, "replace"))
                low, high = "", self._codec
                fragment = fragment[found.start() :]
            pieces.append(fragment.decode(high, "replace"))
        return "".join(pieces)


def _decode_pairs(data: bytes, low: str) -> str:
    return (_PAIRS[low] + data + b"\x1b(B").decode("iso2022_jp_2", "replace")


@functools.lru_cache(maxsize=256)
def character_set(specific_character_set: bytes) -> CharacterSet:
    """The character set that a raw value of (0008,0005) names; b"" is the default repertoire."""
    terms = [term.strip(" \0").upper() for term in specific_character_set.decode("latin-1").split("\\")]
    numbers = [_number(term) for term in terms]
    first = numbers[0]
    if first in _WHOLE:
        return CharacterSet("utf-8" if first == "192" else "gb18030", extended=False)
    codec = _SINGLE.get(first, _DEFAULT)
    extended = len(terms) > 1 or "2022" in terms[0]
    return CharacterSet(codec, extended)


def _number(term: str) -> str:
    """The registration number in a term, however it is spelled ("ISO_IR 100", "ISO-IR_100")."""
    if term in _WHOLE or not term:
        return term or "6"
    if term in ("UTF-8", "UTF8"):
        return "192"
    digits = re.search(r"(\d+)$", term)
    return digits.group(1) if digits else ""
