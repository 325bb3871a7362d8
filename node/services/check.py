"""Comparing the catalog with the objects, and mending what a copy exists for (`stele check`).

Nothing that an intake, a deletion or the collector is in the midst of is taken for damage: objects without
a row count from the grace period on only, objects handed over for removal not at all, and a row is looked
at again before it is reported.

Mending never removes what could be the only copy. A row whose object is missing or damaged gets a new,
verified object from another copy (`node.services.restore`), or is reported and left as it is; an object
without a row is settled as `node.services.orphans` says.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from node.domain import levels
from node.domain.errors import Reason, Refusal
from node.domain.header import Header
from node.domain.model import Actor, AuditEvent, Level, StoredInstance, StoredObject
from node.domain.part10 import Meta, Part10Reader
from node.ports import Catalog
from node.services.ingest import Ingest
from node.services.objects import Objects
from node.services.orphans import Fate, Orphans
from node.services.restore import Condition, Examined, Restore, same_place

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is, or was until it was mended, not as it should be. Holds no patient data.

    | `kind` | What | `name` |
    |---|---|---|
    | missing | a row whose object is not in the store | SOP Instance UID |
    | corrupt | an object whose dataset is cut off or fails its digest | SOP Instance UID |
    | label | a right dataset with a damaged file prefix or digests beside it | SOP Instance UID |
    | orphan | an object without a row, older than the grace period; `detail`: its fate | object name |
    | misplaced | a row below no series, or below another than its dataset names | SOP Instance UID |
    | hollow | a patient, study or series (`detail`) with nothing below it | UID; a patient's key |
    | audit | the hash chain is broken | what is wrong |
    """

    kind: str
    name: str
    mended: bool = False
    detail: str = ""


