"""Whose work the machine's processors did, by program: of all hosts of a lab, which share them."""

import os
from collections.abc import Mapping
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")

Seconds = Mapping[tuple[str, int], float]  # by program and process number


def seconds() -> Seconds:
    """Seconds of processor time that each process has taken so far, with those of its ended children (fields
    14 to 17 of stat in proc(5))."""
    found: dict[tuple[str, int], float] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            head, _, fields = (process / "stat").read_text().rpartition(")")
        except OSError:  # it has just ended
            continue
        name = head.partition("(")[2]
        found[name, int(process.name)] = sum(map(int, fields.split()[11:15])) / _TICKS
    return found


def used(before: Seconds, after: Seconds, least: float = 0.1) -> dict[str, float]:
    """Seconds between two answers by program, of those that took at least so many; the greediest first.

    What has ended in between counts for the program that had started it.
    """
    spent: dict[str, float] = {}
    for (name, process), value in after.items():
        spent[name] = spent.get(name, 0.0) + value - before.get((name, process), 0.0)
    ranked = sorted(spent.items(), key=lambda each: -each[1])
    return {name: round(value, 2) for name, value in ranked if value >= least}
