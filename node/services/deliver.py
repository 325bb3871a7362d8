"""Sending stored instances to a peer one by one: the sub-operations of C-MOVE and C-GET.

The edge says which transfer syntaxes the peer takes and how one instance is sent; here it is decided in
which syntax it goes and what its outcome counts as. An instance that cannot be read, fails its digest or
cannot be brought into a form that the peer takes is a failed sub-operation; the others go on.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import structlog

from node import metrics
from node.domain.errors import Refusal
from node.domain.model import StoredInstance
from node.domain.syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from node.services.objects import Objects
from node.services.retrieve import Retrieve

HOLD_BYTES = 32 << 20  # larger datasets are checked in a first reading and sent in a second one

log = structlog.get_logger()

# (instance, transfer syntax, encoded dataset in pieces) -> the peer's status
Send = Callable[[StoredInstance, str, Iterable[bytes]], int]


@dataclass
class Progress:
    """How far the sub-operations are. `failed_uids`: SOP Instance UIDs of the failed ones."""

    remaining: int
    completed: int = 0
    failed: int = 0
    warnings: int = 0
    failed_uids: list[str] = field(default_factory=list)

    def fail_rest(self, instances: Sequence[StoredInstance]) -> None:
        """Count all instances that remain as failed."""
        self.failed_uids += [each.sop_instance_uid for each in instances[len(instances) - self.remaining :]]
        self.failed += self.remaining
        self.remaining = 0


def proposals(instances: Iterable[StoredInstance]) -> list[tuple[str, str]]:
    """(SOP class, transfer syntax) pairs to propose to a peer: all that are stored, then what they can be
    turned into for a peer that takes nothing else; each once."""
    stored = {(each.sop_class_uid, each.transfer_syntax_uid): None for each in instances}
    classes = {class_uid: None for class_uid, _ in stored}
    fallbacks = {(uid, syntax): None for syntax in (EXPLICIT_LITTLE, IMPLICIT_LITTLE) for uid in classes}
    return list(stored | fallbacks)


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
        for instance in instances:
            status = self._send_one(instance, accepts(instance.sop_class_uid), send)
            progress.remaining -= 1
            if status == 0:
                progress.completed += 1
            elif status is not None and (status >> 12 == 0xB or status in (0x0001, 0x0107, 0x0116)):
                progress.warnings += 1
            else:
                progress.failed += 1
                progress.failed_uids.append(instance.sop_instance_uid)
            yield

    def _send_one(self, instance: StoredInstance, accepted: Sequence[str], send: Send) -> int | None:
        """The peer's status, None if it was not asked."""
        syntax = self._retrieve.syntax_for(instance, accepted) if accepted else None
        if syntax is None:
            return None
        started = time.perf_counter()
        try:
            status = send(instance, syntax, self._counted(self._pieces(instance, syntax)))
        except Refusal as refusal:
            metrics.REFUSALS.labels("dimse", refusal.reason.value).inc()
            log.warning("instance not sent", reason=refusal.reason.value, comment=refusal.comment)
            return None
        metrics.RETRIEVE_SECONDS.labels("dimse", self._kind).observe(time.perf_counter() - started)
        return status

    def _pieces(self, instance: StoredInstance, syntax_uid: str) -> Iterable[bytes]:
        """The encoded dataset, known to be right to its last byte before the first one leaves."""
        if syntax_uid != instance.transfer_syntax_uid:
            return (self._retrieve.dataset(instance, syntax_uid),)
        if instance.stored.dataset_length <= HOLD_BYTES:
            return list(self._objects.stream(instance.stored))
        for _piece in self._objects.stream(instance.stored):
            pass
        return self._objects.stream(instance.stored)

    def _counted(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        counter = metrics.RETRIEVED_BYTES.labels("dimse", self._kind)
        for piece in pieces:
            yield piece
            counter.inc(len(piece))
