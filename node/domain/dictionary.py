"""The data dictionary (PS3.6), from `dictionary.csv`: tag or pattern, VR, VM, keyword.

`x` in a tag stands for any digit (repeating groups). Where PS3.6 allows several VRs, the table names
them with "or" between; the VR given here is the one implicit encodings are best read with.
"""

import functools
import re
from pathlib import Path

# The choice where PS3.6 leaves one. "US or SS" depends on Pixel Representation: see SIGNED_BY_PIXELS.
_CHOICE = {"US or SS": "US", "OB or OW": "OW", "US or OW": "OW", "US or SS or OW": "OW"}

VRS: dict[int, str] = {}  # tags outside repeating groups
_KEYWORDS: dict[int, str] = {}
_PATTERNS: list[tuple[int, int, str, str]] = []  # mask, value, VR, keyword
_signed: set[int] = set()


def _load() -> None:
    for line in Path(__file__).with_name("dictionary.csv").read_text("ascii").splitlines():
        tag, vr, _, keyword = line.split(",")
        if " " in vr:
            if vr == "US or SS":
                _signed.add(int(tag, 16))
            vr = _CHOICE[vr]
        if "x" in tag:
            mask = int(re.sub("[^x]", "F", tag).replace("x", "0"), 16)
            _PATTERNS.append((mask, int(tag.replace("x", "0"), 16), vr, keyword))
        else:
            number = int(tag, 16)
            VRS[number] = vr
            _KEYWORDS[number] = keyword


_load()

# Tags that are SS instead of US when Pixel Representation (0028,0103) is 1
SIGNED_BY_PIXELS = frozenset(_signed)


def _pattern(tag: int) -> tuple[str, str]:
    """VR and keyword of a tag in a repeating group."""
    for mask, value, vr, keyword in _PATTERNS:
        if tag & mask == value:
            return vr, keyword
    return "UN", ""


def vr_of(tag: int) -> str:
    """The VR of a tag; "UN" if it is unknown, "UL" for group lengths, "LO" for private creators."""
    known = VRS.get(tag)
    if known is not None:
        return known
    if not tag & 0xFFFF:
        return "UL"
    if tag & 0x10000:  # private (PS3.5 section 7.8.1)
        return "LO" if 0x10 <= tag & 0xFFFF <= 0xFF else "UN"
    return _pattern(tag)[0]


@functools.cache
def _tags() -> dict[str, int]:
    return {keyword: tag for tag, keyword in _KEYWORDS.items() if keyword}


def tag_of(keyword: str) -> int | None:
    """The tag with this keyword, or None. Repeating groups have no single tag."""
    return _tags().get(keyword)


def keyword_of(tag: int) -> str:
    """The keyword of a tag; "" if it has none."""
    known = _KEYWORDS.get(tag)
    if known is not None:
        return known
    return "" if tag & 0x10000 else _pattern(tag)[1]
