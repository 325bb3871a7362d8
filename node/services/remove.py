"""Deleting for good: rows, audit and the objects' hand-over to the collector in one transaction.

Then the objects themselves, at once: a catalog that is lost later is made anew from the objects, and what
was deleted must not come back with them. What cannot be removed in time (very many objects, a store that
does not answer) is left to the collector.
"""

import time

import structlog

from node.domain.errors import Reason, Refusal
from node.domain.model import Actor, AuditEvent, Role, Scope, StoredInstance
from node.ports import Instances, Surplus
from node.services.access import require
from node.services.objects import Objects

OBJECTS_SECONDS = 20.0  # for the objects, of the minute that every request has
BATCH = 100

log = structlog.get_logger()


class Remove:
    """Takes instances out of the archive."""

    def __init__(self, instances: Instances, surplus: Surplus, objects: Objects) -> None:
        self._instances = instances
        self._surplus = surplus
        self._objects = objects

    def remove(self, scope: Scope, actor: Actor) -> int:
        """Remove what is in scope; returns how many instances. Refusal(NOT_FOUND, NOT_ALLOWED).

        On return nobody finds them any more, and their bytes are gone unless the log says otherwise.
        """
        require(actor, Role.ADMINISTRATOR)
        removed = self._instances.remove(scope, AuditEvent("delete", actor))
        if not removed:
            raise Refusal(Reason.NOT_FOUND, "nothing there to delete")
        self._remove_objects(removed)
        return len(removed)

    def _remove_objects(self, removed: list[StoredInstance]) -> None:
        deadline = time.monotonic() + OBJECTS_SECONDS
        names = [instance.stored.name for instance in removed]
        try:
            for start in range(0, len(names), BATCH):
                # What was handed over, and nothing else: a repair may have repointed a row meanwhile.
                ours = sorted(self._surplus.among(names[start : start + BATCH]))
                for name in ours:
                    self._objects.remove(name)
                self._surplus.done(ours)
                if time.monotonic() > deadline:
                    log.warning("deleted objects left to the collector", count=len(names) - start - BATCH)
                    return
        except Refusal as refusal:
            log.warning("deleted objects left to the collector", reason=refusal.reason.value)
