"""Sending stored instances to a peer one by one: the sub-operations of C-MOVE and C-GET.

The edge says which transfer syntaxes the peer takes and how one instance is sent; here it is decided in
which syntax it goes and what its outcome counts as. An instance that cannot be read, fails its digest or
cannot be brought into a form that the peer takes is a failed sub-operation; the others go on.

When an instance has gone out, the next one is read and checked before the peer's answer is waited for: the
peer works meanwhile. No more than these two are held.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import structlog

from node import metrics
from node.domain.errors import Refusal
from node.domain.model import Answer, StoredInstance
from node.services.objects import Objects
from node.services.retrieve import Retrieve

HOLD_BYTES = 32 << 20  # larger datasets are checked in a first reading and sent in a second one

log = structlog.get_logger()

# (instance, transfer syntax, encoded dataset in pieces, to be gone through again if need be, what to do when
# they have left) -> the peer's answer
Send = Callable[[StoredInstance, str, Iterable[bytes], Callable[[], None]], Answer]


@dataclass
class Progress:
    """How far the sub-operations are. `failed_uids`: SOP Instance UIDs of the failed ones."""

    remaining: int
    completed: int = 0
    failed: int = 0
    warnings: int = 0
    failed_uids: list[str] = field(default_factory=list)

    def fail(self, instances: Iterable[StoredInstance]) -> None:
        """Count instances that remain as failed."""
        for instance in instances:
            self.failed_uids.append(instance.sop_instance_uid)
            self.failed += 1
            self.remaining -= 1


@dataclass(frozen=True, slots=True)
class _Ready:
    """An instance that can be sent: its bytes are known to be right."""

    syntax_uid: str
    pieces: Iterable[bytes]


class Deliver:
    """Use case: send what a retrieval has selected."""

    def __init__(self, retrieve: Retrieve, objects: Objects, kind: str) -> None:
        """`kind` of retrieval, for metrics: "c-move" or "c-get"."""
        self._retrieve = retrieve
        self._objects = objects
        self._kind = kind

    def run(
        self,
        instances: Sequence[StoredInstance],
        progress: Progress,
        accepts: Callable[[str], Sequence[str]],
        send: Send,
    ) -> Iterator[None]:
        """Send the instances in order, keeping `progress`; yields after each. What `send` raises and is
        no Refusal ends it."""
        read_ahead: list[_Ready | None] = []
        for index, instance in enumerate(instances):
            ready = read_ahead.pop() if read_ahead else self._ready(instance, accepts)
            following = instances[index + 1 : index + 2]

            def meanwhile(following: Sequence[StoredInstance] = following) -> None:
                if not read_ahead:
                    read_ahead.extend(self._read_ahead(following, accepts))

            answer = self._send_one(instance, ready, send, meanwhile) if ready is not None else None
            if answer is None or not answer.stored:
                progress.fail((instance,))
            else:
                progress.remaining -= 1
                if answer.warning:
                    progress.warnings += 1
                else:
                    progress.completed += 1
            yield

    def _read_ahead(
        self, instances: Sequence[StoredInstance], accepts: Callable[[str], Sequence[str]]
    ) -> list[_Ready | None]:
        """The next instance, unless it is large or must be transcoded."""
        return [
            self._ready(instance, accepts)
            for instance in instances
            if instance.stored.dataset_length <= HOLD_BYTES
            and instance.transfer_syntax_uid in accepts(instance.sop_class_uid)
        ]

    def _ready(self, instance: StoredInstance, accepts: Callable[[str], Sequence[str]]) -> _Ready | None:
        """The instance in a syntax that the peer takes, None if there is none or its bytes are not right."""
        accepted = accepts(instance.sop_class_uid)
        syntax_uid = self._retrieve.syntax_for(instance, accepted) if accepted else None
        if syntax_uid is None:
            return None
        try:
            return _Ready(syntax_uid, self._pieces(instance, syntax_uid))
        except Refusal as refusal:
            self._refused(refusal)
            return None

    def _send_one(
        self, instance: StoredInstance, ready: _Ready, send: Send, meanwhile: Callable[[], None]
    ) -> Answer | None:
        """What the peer says, None if it did not answer."""
        started = time.perf_counter()
        try:
            answer = send(instance, ready.syntax_uid, ready.pieces, meanwhile)
        except Refusal as refusal:
            self._refused(refusal)
            return None
        metrics.RETRIEVE_SECONDS.labels("dimse", self._kind).observe(time.perf_counter() - started)
        return answer

    def _refused(self, refusal: Refusal) -> None:
        metrics.REFUSALS.labels("dimse", refusal.reason.value).inc()
        log.warning("instance not sent", reason=refusal.reason.value, comment=refusal.comment)

    def _pieces(self, instance: StoredInstance, syntax_uid: str) -> Iterable[bytes]:
        """The encoded dataset, known to be right to its last byte before the first one leaves."""
        stored = instance.stored
        if syntax_uid != instance.transfer_syntax_uid:
            transcoded = self._retrieve.dataset(instance, syntax_uid)
            return _Pieces(lambda: (transcoded,), self._kind)
        if stored.dataset_length <= HOLD_BYTES:
            held = list(self._objects.stream(stored))
            return _Pieces(lambda: held, self._kind)
        for _piece in self._objects.stream(stored):
            pass
        return _Pieces(lambda: self._objects.stream(stored), self._kind)


class _Pieces:
    """A dataset's pieces, counted as they leave; can be gone through again."""

    def __init__(self, pieces: Callable[[], Iterable[bytes]], kind: str) -> None:
        self._pieces = pieces
        self._counter = metrics.RETRIEVED_BYTES.labels("dimse", kind)

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces():
            yield piece
            self._counter.inc(len(piece))
