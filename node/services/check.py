"""Comparing the catalog with the objects (`stele check`)."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from node.domain.errors import Reason, Refusal
from node.ports import Audits, Instances
from node.services.objects import Objects

BATCH = 500


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    `kind`: "missing" (a row without its object), "corrupt" (bytes fail their digest), "orphan" (an
    object without a row, older than the grace period) or "audit" (the hash chain is broken). `name`: SOP
    Instance UID, object name, or what is wrong with the chain.
    """

    kind: str
    name: str


class Check:
    """Walks rows, objects and the audit chain."""

    def __init__(self, objects: Objects, instances: Instances, audits: Audits, grace_seconds: float) -> None:
        self._objects = objects
        self._instances = instances
        self._audits = audits
        self._grace_seconds = grace_seconds

    def run(self, *, read_bytes: bool) -> Iterator[Finding]:
        """Everything that is wrong. With `read_bytes` every object is read against its digest, otherwise
        only its presence and length are looked at."""
        yield from self._rows(read_bytes)
        yield from self._orphans()
        yield from (Finding("audit", problem) for problem in self._audits.verify())

    def _rows(self, read_bytes: bool) -> Iterator[Finding]:
        for _, instance in self._instances.names():
            if not self._objects.whole(instance.stored):
                # Removed between the listing and the look? Then the row is gone too.
                if self._instances.find(instance.sop_instance_uid) is not None:
                    yield Finding("missing", instance.sop_instance_uid)
                continue
            if read_bytes:
                try:
                    for _piece in self._objects.stream(instance.stored):
                        pass
                except Refusal as refusal:
                    if refusal.reason is not Reason.CORRUPT:
                        raise
                    yield Finding("corrupt", instance.sop_instance_uid)

    def _orphans(self) -> Iterator[Finding]:
        old = (name for name, age_seconds in self._objects.names() if age_seconds > self._grace_seconds)
        while batch := list(islice(old, BATCH)):
            known = self._instances.refers_to(batch)
            yield from (Finding("orphan", name) for name in batch if name not in known)
