"""Requests that are refused for who makes them, in the audit trail: a few a second of each address.

Instances that are refused, and logins, have events of their own; nobody but a known sender can make those
in numbers.
"""

from typing import Any

import falcon
import structlog

from node.domain.errors import Refusal
from node.domain.model import Actor, AuditEvent
from node.domain.uid import check_uid
from node.ports import Audits
from node.services.limits import Sparingly

log = structlog.get_logger()


class RefusedRequests:
    """Audits them; counts within one process."""

    def __init__(self, audits: Audits) -> None:
        self._audits = audits
        self._sparingly = Sparingly()

    def note(self, req: falcon.Request, reason: str, comment: str, params: dict[str, Any]) -> None:
        """`params`: what the address names, if its route was found."""
        address = req.remote_addr or ""
        if not self._sparingly.allows(address):
            return
        actor = Actor(req.env.get("stele.actor", "unknown"), address, "http")
        detail = {"comment": comment, "method": req.method, "route": req.uri_template}
        event = AuditEvent("access", actor, reason, _studies(params), detail)
        try:
            self._audits.record(event)
        except Refusal as refusal:
            log.warning("refusal not audited", reason=refusal.reason.value)


def _studies(params: dict[str, Any]) -> tuple[str, ...]:
    try:
        return (check_uid(params["study"]),)
    except (KeyError, Refusal):
        return ()
