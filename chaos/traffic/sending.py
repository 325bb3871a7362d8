"""The loop of every sender, and what became of a store.

A sender tries until each of its samples was acknowledged or refused for good (other bytes are stored under
its UID, say). What was refused for now, or has an unknown outcome, is sent again after a pause, to the next
address if there are several, for as long as it takes.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from chaos.corpus import Sample
from chaos.history import CONFLICT, History, Operation, Result

PAUSE_SECONDS = 0.2  # before something is tried again
ACKNOWLEDGED = frozenset({"0000", "B000", "B006", "B007"})  # PS3.4 table B.2-1
FINAL = frozenset({CONFLICT, "A900", "C000", "C002", "0117", "0122"})
Address = TypeVar("Address")


class Sender:
    """What all senders of one run share. `stop` ends them after the operations that have begun."""

    def __init__(self, history: History, stop: threading.Event) -> None:
        self.history = history
        self.stop = stop

    def send(
        self,
        samples: Sequence[Sample],
        addresses: Sequence[Address],
        attempt: Callable[[Address, list[Sample]], Iterable[Operation]],
        *,
        batch: int,
        rate: float | None = None,
    ) -> None:
        """Send each sample until its answer is final: `batch` at most in one attempt.

        `rate`: samples that become due per second, from now on; all at once if None.
        """
        began = time.monotonic()
        ahead = deque(enumerate(samples))
        due: dict[str, Sample] = {}
        turn = 0
        while (ahead or due) and not self.stop.is_set():
            while ahead and (wait := _seconds_until(ahead[0][0], began, rate)) <= 0:
                _, sample = ahead.popleft()
                due[sample.uid] = sample
            if not due:
                self.stop.wait(wait)
                continue
            before = len(due)
            for operation in attempt(addresses[turn % len(addresses)], list(due.values())[:batch]):
                self.history.add(operation)
                sample_tried = due.pop(operation.uid, None)
                if sample_tried is not None and not final(operation):
                    due[operation.uid] = sample_tried  # behind the others
            if len(due) == before:
                turn += 1
                self.stop.wait(PAUSE_SECONDS)


def _seconds_until(number: int, began: float, rate: float | None) -> float:
    return 0.0 if rate is None else began + number / rate - time.monotonic()


def rotated(addresses: Sequence[Address], first: int) -> list[Address]:
    """All addresses, beginning with another one."""
    first %= len(addresses)
    return [*addresses[first:], *addresses[:first]]


def final(operation: Operation) -> bool:
    """Whether a store needs no other attempt."""
    return operation.result is Result.OK or operation.status in FINAL


def answered(client: str, kind: str, sample: Sample, invoked: float, status: str, node: str) -> Operation:
    """A store that was told a status, just now."""
    result = Result.OK if status in ACKNOWLEDGED else Result.REFUSED
    return Operation(
        client, kind, sample.uid, sample.content, invoked, time.monotonic(), result, status, node
    )


def unknown(client: str, kind: str, sample: Sample, invoked: float, what: str, node: str) -> Operation:
    """A store that may have taken effect or not, since just now."""
    ended = time.monotonic()
    return Operation(client, kind, sample.uid, sample.content, invoked, ended, Result.UNKNOWN, what, node)
