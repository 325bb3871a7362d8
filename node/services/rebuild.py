"""Making the catalog anew from the objects alone (`stele rebuild`).

Every object tells its own story: its prefix names SOP class, instance, transfer syntax and who sent it,
its dataset everything else. Objects are taken oldest first and admitted like new arrivals, so running it
twice, or on a catalog that has some of the rows, does no harm.

What objects cannot know: accounts, AEs, the audit trail, when an instance was received, and that an
instance was deleted in the moments before its object was collected.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from node.domain import levels, part10
from node.domain.errors import Reason, Refusal
from node.domain.header import HeaderReader
from node.domain.model import Actor, Admission, AuditEvent, StoredObject
from node.ports import Instances
from node.services.ingest import Ingest
from node.services.objects import Objects


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What became of one object: an `Admission` value, or a refusal's reason."""

    name: str
    result: str


class Rebuild:
    """Reads every object and admits it."""

    def __init__(self, objects: Objects, instances: Instances, ingest: Ingest) -> None:
        self._objects = objects
        self._instances = instances
        self._ingest = ingest

    def run(self) -> Iterator[Rebuilt]:
        """Admit every object that no row refers to, oldest first."""
        by_age = sorted(self._objects.names(), key=lambda each: -each[1])
        for name, _age_seconds in by_age:
            if self._instances.refers_to([name]):
                continue
            try:
                yield Rebuilt(name, self._admit(name).value)
            except Refusal as refusal:
                if refusal.reason is Reason.UNAVAILABLE:
                    raise
                yield Rebuilt(name, refusal.reason.value)

    def _admit(self, name: str) -> Admission:
        digests = self._objects.digests_of(name)
        reader = part10.Part10Reader()
        reader.feed(self._objects.prefix(name, digests))
        meta = reader.finish()  # the prefix ends with the meta information
        stored = StoredObject(name, digests.prefix_length, digests.dataset_length, digests.sha256)
        header_reader = HeaderReader(meta.transfer_syntax_uid, self._ingest.limits)
        for piece in self._objects.stream(stored):
            header_reader.feed(piece)
        header = header_reader.finish()
        uids = levels.identify(header)
        source = Actor(meta.source_ae or "UNKNOWN", "", "node")
        event = AuditEvent("rebuild", source, study_uids=(uids[2],), detail={"instance_uid": uids[1]})
        record = self._ingest.record(header, uids, stored, source)
        admission, _ = self._instances.admit(record, event)
        return admission