class Check:
    """Walks rows, objects and the audit chain; with `mend`, an actor, mends on behalf of that."""

    def __init__(
        self,
        objects: Objects,
        catalog: Catalog,
        ingest: Ingest,
        restore: Restore,
        orphans: Orphans,
        grace_seconds: float,
    ) -> None:
        self._objects = objects
        self._catalog = catalog
        self._ingest = ingest
        self._restore = restore
        self._orphans = orphans
        self._grace_seconds = grace_seconds

    def run(
        self, *, read_bytes: bool, mend: Actor | None = None, folders: tuple[Path, ...] = ()
    ) -> Iterator[Finding]:
        """Everything that is wrong. With `read_bytes` every object is read against its digest, otherwise
        only its presence and length are looked at. `folders`: Part 10 files that may be copies."""
        reported: set[str] = set()
        for finding in self._misplaced(mend):
            reported.add(finding.name)
            yield finding
        if mend is not None:
            # Copies first, so that what is reported of the rows afterwards is what has no copy.
            yield from self._mended_from_objects(mend)
            for folder in folders:
                yield from self._mended_from_files(folder, mend, read_bytes)
        rows = self._rows(read_bytes, mend)
        yield from (each for each in rows if each.kind != "misplaced" or each.name not in reported)
        if mend is None:
            yield from self._orphaned(read_bytes)
        yield from self._hollow(mend)
        yield from (Finding("audit", problem) for problem in self._catalog.audits.verify())

    # --- rows ---

    def _rows(self, read_bytes: bool, mend: Actor | None) -> Iterator[Finding]:
        for _, instance in self._catalog.instances.names():
            examined = self._restore.examine(instance, read_bytes=read_bytes)
            if examined.condition is not Condition.INTACT:
                # Removed, or given another object, between the listing and the look?
                now = self._catalog.instances.find(instance.sop_instance_uid)
                if now is None:
                    continue
                if now.stored != instance.stored:
                    instance, examined = now, self._restore.examine(now, read_bytes=read_bytes)
            yield from self._row(instance, examined, mend)

    def _row(self, instance: StoredInstance, examined: Examined, mend: Actor | None) -> Iterator[Finding]:
        uid, condition, header = instance.sop_instance_uid, examined.condition, examined.header
        if condition is not Condition.INTACT:
            mended = (
                mend is not None
                and condition is Condition.LABEL
                and _tried(lambda: self._restore.relabel(instance, mend))
            )
            yield Finding(condition.value, uid, mended)
        if header is not None and not same_place(instance, header):
            yield Finding("misplaced", uid, mend is not None and self._place(instance.stored, header, mend))

    def _misplaced(self, mend: Actor | None) -> Iterator[Finding]:
        for stored, packed in self._catalog.repairs.misplaced():
            header = Header.unpack(packed)
            mended = mend is not None and self._place(stored, header, mend)
            yield Finding("misplaced", levels.identify(header)[1], mended)

    def _place(self, stored: StoredObject, header: Header, mend: Actor) -> bool:
        uids = levels.identify(header)
        record = self._ingest.record(header, uids, stored, mend)
        event = AuditEvent(
            "repair", mend, study_uids=(record.study_uid,), detail={"instance_uid": uids[1], "placed": True}
        )
        return _tried(lambda: self._catalog.repairs.place(record, event))

    def _hollow(self, mend: Actor | None) -> Iterator[Finding]:
        repairs = self._catalog.repairs
        for level in (Level.SERIES, Level.STUDY, Level.PATIENT):
            for key, name in repairs.hollow(level):
                detail = {"hollow": level.value.lower(), "name": name}
                mended = mend is not None and repairs.drop_hollow(
                    level, key, AuditEvent("repair", mend, detail=detail)
                )
                yield Finding("hollow", name, mended, level.value.lower())

    # --- objects ---

    def _orphaned(self, read_bytes: bool) -> Iterator[Finding]:
        for name, age_seconds in self._orphans.find(self._grace_seconds):
            if not read_bytes:
                yield Finding("orphan", name)
                continue
            orphan = self._orphans.judge(name, age_seconds)
            if orphan is not None and orphan.fate is not Fate.SURPLUS:
                yield Finding("orphan", name, detail=orphan.fate.value)

    def _mended_from_objects(self, mend: Actor) -> Iterator[Finding]:
        """Young objects are looked at too: they are left alone, but may be copies."""
        for name, age_seconds in self._orphans.find(0):
            orphan = self._orphans.judge(name, age_seconds)
            if orphan is None:
                continue
            old = age_seconds >= self._grace_seconds
            if orphan.fate is Fate.COPY and orphan.row is not None:
                healed = self._orphans.settle(orphan, mend) if old else self._orphans.heal(orphan, mend)
                if healed:
                    yield Finding(orphan.condition.value, orphan.row.sop_instance_uid, True, "from an object")
                if old:
                    yield Finding("orphan", name, healed, orphan.fate.value)
            elif old and orphan.fate is not Fate.SURPLUS:
                yield Finding("orphan", name, self._orphans.settle(orphan, mend), orphan.fate.value)

    # --- files ---

    def _mended_from_files(self, folder: Path, mend: Actor, read_bytes: bool) -> Iterator[Finding]:
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            meta = _meta(path)
            row = None if meta is None else self._catalog.instances.find(meta.sop_instance_uid)
            if meta is None or row is None or meta.transfer_syntax_uid != row.transfer_syntax_uid:
                continue
            condition = self._restore.examine(row, read_bytes=read_bytes).condition
            if condition is Condition.INTACT:
                continue
            if _tried(partial(self._restore.replace, row, _dataset(path), mend, "a file")):
                yield Finding(condition.value, row.sop_instance_uid, True, "from a file")


def _tried(mending: Callable[[], object]) -> bool:
    """Whether it could be mended; what cannot be now (the catalog is away) is raised."""
    try:
        mending()
    except Refusal as refusal:
        if refusal.reason in (Reason.UNAVAILABLE, Reason.STORE_FULL):
            raise
        return False
    return True


def _meta(path: Path) -> Meta | None:
    """A file's meta information; None if it is no DICOM file."""
    reader = Part10Reader()
    try:
        with path.open("rb") as stream:
            while reader.meta is None and (chunk := stream.read(CHUNK_BYTES)):
                reader.feed(chunk)
        return reader.finish()
    except (Refusal, OSError):
        return None


def _dataset(path: Path) -> Iterator[bytes]:
    reader = Part10Reader()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield bytes(reader.feed(chunk))
