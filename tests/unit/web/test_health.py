"""Readiness, asked by many at once, of a catalog that answers, refuses or hangs."""

import socket
import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import falcon
import falcon.testing
import pytest

from node.config import Dicom
from node.domain.errors import Reason, Refusal
from node.services.archive import Archive
from node.web import health
from node.web.health import Ready
from tests.support import free_port, wait_until


def client(check: Any, dicom: Dicom | None = None) -> falcon.testing.TestClient:
    app: Any = falcon.App()
    app.add_route("/ready", Ready(cast(Archive, SimpleNamespace(check=check)), dicom))
    return falcon.testing.TestClient(app)


def test_an_answer_holds_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "READY_SECONDS", 60.0)
    asked: list[None] = []
    ready = client(lambda: asked.append(None))
    assert [ready.simulate_get("/ready").status_code for _ in range(5)] == [200] * 5
    assert len(asked) == 1


def test_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "READY_SECONDS", 0.0)
    refusals = [Refusal(Reason.STORE_FULL, "no room")]

    def check() -> None:
        if refusals:
            raise refusals[0]

    ready = client(check)
    answer = ready.simulate_get("/ready")
    assert (answer.status_code, answer.json["reason"]) == (503, "store_full")
    refusals.clear()
    assert ready.simulate_get("/ready").status_code == 200


def test_a_check_that_hangs_holds_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PATIENCE_SECONDS", 0.05)
    inside, release = threading.Event(), threading.Event()

    def check() -> None:
        inside.set()
        release.wait(30)

    ready = client(check)
    first: list[int] = []
    thread = threading.Thread(target=lambda: first.append(ready.simulate_get("/ready").status_code))
    thread.start()
    wait_until(inside.is_set, 10, "a check that hangs")
    began = time.monotonic()
    assert ready.simulate_get("/ready").status_code == 503
    assert time.monotonic() - began < 5
    release.set()
    thread.join(10)
    assert first == [200]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_ready_only_while_the_dicom_port_is_open(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setattr(health, "READY_SECONDS", 0.0)
    port = free_port()
    ready = client(lambda: None, Dicom(host=host, port=port))
    answer = ready.simulate_get("/ready")
    assert (answer.status_code, answer.json["comment"]) == (503, "the DICOM port is not open")
    with socket.create_server((host, port)):
        assert ready.simulate_get("/ready").status_code == 200
    assert ready.simulate_get("/ready").status_code == 503
