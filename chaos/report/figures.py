"""Figures of one scenario out of its history and what was watched meanwhile. Pure.

Moments are seconds from the fault on, or from the first operation where nobody noted when the fault was.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from chaos.history import ASSOCIATE, CONFLICT, DELETE, STORES, Operation, Result
from chaos.recovery import Gap, longest_gap
from chaos.watch import Watched

BINS = 180  # in a chart, at the most


@dataclass(frozen=True, slots=True)
class Bin:
    """Operations that ended in a piece of time from `begin` on: stores acknowledged, answers to readers and
    deleters, refused ones, ones of unknown outcome."""

    begin: float
    stored: int
    read: int
    refused: int
    unknown: int


@dataclass(slots=True)
class Figures:
    """A scenario. `width`: of a bin. `moments`: when the fault was "made", "healed", and all "whole".
    `gap`: the longest time without an acknowledgement since the fault. `noticed`: until a client was refused
    or lost; `told`: until the cluster said that something is wrong; None if neither happened. `retries`:
    stores tried again."""

    bins: list[Bin] = field(default_factory=list)
    width: float = 1.0
    moments: dict[str, float] = field(default_factory=dict)
    gap: Gap | None = None
    noticed: float | None = None
    told: float | None = None
    retries: int = 0
    deletions: int = 0
    troubles: list[tuple[float, list[str]]] = field(default_factory=list)
    load: list[tuple[float, float]] = field(default_factory=list)
    lines: list[tuple[float, str, str, str, int]] = field(default_factory=list)  # host, unit, text, times

    @property
    def begin(self) -> float:
        """Of the traffic."""
        return self.bins[0].begin if self.bins else 0.0

    @property
    def end(self) -> float:
        """Of the traffic, or of the scenario if that is later."""
        last = self.bins[-1].begin + self.width if self.bins else 1.0
        return max(last, *self.moments.values()) if self.moments else last


def figures(
    operations: Sequence[Operation], watched: Watched, moments: Mapping[str, float] | None = None
) -> Figures:
    """The figures of a scenario. `moments`: as in `Figures`, but of the history's clock."""
    known = moments or {}
    fault = known.get("made")
    first = min((each.returned for each in operations), default=0.0)
    zero = first if fault is None else fault
    gap, noticed, told = None, None, None
    if fault is not None:
        gap = longest_gap(operations, fault)
        noticed = _first(
            each.returned - fault for each in operations if _kind(each) in ("refused", "unknown")
        )
        told = _first(at - fault for at, said in watched.troubles if said)
    bins, width = _bins(operations, zero)
    lines = [
        (each.moment - zero, host, each.unit, each.text, each.times)
        for host, said in watched.lines.items()
        for each in said
    ]
    return Figures(
        bins=bins,
        width=width,
        moments={name: moment - zero for name, moment in known.items()},
        gap=None if gap is None else Gap(gap.begin - zero, gap.end - zero),
        noticed=noticed,
        told=told,
        retries=_retries(operations),
        deletions=sum(each.kind == DELETE and each.result is Result.OK for each in operations),
        troubles=[(at - zero, said) for at, said in watched.troubles],
        load=[(at - zero, load) for at, load in watched.load],
        lines=sorted(lines),
    )


def _bins(operations: Sequence[Operation], zero: float) -> tuple[list[Bin], float]:
    """Pieces of equal whole seconds, the moment zero between two of them, empty ones too."""
    if not operations:
        return [], 1.0
    ends = [each.returned - zero for each in operations]
    width = float(max(1, math.ceil((max(ends) - min(ends)) / BINS)))
    kinds = map(_kind, operations)
    counted = Counter((math.floor(end / width), kind) for end, kind in zip(ends, kinds, strict=True))
    numbers = range(math.floor(min(ends) / width), math.floor(max(ends) / width) + 1)
    return [
        Bin(number * width, *(counted[number, kind] for kind in ("stored", "read", "refused", "unknown")))
        for number in numbers
    ], width


def _kind(each: Operation) -> str:
    if each.result is Result.UNKNOWN:
        return "unknown"
    if each.acknowledged:
        return "stored"
    # What a rival is told, and that something is not there, are answers like all others
    if each.result is Result.OK or each.status == CONFLICT:
        return "read"
    return "refused" if each.kind in (*STORES, ASSOCIATE) or each.status.startswith("5") else "read"


def _retries(operations: Iterable[Operation]) -> int:
    tried: set[tuple[str, str, str]] = set()
    again = 0
    for each in operations:
        if each.kind in STORES:
            store = each.client, each.uid, each.content
            again += store in tried
            tried.add(store)
    return again


def _first(moments: Iterable[float]) -> float | None:
    return min((each for each in moments if each >= 0), default=None)
