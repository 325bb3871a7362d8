"""What a refusal is called in DIMSE, by service (PS3.4 B.2.3, C.4; PS3.7 annex C)."""

from enum import Enum

import structlog

from node import metrics
from node.domain.errors import Reason, Refusal

log = structlog.get_logger()

SUCCESS = 0x0000
PENDING = 0xFF00
PENDING_KEYS_UNSUPPORTED = 0xFF01  # C-FIND: an optional key was not matched
CANCELLED = 0xFE00
SUBOPERATIONS_FAILED = 0xA702  # none of the sub-operations was successful
SUBOPERATIONS_PARTLY = 0xB000
UNRECOGNIZED_OPERATION = 0x0211
INTERNAL_COMMENT = "internal error; see the archive's log"


class Service(Enum):
    """DIMSE services with statuses of their own."""

    STORE = "store"
    FIND = "find"
    MOVE = "move"
    GET = "get"


_COMMON = {
    Reason.INVALID_UID: 0x0117,  # invalid object instance
    Reason.UNSUPPORTED_CLASS: 0x0122,
    Reason.NOT_AUTHENTICATED: 0x0124,
    Reason.NOT_ALLOWED: 0x0124,
    Reason.MISMATCH: 0xA900,
    Reason.NOT_UNDERSTOOD: 0xC000,
    Reason.INVALID_QUERY: 0xA900,
    Reason.TOO_LARGE: 0xC002,  # an A7xx would be tried again for ever
    Reason.NOT_FOUND: 0xC003,
    Reason.NOT_ACCEPTABLE: 0xC004,
    Reason.CONFLICT: 0xC111,
    Reason.CORRUPT: 0x0110,
    Reason.CANCELLED: CANCELLED,
    Reason.UNKNOWN_DESTINATION: 0xA801,
    Reason.TOO_MANY: 0xA700,
    Reason.STORE_FULL: 0xA700,
    Reason.UNAVAILABLE: 0xA700,
}
_RETRIEVAL = {
    **_COMMON,
    Reason.TOO_MANY: 0xA701,  # unable to calculate the number of matches
    Reason.STORE_FULL: 0xA701,
    Reason.UNAVAILABLE: 0xA701,
    Reason.INVALID_UID: 0xA900,
}
_TABLE = {
    Service.STORE: _COMMON,
    Service.FIND: {**_COMMON, Reason.INVALID_UID: 0xA900},
    Service.MOVE: _RETRIEVAL,
    Service.GET: _RETRIEVAL,
}
_INTERNAL = {Service.STORE: 0x0110, Service.FIND: 0xC000, Service.MOVE: 0xC000, Service.GET: 0xC000}


def status_of(service: Service, error: Exception) -> tuple[int, str]:
    """(status, error comment) for what ended a request; a fault of ours is logged here."""
    if isinstance(error, Refusal):
        metrics.REFUSALS.labels("dimse", error.reason.value).inc()
        return _TABLE[service][error.reason], error.comment
    # The exception's text may hold values out of a dataset: its kind and place must do.
    log.error("internal error", service=service.value, **where(error))
    metrics.REFUSALS.labels("dimse", "internal").inc()
    return _INTERNAL[service], INTERNAL_COMMENT


def where(error: BaseException) -> dict[str, str]:
    """An exception's kind and place, without its text."""
    trace = error.__traceback__
    frames = []
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return {"error": type(error).__name__, "at": " < ".join(reversed(frames[-6:]))}
