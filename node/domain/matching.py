"""From keys to matches: what a request's key values ask for (PS3.4 section C.2.2.2).

A key value is universal (empty, or "*"), a list of UIDs, a range (dates and times), a wildcard (text),
or a single value. Legacy spellings (2020.01.02, 10:11:12) are understood. What the VR does not allow is
refused: `Refusal(INVALID_QUERY)` names the tag, never the value.

Reduced precision: a time or date-time key covers all of the unit that it names, so 1011 matches
10:11:59.5, and 10-11 ends at 11:59:59.999999.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

from node.domain import dictionary, names
from node.domain.errors import Reason, Refusal
from node.domain.model import Attributes
from node.domain.query import Kind, Match

MAX_KEYS = 100
MAX_VALUES = 1000  # in one key
MAX_VALUE_CHARS = 1024
MAX_DEPTH = 4  # sequences in sequences

WILDCARD_VRS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
NUMBER_VRS = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})
_MULTIPLE_VRS = frozenset({"AE", "AS", "AT", "CS", "LO", "PN", "SH", "UC"})  # C.2.2.2.8
_BINARY_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_EMPTY = '""'

_UID = re.compile(r"[0-9.]{1,64}", re.ASCII)
_TIME = re.compile(r"(\d{2})(?:(\d{2})(?:(\d{2})(?:\.(\d{1,6}))?)?)?", re.ASCII)
_MOMENT = re.compile(
    r"(\d{4})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:\.(\d{1,6}))?)?)?)?)?)?(?:[+-](?:0\d|1[0-4])[0-5]\d)?",
    re.ASCII,
)

# Year, month, day, hour, minute, second: the least, what a missing one may be at most, the largest
# allowed (a leap second).
_UNITS = (
    ("0001", "9999", "9999"),
    ("01", "12", "12"),
    ("01", "31", "31"),
    ("00", "23", "23"),
    ("00", "59", "59"),
    ("00", "59", "60"),
)

# Date attributes and the time attributes that complete them (combined date-time matching).
TIME_OF_DATE = {
    "00080020": "00080030",  # study
    "00080021": "00080031",  # series
    "00080022": "00080032",  # acquisition
    "00080023": "00080033",  # content
    "00400244": "00400245",  # performed procedure step start
    "00400250": "00400251",  # performed procedure step end
}


@dataclass(frozen=True, slots=True)
class Rules:
    """What was negotiated (PS3.4 section C.5.1.1) or asked for (PS3.18 section 8.3.4).

    `combined`: date and time ranges are compared as moments. `empty`: `""` matches what has no value.
    `multiple`: each of several values must be there; without it any of them is enough.
    """

    combined: bool = False
    empty: bool = False
    multiple: bool = False


def matches_of(identifier: Attributes, rules: Rules, above: tuple[str, ...] = ()) -> list[Match]:
    """The matches that an identifier's keys ask for, sequences included (one item each, C.2.2.2.6)."""
    matches = []
    for tag, element in identifier.items():
        path = (*above, tag)
        given = str(element.get("vr", "UN"))
        known = dictionary.vr_of(int(tag, 16))
        vr = given if known == "UN" else known
        if (vr == "SQ") != (given == "SQ"):
            raise _wrong(path, f"VR {given} instead of {vr}")
        if vr == "SQ":
            items = element.get("Value") or []
            if len(items) > 1:
                raise _wrong(path, "more than one item")
            if len(path) >= MAX_DEPTH:
                raise _wrong(path, "nested too deep")
            matches += matches_of(items[0], rules, path) if items else []
        else:
            match = match_of(path, vr, values_of(element), rules)
            matches += [match] if match else []
    return matches


def within(matches: Iterable[Match], tag: str) -> list[Match]:
    """Those matches that lie in a sequence, with their paths inside its items."""
    return [
        replace(match, path=match.path[1:])
        for match in matches
        if match.path[0] == tag and len(match.path) > 1
    ]


def match_of(path: tuple[str, ...], vr: str, values: Sequence[str], rules: Rules) -> Match | None:
    """The match that a key's values ask for, None for universal matching."""
    if len(values) > MAX_VALUES or any(len(value) > MAX_VALUE_CHARS for value in values):
        raise _wrong(path, "too long")
    stripped = [value.strip(" \0") for value in values]
    if any("\0" in value or not _encodable(value) for value in stripped):
        raise _wrong(path, "not text")
    if all(not value.strip("*") for value in stripped):
        return None
    if vr in _BINARY_VRS or vr == "SQ":
        raise _wrong(path, f"VR {vr} cannot be matched")
    if stripped == [_EMPTY] and rules.empty:
        return Match(path, Kind.EMPTY, (), vr)
    wanted = [value for value in stripped if value]
    if len(wanted) > 1:
        return _several(path, vr, wanted, rules)
    return _one(path, vr, wanted[0])


