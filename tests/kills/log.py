"""The clients' log: every operation with what was sent or read, when, and what came of it.

A time-out or a lost connection is *unknown*: the operation may have taken effect.
"""

import hashlib
import json
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import Enum
from itertools import pairwise


class Result(Enum):
    """How an operation ended for its client."""

    OK = "ok"
    REFUSED = "refused"
    UNKNOWN = "unknown"


STORES = ("C-STORE", "STOW-RS")  # all other kinds are reads


@dataclass(frozen=True, slots=True)
class Operation:
    """One instance stored or read by one client.

    `content`: transfer syntax and digest (see `content_of`) of what was sent or received, "" if nothing
    was received. `invoked` and `returned`: seconds of CLOCK_MONOTONIC, which all processes share.
    `status`: what the archive answered ("0000", "A700", "200", …), or what happened to the connection.
    """

    client: str
    kind: str
    uid: str
    content: str
    invoked: float
    returned: float
    result: Result
    status: str

    def line(self) -> str:
        """As a line of JSON."""
        return json.dumps({**asdict(self), "result": self.result.value})

    @classmethod
    def from_line(cls, line: str) -> "Operation":
        """The inverse of `line`."""
        fields = json.loads(line)
        return cls(**{**fields, "result": Result(fields["result"])})


def content_of(transfer_syntax_uid: str, dataset: bytes) -> str:
    """What identifies an instance's bytes in the log."""
    return f"{transfer_syntax_uid} {hashlib.sha256(dataset).hexdigest()}"


class History:
    """Operations as they end; many threads add."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._operations: list[Operation] = []
        self._acknowledged: dict[str, float] = {}
        self._order: list[str] = []

    def add(self, operation: Operation) -> None:
        """Note an operation that has ended."""
        with self._lock:
            self._operations.append(operation)
            stored = operation.kind in STORES and operation.result is Result.OK
            if stored and operation.uid not in self._acknowledged:
                self._acknowledged[operation.uid] = operation.returned
                self._order.append(operation.uid)

    @property
    def operations(self) -> list[Operation]:
        """All so far."""
        with self._lock:
            return list(self._operations)

    @property
    def acknowledged(self) -> int:
        """How many instances have been acknowledged."""
        return len(self._order)

    def latest(self, count: int) -> list[str]:
        """SOP Instance UIDs acknowledged last."""
        with self._lock:
            return self._order[-count:]


def longest_gap_seconds(operations: Iterable[Operation]) -> float:
    """The longest time between two acknowledgements in a row."""
    times = sorted(each.returned for each in operations if each.kind in STORES and each.result is Result.OK)
    return max((later - earlier for earlier, later in pairwise(times)), default=0.0)
