"""The condition of an instance's object, and putting another copy in its place.

A copy is bytes whose digest is the row's, wherever they come from: an object that no row refers to, a
Part 10 file in a folder, or the object itself when only what lies beside its dataset is damaged. It is
never referred to where it is: it is written as a new object, verified on the way, and then the row is
pointed at that. So nothing that may still be removed by somebody else (an orphan, a user's file) is ever
what a row depends on.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from blake3 import blake3

from node.domain import levels, part10
from node.domain.errors import Reason, Refusal
from node.domain.header import Header, HeaderReader, Limits
from node.domain.model import Actor, AuditEvent, StoredInstance
from node.ports import Instances, Repairs
from node.services.objects import PIECE_BYTES, Objects


class Condition(Enum):
    """What state an object is in."""

    INTACT = "intact"
    MISSING = "missing"  # not in the store
    CORRUPT = "corrupt"  # its dataset is not what was acknowledged
    LABEL = "label"  # the dataset is right; its Part 10 prefix or its digests are damaged


@dataclass(frozen=True, slots=True)
class Examined:
    """An object's condition; `header` if it was read as a whole and could be understood."""

    condition: Condition
    header: Header | None = None


class Restore:
    """Examines objects and replaces damaged ones."""

    def __init__(self, objects: Objects, instances: Instances, repairs: Repairs, limits: Limits) -> None:
        self._objects = objects
        self._instances = instances
        self._repairs = repairs
        self._limits = limits

    def examine(self, instance: StoredInstance, *, read_bytes: bool = True) -> Examined:
        """Look at the instance's object: its length only, or every byte of it."""
        stored = instance.stored
        try:
            if not read_bytes:
                return Examined(Condition.INTACT if self._objects.whole(stored) else self._gone(instance))
            whole = blake3()
            pieces: list[bytes] = []
            reader: HeaderReader | None = HeaderReader(instance.transfer_syntax_uid, self._limits)
            for piece in self._objects.unchecked(stored):
                whole.update(piece)
                if stored.dataset_length > PIECE_BYTES:
                    pieces.append(blake3(piece).digest())
                reader = _fed(reader, piece)
        except Refusal as refusal:
            if refusal.reason not in (Reason.NOT_FOUND, Reason.CORRUPT):
                raise
            return Examined(self._gone(instance))
        if whole.digest() != stored.digest:
            return Examined(Condition.CORRUPT)
        header = _finished(reader)
        return Examined(Condition.INTACT if self._labelled(instance, pieces) else Condition.LABEL, header)

    def replace(
        self, instance: StoredInstance, dataset: Iterable[bytes], actor: Actor, origin: str
    ) -> StoredInstance:
        """Write `dataset` as a new object and point the instance's row at it, audited; returns the row.

        Refusal(CORRUPT) if the bytes are not the row's, NOT_FOUND if the row is gone; then nothing is
        left behind. `origin`: where the copy was, for the audit trail.
        """
        stored = instance.stored
        source = self._repairs.source_of(instance.sop_instance_uid)
        prefix = part10.prefix(
            instance.sop_class_uid, instance.sop_instance_uid, instance.transfer_syntax_uid, source
        )
        writer = self._objects.begin(prefix)
        try:
            length = 0
            for piece in dataset:
                length += len(piece)
                if length > stored.dataset_length:
                    raise Refusal(Reason.CORRUPT, "a copy longer than the original")
                writer.write(piece)
        except BaseException:
            writer.abort()
            raise
        copy = writer.finish()
        event = AuditEvent(
            "repair",
            actor,
            study_uids=(instance.study_uid,),
            detail={"instance_uid": instance.sop_instance_uid, "origin": origin},
        )
        try:
            if copy.digest != stored.digest:
                raise Refusal(Reason.CORRUPT, "a copy with another digest")
            self._instances.repoint(instance.sop_instance_uid, copy, event)
        except Refusal as refusal:
            if refusal.reason is not Reason.UNAVAILABLE:  # else the row may refer to it by now
                self._objects.remove(copy.name)
            raise
        found = self._instances.find(instance.sop_instance_uid)
        if found is None:
            raise Refusal(Reason.NOT_FOUND, "removed meanwhile")
        return found

    def relabel(self, instance: StoredInstance, actor: Actor) -> StoredInstance:
        """Give an object whose dataset is right a new prefix and new digests; see `replace`."""
        return self.replace(instance, self._objects.unchecked(instance.stored), actor, "itself")

    def _labelled(self, instance: StoredInstance, pieces: list[bytes]) -> bool:
        """Whether what lies beside the dataset is right: a rebuild and every range depend on it."""
        try:
            digests = self._objects.digests(instance.stored)
            self._objects.prefix(instance.stored.name, digests)
        except Refusal as refusal:
            if refusal.reason is not Reason.CORRUPT:
                raise
            return False
        return list(digests.pieces) == pieces

    def _gone(self, instance: StoredInstance) -> Condition:
        """Not there at all, or there and cut off?"""
        return Condition.CORRUPT if self._objects.exists(instance.stored.name) else Condition.MISSING


def same_place(instance: StoredInstance, header: Header) -> bool:
    """Whether a row and the dataset behind it name the same study, series and instance."""
    row = (instance.sop_class_uid, instance.sop_instance_uid, instance.study_uid, instance.series_uid)
    return levels.identify(header) == row


def _fed(reader: HeaderReader | None, piece: bytes) -> HeaderReader | None:
    """The reader with the piece; None once it does not understand (limits may have changed since)."""
    try:
        if reader is not None:
            reader.feed(piece)
    except Refusal:
        return None
    return reader


def _finished(reader: HeaderReader | None) -> Header | None:
    try:
        return None if reader is None else reader.finish()
    except Refusal:
        return None
