"""Token buckets: how fast, and how often the refusals of one address are audited.

All of it counts within one process; nothing waits here.
"""

import threading
import time
from collections import OrderedDict

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
