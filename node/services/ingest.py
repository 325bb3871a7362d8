"""The way of an image into the archive: receive → read the header → write the object → one
transaction → acknowledge.

An `Intake` is one instance on its way. Its edge feeds it dataset bytes as they come off the wire and
calls `finish`, which returns only when object and row are durable, and otherwise raises. That order is
the whole promise: an acknowledgement is sent after `finish` has returned, and for no other reason.

A refusal found half-way (a malformed header, a limit, a full store) does not raise out of `write`: the
peer is still sending, so the rest is thrown away and `finish` raises it. Every refusal leaves an audit
event; nothing of the instance stays visible.
"""

import time
from dataclasses import dataclass, replace
from typing import Any

import structlog

from node import metrics
from node.domain import levels, part10
from node.domain.errors import Reason, Refusal
from node.domain.header import Header, HeaderReader, Limits
from node.domain.model import (
    Actor,
    Admission,
    AuditEvent,
    InstanceRecord,
    Level,
    StoredInstance,
    StoredObject,
)
from node.domain.uid import check_uid
from node.ports import Audits, Instances
from node.services.objects import Chunk, Objects, ObjectWriter

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Outcome:
    """An acknowledged instance: the row in force, and whether it was there before."""

    instance: StoredInstance
    admission: Admission


class Intake:
    """One instance on its way in; used by one thread."""

    def __init__(
        self, ingest: "Ingest", source: Actor, class_uid: str, instance_uid: str, syntax_uid: str, limit: int
    ) -> None:
        self._ingest = ingest
        self._source = source
        self._class_uid = class_uid
        self._instance_uid = instance_uid
        self._limit = limit
        self._received = 0
        self._began = time.perf_counter()
        self._refusal: Refusal | None = None
        self._reader: HeaderReader | None = None
        self._writer: ObjectWriter | None = None
        try:
            check_uid(class_uid)
            check_uid(instance_uid)
            self._reader = HeaderReader(syntax_uid, ingest.limits)
            prefix = part10.prefix(class_uid, instance_uid, syntax_uid, source.name)
            self._writer = ingest.objects.begin(prefix)
        except Refusal as refusal:
            self._refuse(refusal)

    @property
    def refused(self) -> bool:
        """Whether `finish` will refuse: what else arrives is thrown away."""
        return self._refusal is not None

    def write(self, data: Chunk) -> None:
        """Take the next dataset bytes, in pieces of any size. Never raises a Refusal."""
        self._received += len(data)
        if self._reader is None or self._writer is None:
            return
        try:
            if self._received > self._limit:
                raise Refusal(Reason.TOO_LARGE, f"dataset larger than {self._limit} bytes")
            self._reader.feed(data)
            self._writer.write(data)
        except Refusal as refusal:
            self._refuse(refusal)

    def finish(self, study_uid: str | None = None) -> Outcome:
        """Make the instance durable; returning is the acknowledgement, every exception its refusal.

        `study_uid`: the study that the address of the request names, if it names one.
        """
        received = time.perf_counter()
        metrics.INTAKE_STAGE_SECONDS.labels("receive").observe(received - self._began)
        try:
            outcome = self._finish(study_uid)
        except Refusal as refusal:
            self._refuse(refusal)
            self._audit_refusal(refusal)
            metrics.INSTANCES.labels(self._source.protocol, refusal.reason.value).inc()
            raise
        finally:
            self.abort()
            metrics.INTAKE_SECONDS.labels(self._source.protocol).observe(time.perf_counter() - received)
        metrics.INSTANCES.labels(self._source.protocol, outcome.admission.value).inc()
        metrics.INTAKE_BYTES.observe(self._received)
        return outcome

    def abort(self) -> None:
        """The sender went away or gave up: leave nothing behind. Harmless after `finish`."""
        self._reader = None
        if self._writer is not None:
            self._writer.abort()
            self._writer = None

    def _refuse(self, refusal: Refusal) -> None:
        self._refusal = self._refusal or refusal
        self.abort()

    def _finish(self, study_uid: str | None) -> Outcome:
        if self._refusal is not None or self._reader is None or self._writer is None:
            raise self._refusal or Refusal(Reason.NOT_UNDERSTOOD, "already finished")
        header = self._reader.finish()
        uids = self._identify(header, study_uid)
        started = time.perf_counter()
        writer, self._writer = self._writer, None
        stored = writer.finish()
        written = time.perf_counter()
        metrics.INTAKE_STAGE_SECONDS.labels("object").observe(written - started)
        outcome = self._ingest.admit(self._ingest.record(header, uids, stored, self._source))
        metrics.INTAKE_STAGE_SECONDS.labels("catalog").observe(time.perf_counter() - written)
        return outcome

    def _identify(self, header: Header, study_uid: str | None) -> tuple[str, str, str, str]:
        uids = levels.identify(header)
        if uids[:2] != (self._class_uid, self._instance_uid):
            raise Refusal(Reason.MISMATCH, "SOP UIDs of dataset and command differ")
        if study_uid is not None and uids[2] != study_uid:
            raise Refusal(Reason.MISMATCH, "Study Instance UID differs from the address")
        return uids

    def _audit_refusal(self, refusal: Refusal) -> None:
        if refusal.reason is Reason.CONFLICT:
            return  # told in the transaction that found it
        detail: dict[str, Any] = {"comment": refusal.comment, "bytes": self._received}
        if refusal.reason is not Reason.INVALID_UID:
            detail["instance_uid"] = self._instance_uid
        event = AuditEvent("store", self._source, refusal.reason.value, (), detail)
        try:
            self._ingest.audits.record(event)
        except Refusal:
            log.warning("refusal not audited", reason=refusal.reason.value)


