"""Work done ahead of who needs it: while one object's bytes are being sent, the next one's are read and
checked by another thread. Reading and hashing release the interpreter's lock, so that a retrieval uses two
cores instead of one, and the store's latency shows once instead of with every object.

What is held ahead is bounded for the whole process: a reader who finds no room (or no thread) does its own
work, as it would without this. So slow readers cannot take memory from each other, nor wait for it.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

THREADS = min(4, max(2, os.cpu_count() or 1))
DEPTH = 3  # pieces ahead in one retrieval
AHEAD_BYTES = 48 << 20  # in one process

Job = tuple[int, Callable[[], bytes]]  # how many bytes it will make, and how


class ReadAhead:
    """Runs jobs a little before their results are asked for. Shared by a process's threads."""

    def __init__(self, limit_bytes: int = AHEAD_BYTES) -> None:
        self._free = limit_bytes
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="ahead")  # none before the first job

    def run(self, jobs: Iterable[Job]) -> Generator[bytes, None, None]:
        """The jobs' results in order. A job's exception comes out in its place; closing ends it all."""
        waiting: deque[tuple[Job, Future[bytes]]] = deque()
        left = iter(jobs)
        spare = next(left, None)
        try:
            while waiting or spare:
                begun: Future[bytes] | None = None
                if waiting:
                    job, begun = waiting.popleft()
                    self._give(job[0])
                else:
                    assert spare is not None  # noqa: S101 - the loop's condition
                    job, spare = spare, next(left, None)
                spare = self._fill(waiting, spare, left)
                # What no thread has begun yet is done here and now.
                if begun is None or begun.cancel():
                    yield job[1]()
                else:
                    yield begun.result()
        finally:
            for job, future in waiting:
                future.cancel()
                future.add_done_callback(partial(self._let_go, job[0]))

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _fill(
        self, waiting: "deque[tuple[Job, Future[bytes]]]", spare: Job | None, left: Iterator[Job]
    ) -> Job | None:
        """Begin jobs up to DEPTH, from `spare` on; returns the next one that was not begun."""
        while spare is not None and len(waiting) < DEPTH and self._begin(waiting, spare):
            spare = next(left, None)
        return spare

    def _begin(self, waiting: "deque[tuple[Job, Future[bytes]]]", job: Job) -> bool:
        with self._lock:
            if job[0] > self._free:
                return False
            self._free -= job[0]
        waiting.append((job, self._threads.submit(job[1])))
        return True

    def _let_go(self, size: int, _: "Future[bytes]") -> None:
        self._give(size)

    def _give(self, size: int) -> None:
        with self._lock:
            self._free += size
