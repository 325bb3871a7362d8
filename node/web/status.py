"""From the archive's reasons to HTTP's status codes, and to DICOM's for STOW-RS.

Error bodies are `application/problem+json` (RFC 9457) and hold the reason, its comment and the request's
number, nothing else. What is no `Refusal` is a fault of ours: 500 "internal", logged, not explained.
"""

import json
from collections.abc import Callable
from typing import Any

import falcon
import structlog

from node import metrics
from node.domain.errors import Reason, Refusal
from node.log import place_of

log = structlog.get_logger()

PROBLEM = "application/problem+json"
INTERNAL = "internal"
RETRY_AFTER_SECONDS = 5

HTTP_STATUS = {
    Reason.INVALID_UID: 400,
    Reason.MISMATCH: 409,
    Reason.NOT_UNDERSTOOD: 400,
    Reason.CONFLICT: 409,
    Reason.UNSUPPORTED_CLASS: 409,
    Reason.TOO_LARGE: 413,
    Reason.INVALID_QUERY: 400,
    Reason.NOT_AUTHENTICATED: 401,
    Reason.NOT_ALLOWED: 403,
    Reason.TOO_MANY: 429,
    Reason.NOT_FOUND: 404,
    Reason.NOT_ACCEPTABLE: 406,
    Reason.UNKNOWN_DESTINATION: 404,
    Reason.CANCELLED: 503,
    Reason.STORE_FULL: 507,
    Reason.UNAVAILABLE: 503,
    Reason.CORRUPT: 500,
}

# Failure Reason (0008,1197) of an instance that was not stored (PS3.18 section I.2.2; C-STORE's own
# codes are PS3.4 table B.2-1). What is not there is 0110, processing failure.
FAILURE_REASON = {
    Reason.INVALID_UID: 0xC000,
    Reason.MISMATCH: 0xA900,
    Reason.NOT_UNDERSTOOD: 0xC000,
    Reason.CONFLICT: 0xC111,
    Reason.UNSUPPORTED_CLASS: 0x0122,
    Reason.TOO_LARGE: 0xC002,  # an A7xx would be tried again for ever
    Reason.STORE_FULL: 0xA700,
    Reason.UNAVAILABLE: 0xA700,
}
PROCESSING_FAILURE = 0x0110

# When not one instance of a request was stored, and all for this reason: more telling than 409
TELLING = frozenset({Reason.TOO_LARGE, Reason.STORE_FULL, Reason.UNAVAILABLE})


class Problem(falcon.HTTPError):
    """An answer that is not a Refusal: HTTP's own reasons (405, 408, 415, 416, …)."""

    def __init__(self, status: int, reason: str, comment: str = "", headers: dict[str, str] | None = None):
        super().__init__(status, title=reason, description=comment, headers=headers)


def failure_reason(reason: Reason) -> int:
    """Failure Reason (0008,1197) for a refusal."""
    return FAILURE_REASON.get(reason, PROCESSING_FAILURE)


def problem(status: int, reason: str, comment: str, request_id: str) -> bytes:
    """The body of an error answer."""
    about: dict[str, Any] = {"type": "about:blank", "title": reason, "status": status}
    if comment:
        about["detail"] = comment
    if request_id:
        about["instance"] = f"urn:uuid:{request_id}"
    return json.dumps(about).encode()


Refused = Callable[[falcon.Request, str, str, dict[str, Any]], None]


class Errors:
    """Answers every exception by these tables. `refused` is told, with reason, comment and the address's
    parameters, of requests that are refused for who makes them (401 and 403)."""

    def __init__(self, refused: Refused) -> None:
        self._refused = refused

    def install(self, app: falcon.App[falcon.Request, falcon.Response]) -> None:
        """Let the app answer so."""
        app.add_error_handler(Exception, self._on_fault)
        app.add_error_handler(falcon.HTTPError, self._on_http_error)
        app.add_error_handler(Refusal, self._on_refusal)
        app.add_error_handler(TimeoutError, self._on_timeout)

    def _on_refusal(
        self, req: falcon.Request, resp: falcon.Response, refusal: Refusal, params: dict[str, Any]
    ) -> None:
        metrics.REFUSALS.labels("http", refusal.reason.value).inc()
        status = HTTP_STATUS[refusal.reason]
        if refusal.reason is Reason.CORRUPT:
            log.error("stored bytes fail their digest", route=req.uri_template)
        if status == 401:
            resp.set_header("WWW-Authenticate", 'Bearer realm="stele"')
        if status in (429, 503):
            resp.set_header("Retry-After", str(RETRY_AFTER_SECONDS))
        if status in (401, 403):
            self._refused(req, refusal.reason.value, refusal.comment, params)
        _answer(req, resp, status, refusal.reason.value, refusal.comment)

    def _on_http_error(
        self, req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, params: dict[str, Any]
    ) -> None:
        if error.headers:
            resp.set_headers(error.headers)
        title = str(error.title or falcon.http_status_to_code(error.status))
        # falcon's own descriptions may quote the request
        comment = error.description or "" if isinstance(error, Problem) else ""
        if isinstance(error, Problem):
            metrics.REFUSALS.labels("http", title).inc()
        if error.status_code == 403:
            self._refused(req, title, comment, params)
        _answer(req, resp, error.status_code, title, comment)

    @staticmethod
    def _on_timeout(req: falcon.Request, resp: falcon.Response, _error: TimeoutError, _params: Any) -> None:
        """The request's body did not come in time (`node.web.worker` sets the limits)."""
        metrics.REFUSALS.labels("http", "request_timeout").inc()
        resp.set_header("Connection", "close")
        _answer(req, resp, 408, "request_timeout", "")

    @staticmethod
    def _on_fault(req: falcon.Request, resp: falcon.Response, error: Exception, _params: Any) -> None:
        log.error("fault while answering", route=req.uri_template, method=req.method, **place_of(error))
        metrics.REFUSALS.labels("http", INTERNAL).inc()
        _answer(req, resp, 500, INTERNAL, "")


def _answer(req: falcon.Request, resp: falcon.Response, status: int, reason: str, comment: str) -> None:
    resp.status = falcon.code_to_http_status(status)
    resp.content_type = PROBLEM
    resp.stream = None
    resp.data = problem(status, reason, comment, req.env.get("stele.request_id", ""))
    resp.set_header("Cache-Control", "no-store")
    for name in ("ETag", "Last-Modified", "Content-Encoding"):
        resp.delete_header(name)
    if status != 416:  # which tells the length with it (RFC 9110 section 15.5.17)
        resp.delete_header("Content-Range")
