"""Removing objects that no row needs.

Two kinds: *surplus* objects, whose rows were deleted or repointed and whose names the same transaction
handed over; and *orphans*, objects without a row that have been in the store for longer than any intake
can still be under way (the grace period). `node.services.orphans` says which orphans are removed and which
are brought back into the catalog instead.
"""

import time

import structlog

from node import metrics
from node.domain.model import Actor
from node.ports import Instances, Surplus
from node.services.objects import Objects
from node.services.orphans import Orphans

BATCH = 200
STEP_SECONDS = 15.0  # one step of the worker, beyond listing the store
log = structlog.get_logger()

_ITSELF = Actor("STELE", "", "node")


class Collect:
    """The collector's two steps."""

    def __init__(
        self,
        objects: Objects,
        instances: Instances,
        surplus: Surplus,
        orphans: Orphans,
        grace_seconds: float,
    ) -> None:
        self._objects = objects
        self._instances = instances
        self._surplus = surplus
        self._orphans = orphans
        self._grace_seconds = grace_seconds

    def surplus(self) -> int:
        """Work off a batch of what was handed over; returns how many."""
        names = self._surplus.take(BATCH)
        if names:
            needed = self._instances.refers_to(names)
            for name in names:
                if name not in needed:
                    self._objects.remove(name)
            self._surplus.done(names)
        return len(names)

    def orphans(self) -> int:
        """Go through the whole store and settle what is found, for STEP_SECONDS; returns how many wait
        for the next step."""
        found = self._orphans.find(self._grace_seconds)
        deadline = time.monotonic() + STEP_SECONDS
        left = 0
        for number, (name, age_seconds) in enumerate(found):
            if time.monotonic() > deadline:
                return len(found) - number
            orphan = self._orphans.judge(name, age_seconds)
            if orphan is None:
                continue
            if self._orphans.settle(orphan, _ITSELF):
                metrics.ORPHANS.labels(orphan.fate.value).inc()
                log.warning("object without a row settled", fate=orphan.fate.value, object=name)
            else:
                left += 1
                log.warning("object without a row kept", fate=orphan.fate.value, object=name)
        metrics.ORPHANS_KEPT.set(left)
        return 0