def _encodable(text: str) -> bool:
    """Whether it is free of lone surrogates."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _several(path: tuple[str, ...], vr: str, values: list[str], rules: Rules) -> Match:
    matches = [_one(path, vr, value) for value in values]
    if any(match.kind is not Kind.SINGLE for match in matches):
        raise _wrong(path, "several values only without wildcards and ranges")
    kind = Kind.ALL if rules.multiple and vr in _MULTIPLE_VRS else Kind.LIST
    return Match(path, kind, tuple(match.values[0] for match in matches), vr)


def _one(path: tuple[str, ...], vr: str, value: str) -> Match:
    try:
        if vr == "DA":
            return _date(path, value)
        if vr in ("TM", "DT"):
            return _time(path, vr, value)
        if vr == "UI" and not _UID.fullmatch(value):
            raise ValueError("not a UID")
        if vr in NUMBER_VRS:
            return Match(path, Kind.SINGLE, (_number(value),), vr)
    except ValueError as error:
        raise _wrong(path, str(error)) from None
    if vr in WILDCARD_VRS and ("*" in value or "?" in value):
        return Match(path, Kind.WILDCARD, (value,), vr)
    return Match(path, Kind.SINGLE, (value,), vr)


def _date(path: tuple[str, ...], value: str) -> Match:
    if "-" not in value:
        return Match(path, Kind.SINGLE, (_day(value),), "DA")
    low, _, high = (part.strip(" ") for part in value.partition("-"))
    if not low and not high:
        raise ValueError("a range needs an end")
    return Match(path, Kind.RANGE, (low and _day(low), high and _day(high)), "DA")


def _day(text: str) -> str:
    digits = text.replace(".", "") if re.fullmatch(r"\d{4}\.\d{2}\.\d{2}", text, re.ASCII) else text
    if not re.fullmatch(r"\d{8}", digits, re.ASCII):
        raise ValueError("not a date")
    try:
        date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        raise ValueError("not a date") from None
    return digits


def _time(path: tuple[str, ...], vr: str, value: str) -> Match:
    """A time or date-time, or a range of them: the first way to read the value that makes sense.

    The hyphen of a DT may belong to its time zone, which itself is not taken into account.
    """
    places = [place for place, char in enumerate(value) if char == "-"]
    readings = [(Kind.UNIT, value, value)] if not places or vr == "DT" else []
    for place in places:
        low, high = value[:place].strip(" "), value[place + 1 :].strip(" ")
        readings += [(Kind.RANGE, low, high)] if low or high else []
    for kind, low, high in readings:
        try:
            ends = (low and _complete(vr, low, first=True), high and _complete(vr, high, first=False))
        except ValueError:
            continue
        return Match(path, kind, ends, vr)
    raise ValueError("not a time" if vr == "TM" else "not a date-time")


def _complete(vr: str, text: str, *, first: bool) -> str:
    """Text with missing units filled in: with the smallest, or the largest that they can be."""
    pattern, units = (_TIME, _UNITS[3:]) if vr == "TM" else (_MOMENT, _UNITS)
    found = pattern.fullmatch(text.replace(":", "") if vr == "TM" else text)
    if not found:
        raise ValueError("not understood")
    *given, fraction = found.groups()
    digits = ""
    for value, (least, most, largest) in zip(given, units, strict=True):
        if value is not None and not least <= value <= largest:
            raise ValueError("out of range")
        digits += value or (least if first else most)
    fraction = (fraction or "").rstrip("0") if first else (fraction or "").ljust(6, "9")
    return f"{digits}.{fraction}" if fraction else digits


def _number(text: str) -> str:
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError("not a number") from None
    if not number.is_finite() or len(text) > 32 or abs(number.adjusted()) > 400:
        raise ValueError("not a number")
    return text


def combine_dates_and_times(matches: Iterable[Match]) -> tuple[Match, ...]:
    """Join the ranges of a date and its time into one of moments (PS3.4 section C.2.2.2.5).

    Only ranges of the same form are joined (both ends open alike); the rest stays as it is.
    """
    matches = list(matches)
    by_path = {match.path: match for match in matches}
    joined: dict[tuple[str, ...], Match] = {}
    gone: set[tuple[str, ...]] = set()
    for match in matches:
        time_tag = TIME_OF_DATE.get(match.path[-1])
        time = by_path.get((*match.path[:-1], time_tag)) if time_tag else None
        if time is None or match.kind is not Kind.RANGE or time.kind is not Kind.RANGE:
            continue
        pairs = list(zip(match.values, time.values, strict=True))
        if all(bool(day) == bool(hour) for day, hour in pairs):
            moments = tuple(day + hour for day, hour in pairs)
            joined[match.path] = replace(match, values=moments, vr="DT", time=time_tag)
            gone.add(time.path)
    return tuple(joined.get(match.path, match) for match in matches if match.path not in gone)


def text_of(value: Any) -> str:
    """One value of the DICOM JSON model as text; a person name with its groups joined by "="."""
    if isinstance(value, dict):
        groups = [str(value.get(group, "")) for group in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(groups).rstrip("=")
    return "" if value is None else str(value)


def values_of(element: Mapping[str, Any]) -> list[str]:
    """An element's values as text (not for sequences)."""
    values = element.get("Value")
    return [text_of(value) for value in values] if isinstance(values, list) else []


