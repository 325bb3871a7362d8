"""Objects that no row refers to: what they are, and what becomes of them.

A crash between object and commit leaves an object that was never acknowledged. But an object without a
row may also be all that is left of an acknowledged instance, when the catalog lost rows (it was restored
from an older backup, or made anew). From the object alone the two look the same, so an orphan is removed
only when it is known that nobody depends on it, and is otherwise brought (back) into the catalog: the
archive may show an instance whose sender was not told so, and never loses one whose sender was.

| Fate | Known how | What happens |
|---|---|---|
| SURPLUS | a deletion or a repair handed it to the collector | the collector removes it |
| SPARE | its row has the same bytes in an object that was read and is right | removed |
| COPY | the same, but the row's own object is missing or damaged | the row gets a new copy of it |
| REFUSED | its row has other bytes and was there first, so these were refused | removed |
| DELETED | no row, and the audit trail tells of its deletion after it was written | removed |
| UNKNOWN | no row, no deletion | admitted, like a new arrival |
| RIVAL | its row has other bytes, but is damaged or was made anew since: who was first? | kept and reported |
| UNREADABLE | its digests fail, or it is not understood | kept and reported |

A deletion's audit row and the hand-over to the collector are in the deletion's transaction, so as long as
the catalog is not lost a deleted instance never comes back this way.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import islice

from node.domain import levels, part10
from node.domain.errors import Reason, Refusal
from node.domain.header import HeaderReader
from node.domain.model import (
    Actor,
    Admission,
    AuditEvent,
    InstanceRecord,
    StoredInstance,
    StoredObject,
)
from node.ports import Catalog
from node.services.ingest import Ingest
from node.services.objects import Objects
from node.services.restore import Condition, Restore

BATCH = 500


class Fate(Enum):
    """What an object without a row is; see the module's table."""

    SURPLUS = "surplus"
    SPARE = "spare"
    COPY = "copy"
    REFUSED = "refused"
    DELETED = "deleted"
    UNKNOWN = "unknown"
    RIVAL = "rival"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Orphan:
    """A judged object. `record` unless it is unreadable; `row`: the instance's row, if there is one;
    `condition`: of that row's object."""

    name: str
    fate: Fate
    record: InstanceRecord | None = None
    row: StoredInstance | None = None
    condition: Condition = Condition.INTACT


class Orphans:
    """Finds, judges and settles them."""

    def __init__(self, objects: Objects, catalog: Catalog, ingest: Ingest, restore: Restore) -> None:
        self._objects = objects
        self._catalog = catalog
        self._ingest = ingest
        self._restore = restore

    def find(self, older_than_seconds: float) -> list[tuple[str, float]]:
        """Objects of that age that no row refers to and that nobody handed to the collector, as
        (name, age in seconds), oldest first: who was first is admitted first."""
        old = (each for each in self._objects.names() if each[1] >= older_than_seconds)
        found: list[tuple[str, float]] = []
        while batch := list(islice(old, BATCH)):
            found += self._unneeded(batch)
        return sorted(found, key=lambda each: (-each[1], each[0]))

    def judge(self, name: str, age_seconds: float) -> Orphan | None:
        """What an object is; None if it is gone, or referred to, by now."""
        try:
            record = self._read(name)
        except Refusal as refusal:
            if refusal.reason is Reason.UNAVAILABLE:
                raise
            return None if refusal.reason is Reason.NOT_FOUND else Orphan(name, Fate.UNREADABLE)
        row = self._catalog.instances.find(record.sop_instance_uid)
        if row is not None and row.stored.name == name:
            return None
        condition = Condition.INTACT if row is None else self._restore.examine(row).condition
        fate = self._fate(record, row, condition, age_seconds)
        return Orphan(name, fate, record, row, condition)

    def settle(self, orphan: Orphan, actor: Actor) -> bool:
        """Do what the table says; whether the object is no orphan any more."""
        match orphan.fate:
            case Fate.SPARE | Fate.REFUSED | Fate.DELETED:
                return self._remove(orphan.name)
            case Fate.COPY:
                return self.heal(orphan, actor) and self._remove(orphan.name)
            case Fate.UNKNOWN:
                return self.adopt(orphan, actor) is Admission.STORED
            case _:
                return False

    def heal(self, orphan: Orphan, actor: Actor) -> bool:
        """Give the row of a COPY a new object with its bytes; False if they are gone meanwhile."""
        assert orphan.row is not None  # noqa: S101 - a COPY has a row
        assert orphan.record is not None  # noqa: S101
        try:
            self._restore.replace(
                orphan.row, self._objects.stream(orphan.record.stored), actor, "object without a row"
            )
        except Refusal as refusal:
            if refusal.reason not in (Reason.NOT_FOUND, Reason.CORRUPT):
                raise
            return False
        return True

    def adopt(self, orphan: Orphan, actor: Actor) -> Admission | None:
        """Admit the object's instance; None if its series exists in another study."""
        assert orphan.record is not None  # noqa: S101 - whatever is not UNREADABLE has one
        record = orphan.record
        detail = {"instance_uid": record.sop_instance_uid, "by": actor.name}
        event = AuditEvent("rebuild", record.source, study_uids=(record.study_uid,), detail=detail)
        try:
            admission, _ = self._catalog.instances.admit(record, event)
        except Refusal as refusal:
            if refusal.reason is not Reason.MISMATCH:
                raise
            return None
        return admission

    def _fate(
        self, record: InstanceRecord, row: StoredInstance | None, condition: Condition, age_seconds: float
    ) -> Fate:
        repairs = self._catalog.repairs
        same = row is not None and _same_bytes(row, record)
        if same and condition is not Condition.INTACT:
            return Fate.COPY
        if self._catalog.surplus.among([record.stored.name]):
            return Fate.SURPLUS
        if row is None:
            return Fate.DELETED if repairs.deleted_since(record, age_seconds) else Fate.UNKNOWN
        if same:
            return Fate.SPARE
        # A row whose object is damaged may be one of an older backup: then this may be what came after.
        first = condition is Condition.INTACT and not repairs.rebuilt_since(record, age_seconds)
        return Fate.REFUSED if first else Fate.RIVAL

    def _read(self, name: str) -> InstanceRecord:
        """What the catalog would be told of the object, which is read and checked as a whole."""
        digests = self._objects.digests_of(name)
        reader = part10.Part10Reader()
        reader.feed(self._objects.prefix(name, digests))
        meta = reader.finish()  # the prefix ends with the meta information
        stored = StoredObject(name, digests.prefix_length, digests.dataset_length, digests.digest)
        header_reader = HeaderReader(meta.transfer_syntax_uid, self._ingest.limits)
        for piece in self._objects.stream(stored):
            header_reader.feed(piece)
        header = header_reader.finish()
        source = Actor(meta.source_ae or "UNKNOWN", "", "node")
        return self._ingest.record(header, levels.identify(header), stored, source)

    def _unneeded(self, batch: list[tuple[str, float]]) -> Iterator[tuple[str, float]]:
        names = [name for name, _ in batch]
        needed = self._catalog.instances.refers_to(names)
        # Asked second: a deletion takes the row away and hands the name over in one transaction.
        handed_over = self._catalog.surplus.among(names)
        return (each for each in batch if each[0] not in needed and each[0] not in handed_over)

    def _remove(self, name: str) -> bool:
        if self._catalog.instances.refers_to([name]):
            return False
        self._objects.remove(name)
        return True


def _same_bytes(row: StoredInstance, record: InstanceRecord) -> bool:
    return (row.stored.digest, row.transfer_syntax_uid) == (record.stored.digest, record.transfer_syntax_uid)
