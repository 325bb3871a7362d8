"""What systemd's journal of a host says about the tiers, cut down to what a report can show. Pure.

Lines that differ in numbers only are one, with how often they came; a unit that has more to say than
`UNIT_LINES` different things is cut off.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

UNITS = ("etcd*", "patroni*", "haproxy*", "keepalived*", "ceph-*", "stele-*")
UNIT_LINES = 12
LINE_CHARACTERS = 300
_NUMBERS = re.compile(r"[0-9a-fA-F]*[0-9][0-9a-fA-F]*")
_QUIET = frozenset({"debug", "info"})  # levels of lines in JSON: every request leaves one


@dataclass(slots=True)
class Line:
    """A line of a unit's log: when it came first (seconds of CLOCK_MONOTONIC), and how often."""

    moment: float
    unit: str
    text: str
    times: int


def of_tiers(since: int) -> tuple[str, ...]:
    """The command that prints the journal of the tiers' units since a second of the Unix epoch."""
    units = [option for unit in UNITS for option in ("--unit", unit)]
    return (
        *("journalctl", "--no-pager", "--quiet", "--output=json", f"--since=@{since}"),
        *("--output-fields=MESSAGE,_SYSTEMD_UNIT,UNIT", *units),
    )


def lines_in(journal: str) -> Iterator[Line]:
    """What the command has printed; bytes that are no text are left out."""
    for printed in journal.splitlines():
        entry = json.loads(printed)
        text = entry.get("MESSAGE")
        if isinstance(text, str):
            unit = str(entry.get("UNIT") or entry.get("_SYSTEMD_UNIT") or "")
            yield Line(int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6, unit.removesuffix(".service"), text, 1)


def condensed(lines: Iterable[Line], begin: float, end: float) -> list[Line]:
    """What was said for the first time between two moments, in its order."""
    kept: dict[tuple[str, str], Line] = {}
    of_unit: dict[str, int] = {}
    for each in lines:
        if not begin <= each.moment <= end or _is_quiet(each.text):
            continue
        key = each.unit, _NUMBERS.sub("#", each.text)
        if key in kept:
            kept[key].times += 1
        elif of_unit.get(each.unit, 0) < UNIT_LINES:
            of_unit[each.unit] = of_unit.get(each.unit, 0) + 1
            kept[key] = Line(each.moment, each.unit, each.text[:LINE_CHARACTERS], 1)
    return list(kept.values())


def _is_quiet(text: str) -> bool:
    if not text.startswith("{"):
        return False
    try:
        return json.loads(text).get("level") in _QUIET
    except (ValueError, AttributeError):
        return False
