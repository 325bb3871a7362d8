"""How long clients noticed a fault: pure functions over the history."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from chaos.history import STORES, Operation


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without acknowledgements, in seconds of the history's clock."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.begin


def recovery_seconds(operations: Iterable[Operation], moment: float) -> float | None:
    """From a moment to the first acknowledgement of a store begun at it or later; None if there is none.

    A store that had begun before does not count: its acknowledgement may have been on its way already.
    """
    ends = [each.returned for each in operations if each.acknowledged and each.invoked >= moment]
    return min(ends) - moment if ends else None


def longest_gap(
    operations: Iterable[Operation], begin: float | None = None, end: float | None = None
) -> Gap | None:
    """The longest time without an acknowledgement from `begin` to `end`; None if nothing was to be stored.

    Both ends count as if something had been acknowledged there; by default they are the first invocation
    and the last return of a store.
    """
    stores = [each for each in operations if each.kind in STORES]
    if not stores:
        return None
    first = min(each.invoked for each in stores) if begin is None else begin
    last = max(each.returned for each in stores) if end is None else end
    inside = [each.returned for each in stores if each.acknowledged and first < each.returned < last]
    times = [first, *sorted(inside), last]
    return max((Gap(*pair) for pair in pairwise(times)), key=lambda gap: gap.seconds)
