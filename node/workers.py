"""Background work: named workers, one bounded step at a time, what to do found in the catalog.

Each worker runs in a thread of the worker process and holds a lease of its name while it works, so that
of all nodes one does it at a time; if that node dies, another takes the lease when it expires. All steps
may be repeated safely, so a crash in the middle of one loses nothing.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from node import metrics
from node.domain.errors import Refusal
from node.ports import Leases

LEASE_SECONDS = 20.0
RETRY_SECONDS = 5.0
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Worker:
    """`step` does a bounded piece of work and returns how much it was; after 0 it rests."""

    name: str
    step: Callable[[], int]
    rest_seconds: float


def run(workers: list[Worker], leases: Leases, holder: str, stop: threading.Event) -> None:
    """Run all workers until `stop` is set; returns when each has finished its step."""
    threads = [
        threading.Thread(target=_loop, args=(worker, leases, holder, stop), name=worker.name)
        for worker in workers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _loop(worker: Worker, leases: Leases, holder: str, stop: threading.Event) -> None:
    rest_seconds = 0.0
    while not stop.wait(rest_seconds):
        try:
            rest_seconds = _once(worker, leases, holder)
        except Refusal as refusal:  # the outside does not answer: it is tried again
            metrics.WORKER_FAILURES.labels(worker.name).inc()
            log.warning("worker waits", worker=worker.name, reason=refusal.reason.value)
            rest_seconds = RETRY_SECONDS
        except Exception:  # one worker's fault must not end the others
            metrics.WORKER_FAILURES.labels(worker.name).inc()
            log.exception("worker failed", worker=worker.name)
            rest_seconds = RETRY_SECONDS


def _once(worker: Worker, leases: Leases, holder: str) -> float:
    """One step under the lease; returns how long to rest before the next."""
    lease = leases.acquire(worker.name, holder, LEASE_SECONDS)
    if lease is None:
        return LEASE_SECONDS / 4
    started = time.perf_counter()
    done = worker.step()
    metrics.WORKER_STEP_SECONDS.labels(worker.name).observe(time.perf_counter() - started)
    metrics.WORKER_ITEMS.labels(worker.name).inc(done)
    if done:
        return 0.0
    if worker.rest_seconds > LEASE_SECONDS:
        leases.release(lease)
    return worker.rest_seconds