class Ingest:
    """Takes instances in, for every edge alike."""

    def __init__(
        self,
        objects: Objects,
        instances: Instances,
        audits: Audits,
        limits: Limits,
        extra_tags: dict[Level, tuple[str, ...]],
    ) -> None:
        self.objects = objects
        self.instances = instances
        self.audits = audits
        self.limits = limits
        self.extra_tags = extra_tags

    def begin(
        self,
        source: Actor,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        max_object_bytes: int = 0,
    ) -> Intake:
        """Begin an instance that `source` sends; `max_object_bytes` narrows the configured limit."""
        limit = min(max_object_bytes or self.limits.max_object_bytes, self.limits.max_object_bytes)
        return Intake(self, source, sop_class_uid, sop_instance_uid, transfer_syntax_uid, limit)

    def record(
        self, header: Header, uids: tuple[str, str, str, str], stored: StoredObject, source: Actor
    ) -> InstanceRecord:
        """What the catalog is told of a written object; `uids` as `levels.identify` gives them."""
        patient, study, series, instance = levels.split(header, self.extra_tags)
        return InstanceRecord(
            sop_class_uid=uids[0],
            sop_instance_uid=uids[1],
            transfer_syntax_uid=header.transfer_syntax_uid,
            study_uid=uids[2],
            series_uid=uids[3],
            patient=patient,
            study=study,
            series=series,
            instance=instance,
            header=header.pack(),
            stored=stored,
            source=source,
        )

    def admit(self, record: InstanceRecord) -> Outcome:
        """Commit a written object's row. The object is removed again if the row in force is another."""
        event = AuditEvent(
            "store",
            record.source,
            study_uids=(record.study_uid,),
            detail={"instance_uid": record.sop_instance_uid},
        )
        try:
            admission, instance = self.instances.admit(record, event)
        except Refusal as refusal:
            if refusal.reason is Reason.MISMATCH:
                self._discard(record.stored.name)
            # Otherwise the outcome is unknown: the row may exist, so the object stays. If it does not,
            # the collector removes the orphan after its grace period.
            raise
        if admission is Admission.STORED:
            return Outcome(instance, admission)
        if admission is Admission.DUPLICATE and not self.objects.intact(instance.stored):
            # The row's object is gone or damaged: the copy in hand takes its place.
            self.instances.repoint(
                record.sop_instance_uid,
                record.stored,
                replace(event, detail={**event.detail, "healed": True}),
            )
            return Outcome(replace(instance, stored=record.stored), admission)
        self._discard(record.stored.name)
        if admission is Admission.CONFLICT:
            raise Refusal(Reason.CONFLICT, "other bytes are stored under this SOP Instance UID")
        return Outcome(instance, admission)

    def _discard(self, name: str) -> None:
        """Remove a surplus object; if that fails now, the collector finds it as an orphan later."""
        try:
            self.objects.remove(name)
        except Refusal as refusal:
            log.warning("surplus object left to the collector", reason=refusal.reason.value)