def person_groups(text: str) -> tuple[str, str, str]:
    """A name's three component groups, normalised for comparison."""
    groups = [*names.search_text(text).split("="), "", ""]
    return groups[0], groups[1], groups[2]


def selected_items(element: dict[str, Any], wanted: Attributes, matches: Sequence[Match]) -> dict[str, Any]:
    """A sequence with the items that match and the attributes asked for (PS3.4 section C.2.2.2.6).

    `wanted`: the request's item; nothing in it asks for everything. `matches`: with paths inside the
    item.
    """
    items = [item for item in element.get("Value", []) if all(holds(item, match) for match in matches)]
    if wanted:
        items = [{tag: item[tag] for tag in wanted if tag in item} for item in items]
    return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}


def holds(attributes: Attributes, match: Match) -> bool:
    """Whether attributes satisfy a match; the plain meaning that the catalog's SQL must have too."""
    element = attributes.get(match.path[0], {})
    if len(match.path) > 1:
        inner = replace(match, path=match.path[1:])
        return any(holds(item, inner) for item in element.get("Value", []))
    texts = [text for text in values_of(element) if text]
    if match.kind is Kind.EMPTY:
        return not texts
    if match.time:
        times = values_of(attributes.get(match.time, {}))
        texts = [comparable("DA", text) + comparable("TM", times[0] if times else "") for text in texts[:1]]
    if match.kind in (Kind.RANGE, Kind.UNIT):
        low, high = match.values
        found = [text if match.time else comparable(match.vr, text) for text in texts]
        return any((not low or text >= low) and (not high or text <= high) for text in found)
    if match.kind is Kind.ALL:
        return all(any(_same(match.vr, text, value) for text in texts) for value in match.values)
    if match.kind is Kind.WILDCARD:
        return any(_like(match.vr, text, match.values[0]) for text in texts)
    return any(_same(match.vr, text, value) for text in texts for value in match.values)


def comparable(vr: str, text: str) -> str:
    """A stored date, time or date-time so that comparing text compares moments."""
    if vr == "DA":
        return text.replace(".", "")
    if vr == "TM":
        text = text.replace(":", "")
        return text + "000000"[len(text) :]
    text = re.sub(r"[+-].*$", "", text)
    return text + "00010101000000"[len(text) :]


def _same(vr: str, text: str, value: str) -> bool:
    if vr == "PN":
        return _any_group(text, value, lambda group, wanted: group == wanted)
    if vr == "DA":
        return comparable("DA", text) == value
    if vr in NUMBER_VRS:
        try:
            return Decimal(text) == Decimal(value)
        except InvalidOperation:
            return False
    return text.strip(" ") == value


def _like(vr: str, text: str, pattern: str) -> bool:
    if vr == "PN":
        return _any_group(text, pattern, _like_text)
    return _like_text(text.strip(" "), pattern)


def _like_text(text: str, pattern: str) -> bool:
    parts = (".*" if char == "*" else "." if char == "?" else re.escape(char) for char in pattern)
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def _any_group(text: str, wanted: str, compare: Any) -> bool:
    """A key without "=" may match in any of the groups; with it, each group given matches its own."""
    groups = person_groups(text)
    if "=" not in wanted:
        key = person_groups(wanted)[0]
        return any(group and compare(group, key) for group in groups)
    keys = person_groups(wanted)
    return all(not key or key == "*" or compare(group, key) for group, key in zip(groups, keys, strict=True))


def _wrong(path: tuple[str, ...], what: str) -> Refusal:
    return Refusal(Reason.INVALID_QUERY, f"{'.'.join(path)}: {what}")
