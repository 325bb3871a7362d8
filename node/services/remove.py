"""Deleting for good: rows, audit and the objects' hand-over to the collector in one transaction."""

from node.domain.errors import Reason, Refusal
from node.domain.model import Actor, AuditEvent, Role, Scope
from node.ports import Instances
from node.services.access import require


class Remove:
    """Takes instances out of the archive."""

    def __init__(self, instances: Instances) -> None:
        self._instances = instances

    def remove(self, scope: Scope, actor: Actor) -> int:
        """Remove what is in scope; returns how many instances. Refusal(NOT_FOUND, NOT_ALLOWED).

        On return nobody finds them any more; their bytes go when the collector comes by.
        """
        require(actor, Role.ADMINISTRATOR)
        removed = self._instances.remove(scope, AuditEvent("delete", actor))
        if not removed:
            raise Refusal(Reason.NOT_FOUND, "nothing there to delete")
        return len(removed)
