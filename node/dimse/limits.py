"""Limits on peers: how many at once, and how fast.

All of it counts within one process; nothing waits here.
"""

import threading
from collections import Counter, OrderedDict

from node.services.limits import Bucket

TITLES_KEPT = 1000


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
