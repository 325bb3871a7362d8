"""Health and metrics, for load balancers and Prometheus: no login, no patient data."""

import os
import socket
import threading
import time
from pathlib import Path

import falcon
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest, multiprocess

from node.config import Dicom
from node.domain.errors import Reason, Refusal
from node.metrics import forget_the_dead
from node.services.archive import Archive
from node.web.body import JSON, send_json

READY_SECONDS = 1.0  # how long an answer about readiness holds
PATIENCE_SECONDS = 2.0  # how long others wait for the one who checks; a check may hang for long
CONNECT_SECONDS = 1.0  # for our own DICOM port to accept


class Live:
    """GET /health/live: this process answers."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """200, always."""
        resp.set_header("Cache-Control", "no-store")
        send_json(req, resp, {"status": "live"}, JSON)


class Ready:
    """GET /health/ready: catalog and objects answer and take writes, and the DICOM port is open.

    `dicom`: the listener of this node's other processes, None if it has none. Asked is the plain port
    only: the TLS port opens and closes with it, and would take a mere connection for a failed handshake.
    """

    def __init__(self, archive: Archive, dicom: Dicom | None) -> None:
        self._archive = archive
        self._dicom = dicom
        self._lock = threading.Lock()
        self._checked_at = float("-inf")
        self._refusal: Refusal | None = None

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """200, or 503 with the reason. One check at a time serves everybody who asks meanwhile."""
        refusal = self._current()
        resp.set_header("Cache-Control", "no-store")
        if refusal is None:
            send_json(req, resp, {"status": "ready"}, JSON)
            return
        resp.status = falcon.HTTP_503
        about = {"status": "not ready", "reason": refusal.reason.value, "comment": refusal.comment}
        send_json(req, resp, about, JSON)

    def _current(self) -> Refusal | None:
        if not self._lock.acquire(timeout=PATIENCE_SECONDS):
            return Refusal(Reason.UNAVAILABLE, "the check does not come to an end")
        try:
            if time.monotonic() - self._checked_at > READY_SECONDS:
                self._refusal = self._check()
                self._checked_at = time.monotonic()
            return self._refusal
        finally:
            self._lock.release()

    def _check(self) -> Refusal | None:
        try:
            if self._dicom is not None:
                _connect(self._dicom)
            self._archive.check()
        except Refusal as refusal:
            return refusal
        return None


def _connect(dicom: Dicom) -> None:
    """Refusal(UNAVAILABLE) if nobody listens there."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(dicom.host, dicom.host)  # noqa: S104 - compared only
    try:
        socket.create_connection((host, dicom.port), CONNECT_SECONDS).close()
    except OSError:
        raise Refusal(Reason.UNAVAILABLE, "the DICOM port is not open") from None


class Metrics:
    """GET /metrics: all processes of this node together."""

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Prometheus's text format."""
        registry = REGISTRY
        if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            forget_the_dead(Path(folder))
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        resp.content_type = CONTENT_TYPE_LATEST
        resp.set_header("Cache-Control", "no-store")
        resp.data = generate_latest(registry)
