"""Requests that are refused for who makes them are audited, a few of each address."""

from typing import Any, cast

import falcon
import falcon.testing
import pytest
from prometheus_client import REGISTRY

from node.domain.errors import Reason, Refusal
from node.domain.model import AuditEvent
from node.ports import Audits
from node.web.refused import RefusedRequests
from node.web.status import Errors, Problem

FLOOD = 300


class Trail:
    """The audit trail, listening; `down` while the catalog does not answer."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.down = False

    def record(self, event: AuditEvent) -> None:
        if self.down:
            raise Refusal(Reason.UNAVAILABLE)
        self.events.append(event)


class Refusing:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def on_get(self, _req: falcon.Request, _resp: falcon.Response, **_params: Any) -> None:
        raise self._error


def client(error: Exception) -> tuple[falcon.testing.TestClient, Trail]:
    trail = Trail()
    app: Any = falcon.App()
    Errors(RefusedRequests(cast(Audits, trail)).note).install(app)
    app.add_route("/studies/{study}", Refusing(error))
    return falcon.testing.TestClient(app), trail


@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [
        (Refusal(Reason.NOT_AUTHENTICATED, "why"), 401, "not_authenticated"),
        (Refusal(Reason.NOT_ALLOWED, "why"), 403, "not_allowed"),
        (Problem(403, "foreign_origin", "why"), 403, "foreign_origin"),
    ],
)
def test_what_the_event_tells(error: Exception, status: int, outcome: str) -> None:
    asked, trail = client(error)
    answer = asked.simulate_get("/studies/1.2.3", remote_addr="192.0.2.1", extras={"stele.actor": "someone"})
    assert answer.status_code == status
    (event,) = trail.events
    assert (event.action, event.outcome, event.study_uids) == ("access", outcome, ("1.2.3",))
    assert (event.actor.name, event.actor.address, event.actor.protocol) == ("someone", "192.0.2.1", "http")
    assert event.detail == {"comment": "why", "method": "GET", "route": "/studies/{study}"}


def test_what_is_no_uid_is_not_repeated() -> None:
    asked, trail = client(Refusal(Reason.NOT_ALLOWED))
    asked.simulate_get("/studies/Doe^Jane")
    assert trail.events[0].study_uids == ()


@pytest.mark.parametrize("reason", [Reason.NOT_FOUND, Reason.INVALID_QUERY, Reason.NOT_ACCEPTABLE])
def test_other_refusals_are_no_question_of_who(reason: Reason) -> None:
    asked, trail = client(Refusal(reason))
    asked.simulate_get("/studies/1.2.3")
    assert not trail.events


def test_a_flood_of_one_address_hides_no_other() -> None:
    asked, trail = client(Refusal(Reason.NOT_AUTHENTICATED))
    for _ in range(FLOOD):
        assert asked.simulate_get("/studies/1.2.3", remote_addr="192.0.2.1").status_code == 401
    flooded = len(trail.events)
    assert 0 < flooded < FLOOD / 2
    asked.simulate_get("/studies/1.2.3", remote_addr="192.0.2.2")
    assert trail.events[-1].actor.address == "192.0.2.2"


def test_the_answer_is_the_same_while_the_catalog_is_away() -> None:
    asked, trail = client(Refusal(Reason.NOT_AUTHENTICATED))
    trail.down = True
    assert asked.simulate_get("/studies/1.2.3").status_code == 401


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Refusal(Reason.NOT_ACCEPTABLE), "not_acceptable"),
        (Problem(415, "unsupported_encoding"), "unsupported_encoding"),
        (Problem(501, "unsupported_transfer_coding"), "unsupported_transfer_coding"),
        (TimeoutError(), "request_timeout"),
        (ValueError(), "internal"),
    ],
)
def test_every_refusal_is_counted_by_its_reason(error: Exception, reason: str) -> None:
    asked, _ = client(error)
    labels = {"edge": "http", "reason": reason}
    before = REGISTRY.get_sample_value("stele_refusals_total", labels) or 0
    asked.simulate_get("/studies/1.2.3")
    assert REGISTRY.get_sample_value("stele_refusals_total", labels) == before + 1
