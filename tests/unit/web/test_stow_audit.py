"""The audit events of a request's refused instances, gathered by reason."""

from types import SimpleNamespace
from typing import cast

import pytest

from node.domain.errors import Reason, Refusal
from node.domain.model import Actor, AuditEvent
from node.ports import Audits
from node.services.ingest import Ingest
from node.web.stow_audit import UIDS_TOLD, Gathered, gathering

SENDER = Actor("ct", "192.0.2.1", "http")


def refused(reason: Reason, uid: str = "") -> AuditEvent:
    uids = {"instance_uid": uid} if uid else {}
    return AuditEvent("store", SENDER, reason.value, (), {"comment": "why", "bytes": 10, **uids})


class Trail:
    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    def record(self, event: AuditEvent) -> None:
        self.events.append(event)


def test_one_event_for_each_reason() -> None:
    trail = Trail()
    gathered = Gathered(cast(Audits, trail))
    for number in range(100):
        gathered.record(refused(Reason.NOT_UNDERSTOOD, f"1.{number}"))
    gathered.record(refused(Reason.TOO_LARGE))
    assert not trail.events
    gathered.write()
    many, one = trail.events
    assert (many.action, many.actor, many.outcome) == ("store", SENDER, "not_understood")
    assert many.detail == {
        "comment": "why",
        "bytes": 1000,
        "instances": 100,
        "instance_uids": [f"1.{number}" for number in range(UIDS_TOLD)],
    }
    assert (one.outcome, one.detail["instances"], one.detail["instance_uids"]) == ("too_large", 1, [])


def test_a_catalog_that_is_away_costs_the_events_and_nothing_else() -> None:
    class Away:
        def record(self, event: AuditEvent) -> None:
            raise Refusal(Reason.UNAVAILABLE)

    gathered = Gathered(cast(Audits, Away()))
    gathered.record(refused(Reason.UNAVAILABLE))
    gathered.write()


def test_they_are_written_however_the_request_ends() -> None:
    trail = Trail()
    everybodys = cast(Ingest, SimpleNamespace(audits=trail))
    with pytest.raises(ValueError), gathering(everybodys) as own:
        own.audits.record(refused(Reason.MISMATCH))
        assert not trail.events
        raise ValueError
    assert [event.outcome for event in trail.events] == ["mismatch"]
    assert everybodys.audits is cast(Audits, trail)
