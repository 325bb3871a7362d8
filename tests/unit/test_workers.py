"""Background workers: one holder at a time, no fault ends them, stop means stop."""

import threading
from collections.abc import Callable

from node.domain.errors import Reason, Refusal
from node.domain.model import Lease
from node.workers import Worker, run
from tests.support import wait_until


class OneLease:
    """Leases in memory; `held_by_others` refuses."""

    def __init__(self) -> None:
        self.held_by_others = False
        self.released: list[str] = []

    def acquire(self, name: str, holder: str, seconds: float) -> Lease | None:
        return None if self.held_by_others else Lease(name, holder, 1)

    def release(self, lease: Lease) -> None:
        self.released.append(lease.name)


def while_running(step: Callable[[], int], leases: OneLease, until: Callable[[], object]) -> None:
    stop = threading.Event()
    workers = [Worker("work", step, rest_seconds=0.01)]
    thread = threading.Thread(target=run, args=(workers, leases, "node:1", stop))
    thread.start()
    try:
        wait_until(until, 10, "the worker worked")
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()


def test_it_works_on_while_there_is_work() -> None:
    done: list[int] = []

    def step() -> int:
        done.append(1)
        return 1

    while_running(step, OneLease(), lambda: len(done) > 20)


def test_nothing_is_done_while_another_node_holds_the_lease() -> None:
    leases = OneLease()
    leases.held_by_others = True
    asked = threading.Event()

    def acquire(name: str, holder: str, seconds: float) -> Lease | None:
        asked.set()
        return None

    leases.acquire = acquire  # type: ignore[method-assign]
    done: list[int] = []

    def step() -> int:
        done.append(1)
        return 0

    while_running(step, leases, asked.is_set)
    assert not done


def test_a_refusal_or_a_fault_is_survived() -> None:
    from node import workers

    failures: list[Exception] = [Refusal(Reason.UNAVAILABLE, "away"), ValueError("a fault")]
    done: list[int] = []

    def step() -> int:
        if failures:
            raise failures.pop()
        done.append(1)
        return 0

    before = workers.RETRY_SECONDS
    workers.RETRY_SECONDS = 0.01
    try:
        while_running(step, OneLease(), lambda: len(done) > 2)
    finally:
        workers.RETRY_SECONDS = before
