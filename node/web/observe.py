"""Around the application: the request's number, the access log, metrics, and the limit on requests at once.

The access log has the route's template, never the path or the query, in which patients could be named.
"""

import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import structlog

from node import metrics
from node.domain.errors import Refusal
from node.services.limits import Turns
from node.web.status import PROBLEM, RETRY_AFTER_SECONDS, problem

log = structlog.get_logger()

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

_REQUEST_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
UNGATED = frozenset({"/health/live", "/health/ready", "/metrics"})
# As route, for metrics: what clients ask for in vain must not make new series.
UNROUTED = "none"


class _Body:
    """A response body that tells when it is over, and whether it came to its end."""

    def __init__(self, body: Iterable[bytes], closed: Callable[[bool, int], None]) -> None:
        self._body = body
        self._closed: Callable[[bool, int], None] | None = closed
        self._complete = False
        self._sent = 0

    def __iter__(self) -> Iterator[bytes]:
        try:
            for piece in self._body:
                self._sent += len(piece)
                yield piece
        except Refusal as refusal:
            # Nothing can be said any more: the server breaks the connection off.
            metrics.REFUSALS.labels("http", refusal.reason.value).inc()
            log.error("answer broken off", reason=refusal.reason.value, comment=refusal.comment)
            raise
        self._complete = True

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            closed, self._closed = self._closed, None
            if closed is not None:
                closed(self._complete, self._sent)


class Observed:
    """Numbers each request, logs and measures it when its last byte has been handed over."""

    def __init__(self, app: Application) -> None:
        self._app = app

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """WSGI."""
        given = environ.get("HTTP_X_REQUEST_ID", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
        environ["stele.request_id"] = request_id
        began = time.perf_counter()
        status = ["500"]

        def start(line: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            status[0] = line[:3]
            return start_response(line, [*headers, ("X-Request-ID", request_id)], exc_info)

        def closed(complete: bool, sent: int) -> None:
            seconds = time.perf_counter() - began
            route = environ.get("stele.route") or UNROUTED
            method = environ["REQUEST_METHOD"]
            method = method if method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT") else "other"
            metrics.HTTP_SECONDS.labels(method, route, status[0]).observe(seconds)
            if route in UNGATED:
                return
            log.info(
                "request",
                method=method,
                route=route,
                status=int(status[0]),
                seconds=round(seconds, 4),
                bytes=sent,
                complete=complete,
                address=environ.get("REMOTE_ADDR"),
                actor=environ.get("stele.actor"),
                request_id=request_id,
            )

        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            return _Body(self._app(environ, start), closed)
        except BaseException:
            closed(False, 0)
            raise
        finally:
            structlog.contextvars.unbind_contextvars("request_id")


class Gate:
    """At most `at_once` requests inside, `waiting` more before the gate; the rest is told to come back.

    A request is inside until its last byte has been taken, so a client that reads slowly on as many
    connections as it can open would hold all places; hence one address gets half of them at most. Clients
    behind a proxy are told apart if it speaks PROXY protocol.

    The server has more threads than that, so that health and metrics, which do not pass here, are
    answered while everything else is busy.
    """

    def __init__(self, app: Application, *, at_once: int, waiting: int, wait_seconds: float) -> None:
        self._app = app
        self._turns = Turns(at_once, waiting, wait_seconds)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """WSGI."""
        if environ.get("PATH_INFO") in UNGATED:
            return self._app(environ, start_response)
        address = str(environ.get("REMOTE_ADDR", ""))
        if not self._turns.enter(address):
            metrics.REFUSALS.labels("http", "busy").inc()
            data = problem(503, "busy", "too many requests at once", environ.get("stele.request_id", ""))
            headers = [
                ("Content-Type", PROBLEM),
                ("Content-Length", str(len(data))),
                ("Retry-After", str(RETRY_AFTER_SECONDS)),
            ]
            start_response("503 Service Unavailable", headers)
            return [data]
        try:
            body = self._app(environ, start_response)
        except BaseException:
            self._turns.leave(address)
            raise
        return _Body(body, lambda _complete, _sent: self._turns.leave(address))
