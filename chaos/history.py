"""The clients' log: every operation with what was sent or read, when, and what came of it.

A time-out or a lost connection is *unknown*: the operation may have taken effect. On disk it is one JSON
object a line, only ever appended to, so that it can be judged again later: an operation, or
{"corpus": [seed, count]} for what was being sent (`chaos.corpus`).
"""

import hashlib
import json
import os
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path


class Result(Enum):
    """How an operation ended for its client."""

    OK = "ok"
    REFUSED = "refused"
    UNKNOWN = "unknown"


STORES = ("C-STORE", "STOW-RS")
READS = ("QIDO-RS", "WADO-RS")
DELETE = "DELETE"  # of one instance, by DICOMweb
CONFLICT = "C111"  # the status of other bytes under a UID that is stored
ASSOCIATE = "A-ASSOCIATE"  # noted only where none came about; has no instance


@dataclass(frozen=True, slots=True)
class Operation:
    """One instance stored, read or deleted by one client.

    `content`: transfer syntax and digest (see `content_of`) of what was sent or received, "" if nothing
    was received. `invoked` and `returned`: seconds of CLOCK_MONOTONIC, which all processes of a machine
    share. `status`: what the archive answered ("0000", "A700", "200", …), or what happened to the
    connection. `node`: the address asked.
    """

    client: str
    kind: str
    uid: str
    content: str
    invoked: float
    returned: float
    result: Result
    status: str
    node: str = ""

    def line(self) -> str:
        """As a line of JSON."""
        return json.dumps({**asdict(self), "result": self.result.value})

    @classmethod
    def from_line(cls, line: str) -> "Operation":
        """The inverse of `line`."""
        return cls._from_fields(json.loads(line))

    @classmethod
    def _from_fields(cls, fields: dict[str, str]) -> "Operation":
        return cls(**{**fields, "result": Result(fields["result"])})  # type: ignore[arg-type]

    @property
    def acknowledged(self) -> bool:
        """Whether it stored its instance for sure."""
        return self.result is Result.OK and self.kind in STORES


def content_of(transfer_syntax_uid: str, dataset: bytes) -> str:
    """What identifies an instance's bytes in the log."""
    return f"{transfer_syntax_uid} {hashlib.sha256(dataset).hexdigest()}"


class History:
    """Operations as they end; many threads add. With a `path` each is written there at once."""

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._operations: list[Operation] = []
        self._acknowledged: set[str] = set()
        self._order: list[str] = []
        self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def describe(self, seed: int, count: int) -> None:
        """Note which corpus is sent."""
        self._write(json.dumps({"corpus": [seed, count]}))

    def add(self, operation: Operation) -> None:
        """Note an operation that has ended."""
        self._write(operation.line())
        with self._lock:
            self._operations.append(operation)
            if operation.acknowledged and operation.uid not in self._acknowledged:
                self._acknowledged.add(operation.uid)
                self._order.append(operation.uid)

    def _write(self, line: str) -> None:
        if self._file is not None:
            os.write(self._file, f"{line}\n".encode())  # appended whole: one write

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
        """SOP Instance UIDs acknowledged last, the very last at the end."""
        with self._lock:
            return self._order[-count:]


@dataclass(slots=True)
class Recorded:
    """What files hold: the operations of each run in the order of their writing, and the corpora as (seed,
    count). A run begins with every file, and with every corpus."""

    runs: list[list[Operation]] = field(default_factory=list)
    corpora: list[tuple[int, int]] = field(default_factory=list)

    @property
    def operations(self) -> list[Operation]:
        """Those of all runs."""
        return [operation for run in self.runs for operation in run]

    def take(self, line: str) -> None:
        """One more line. ValueError, TypeError or KeyError if it is none."""
        fields = json.loads(line)
        if "corpus" in fields:
            seed, count = fields["corpus"]
            self.corpora.append((int(seed), int(count)))
            self.runs.append([])
        else:
            self.runs[-1].append(Operation._from_fields(fields))


class Follower:
    """Reads a history while its clients write it: each time only what has been added since."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._recorded = Recorded([[]])

    def operations(self) -> list[Operation]:
        """All so far; none as long as there is no file. ValueError for a line that is none."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._at)
                lines, end, _ = file.read().rpartition(b"\n")  # behind it is what is being written right now
            self._at += len(lines) + len(end)
            for line in lines.decode().splitlines():
                self._recorded.take(line)
        return self._recorded.operations


def read(paths: Iterable[Path]) -> Recorded:
    """Read histories, also of clients that still run. ValueError naming a line that is none."""
    recorded = Recorded()
    for path in paths:
        recorded.runs.append([])
        # What follows the last end of line is being written right now
        for number, line in enumerate(path.read_text().split("\n")[:-1], 1):
            try:
                recorded.take(line)
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{path}, line {number}: {error!r}") from None
    return recorded
