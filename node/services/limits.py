"""Who is too much for the others: token buckets (how fast, and how often the refusals of one address are
audited), shares of what there is (how much of it one may hold), and whom to send away when all is taken.

All of it counts within one process; nothing waits here.
"""

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import TypeVar

ADDRESSES_KEPT = 1000
AUDITED_PER_SECOND = 2.0
AUDITED_AT_ONCE = 5.0

Each = TypeVar("Each")


class Bucket:
    """A token bucket: `per_second` tokens, at most `burst` of them saved up."""

    def __init__(self, per_second: float, burst: float) -> None:
        self.per_second = per_second
        self._burst = burst
        self._tokens = burst
        self._at = time.monotonic()

    def take(self) -> bool:
        """Take a token if there is one."""
        self._fill()
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def wait_seconds(self) -> float:
        """Take a token, of the future if need be; returns how long to wait for it."""
        self._fill()
        self._tokens -= 1
        return max(0.0, -self._tokens / self.per_second)

    def _fill(self) -> None:
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self.per_second)
        self._at = now


class Sparingly:
    """Lets a few events per address through, so that a flood cannot fill the audit trail."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def allows(self, address: str) -> bool:
        """Whether another event of this address may be audited now."""
        with self._lock:
            bucket = self._buckets.get(address)
            if bucket is None:
                bucket = self._buckets[address] = Bucket(AUDITED_PER_SECOND, AUDITED_AT_ONCE)
            self._buckets.move_to_end(address)
            while len(self._buckets) > ADDRESSES_KEPT:
                self._buckets.popitem(last=False)
            return bucket.take()


class Turns:
    """Places for so many at once, and to wait in for so many more; of either one address gets half at most.

    So a client that holds its places for long, however many it asks for, leaves room for the others. One that
    waits gets its turn within `wait_seconds`, or none.
    """

    def __init__(self, at_once: int, waiting: int, wait_seconds: float) -> None:
        self._at_once = at_once
        self._waiting = waiting
        self._wait_seconds = wait_seconds
        self._changed = threading.Condition()
        self._inside: Counter[str] = Counter()
        self._before: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Take a place, perhaps after a wait; `leave` gives it back. False: there is none."""
        with self._changed:
            if not self._free(address):
                if not _room(self._before, address, self._waiting):
                    return False
                self._before[address] += 1
                try:
                    if not self._changed.wait_for(lambda: self._free(address), self._wait_seconds):
                        return False
                finally:
                    _less(self._before, address)
            self._inside[address] += 1
            return True

    def leave(self, address: str) -> None:
        """Give a place back."""
        with self._changed:
            _less(self._inside, address)
            self._changed.notify_all()

    def _free(self, address: str) -> bool:
        return _room(self._inside, address, self._at_once)


def _room(taken: Counter[str], address: str, limit: int) -> bool:
    return taken.total() < limit and taken[address] < max(1, limit // 2)


def _less(taken: Counter[str], address: str) -> None:
    taken[address] -= 1
    if not taken[address]:
        del taken[address]


def most_crowding(waiting: Sequence[tuple[str, Each]]) -> Each:
    """Whom to send away for a newcomer when all places to wait in are taken.

    `waiting`: (address, who), in order of arrival, not empty. Of the address that has most of them, the one
    that has waited longest: an honest peer says what it wants within moments, so whoever fills the places
    with silence pushes out itself, also when it comes from the same address as others.
    """
    counts = Counter(address for address, _ in waiting)
    most = max(counts.values())
    return next(each for address, each in waiting if counts[address] == most)
