"""Removing objects that no row needs.

Two kinds: *surplus* objects, whose rows were deleted or repointed and whose names the same transaction
handed over; and *orphans*, left by a crash between object and commit. An orphan is only taken when it
has been in the store for longer than any intake can still be under way (the grace period), and either
kind only if no row refers to it at that moment.
"""

from itertools import islice

import structlog

from node.ports import Instances, Surplus
from node.services.objects import Objects

BATCH = 200
log = structlog.get_logger()


class Collect:
    """The collector's two steps."""

    def __init__(
        self, objects: Objects, instances: Instances, surplus: Surplus, grace_seconds: float
    ) -> None:
        self._objects = objects
        self._instances = instances
        self._surplus = surplus
        self._grace_seconds = grace_seconds

    def surplus(self) -> int:
        """Work off a batch of what was handed over; returns how many."""
        names = self._surplus.take(BATCH)
        if names:
            self._remove(names)
            self._surplus.done(names)
        return len(names)

    def orphans(self) -> int:
        """Go through the whole store once; returns how many orphans were removed."""
        old = (name for name, age_seconds in self._objects.names() if age_seconds > self._grace_seconds)
        removed = 0
        while batch := list(islice(old, BATCH)):
            removed += self._remove(batch)
        if removed:
            log.info("orphans removed", count=removed)
        return removed

    def _remove(self, names: list[str]) -> int:
        needed = self._instances.refers_to(names)
        surplus = [name for name in names if name not in needed]
        for name in surplus:
            self._objects.remove(name)
        return len(surplus)
