"""What the audit trail is told of one request's refused instances: one event for each reason, at its end.

A request may hold a hundred thousand bad parts; an event of its own for each would cost a commit each and
bury the trail. What is stored, and what is refused because other bytes are there, is told instance by
instance in the transaction that finds it.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

import structlog

from node.domain.errors import Refusal
from node.domain.model import AuditEvent
from node.ports import Audits
from node.services.ingest import Ingest

UIDS_TOLD = 20  # of the instances refused for one reason

log = structlog.get_logger()


class Gathered:
    """Takes the events of refused instances in, and hands on one for each reason."""

    def __init__(self, audits: Audits) -> None:
        self._audits = audits
        self._by_reason: dict[str, AuditEvent] = {}

    def record(self, event: AuditEvent) -> None:
        """Count an event in. The first one's comment stands for all of its reason."""
        known = self._by_reason.get(event.outcome)
        uid = event.detail.get("instance_uid")
        if known is None:
            others = {name: value for name, value in event.detail.items() if name != "instance_uid"}
            detail = {**others, "instances": 1, "instance_uids": [uid] if uid else []}
            self._by_reason[event.outcome] = replace(event, detail=detail)
            return
        detail = known.detail
        detail["instances"] += 1
        detail["bytes"] = detail.get("bytes", 0) + event.detail.get("bytes", 0)
        if uid and len(detail["instance_uids"]) < UIDS_TOLD:
            detail["instance_uids"].append(uid)

    def write(self) -> None:
        """Write what was gathered; durable on return, unless the catalog fails."""
        for event in self._by_reason.values():
            try:
                self._audits.record(event)
            except Refusal as refusal:
                log.warning("refusal not audited", reason=refusal.reason.value)


@contextmanager
def gathering(ingest: Ingest) -> Iterator[Ingest]:
    """The intake for one request, whose refusals are written when it ends, however it ends."""
    gathered = Gathered(ingest.audits)
    own = copy.copy(ingest)
    own.audits = cast(Audits, gathered)  # an intake records, and does nothing else with it
    try:
        yield own
    finally:
        gathered.write()
