"""Limits on peers: how many at once, how fast, and how often their refusals are audited.

All of it counts within one process; nothing waits here.
"""

import threading
import time
from collections import Counter, OrderedDict

TITLES_KEPT = 1000
ADDRESSES_KEPT = 1000
AUDITED_PER_SECOND = 2.0
AUDITED_AT_ONCE = 5.0


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


class Rates:
    """One bucket for each calling AE title."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def wait_seconds(self, title: str, per_second: float) -> float:
        """How long an instance of this title must wait; 0 if `per_second` is 0, which means any rate."""
        if per_second <= 0:
            return 0.0
        with self._lock:
            bucket = self._buckets.get(title)
            if bucket is None or bucket.per_second != per_second:
                bucket = self._buckets[title] = Bucket(per_second, max(1.0, per_second))
            self._buckets.move_to_end(title)
            while len(self._buckets) > TITLES_KEPT:
                self._buckets.popitem(last=False)
            return bucket.wait_seconds()


class Seats:
    """Associations open now, in all and by calling AE title."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()

    def enter(self, title: str, limit: int) -> bool:
        """Take a seat, unless `limit` for the title or the limit for all is reached."""
        with self._lock:
            if self._open.total() >= self._limit or self._open[title] >= limit:
                return False
            self._open[title] += 1
            return True

    def leave(self, title: str) -> None:
        """Give the seat back."""
        with self._lock:
            self._open[title] -= 1
            self._open += Counter()  # drops titles without associations

    def taken(self) -> int:
        """How many there are."""
        with self._lock:
            return self._open.total()


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
